/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * What a hook leaves of a packet in the ring: the record, how it is filled in, and
 * what is counted.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "classes.h"

#define LINK_MAX 14 /* an Ethernet header */
#define NET_MAX 64  /* an IPv4 header with all its options, an IPv6 header with 24 bytes of extensions */

/* What the tap says of one packet; the packet follows, from offset 0 on, in room of a
 * class. Go's RecordHeader has the same fields, which its
 * compiler checks. Native byte order but where it says otherwise. No
 * data[] at the end, because Go would pad a struct that ends in it.
 */
struct record {
	__u64 time;	       /* CLOCK_BOOTTIME, nanoseconds */
	__u64 cookie;	       /* of the socket that receives */
	__u64 origin;	       /* at the cgroup hook: cookie of the socket that was marked, its listener or itself */
	__u64 lost;	       /* packets that this cpu has lost so far */
	__u32 cpu;	       /* that ran the filter */
	__u32 len;	       /* skb->len: bytes from offset 0 on */
	__u32 caplen;	       /* bytes that follow and are the packet's */
	__s32 verdict;	       /* what the filter decided: bytes to keep, 0 drops */
	__u32 pkt_type;	       /* PACKET_HOST, PACKET_OUTGOING, ... */
	__u32 protocol;	       /* ethertype, network byte order */
	__u32 ifindex;	       /* 0 for packets of no interface */
	__u32 ingress_ifindex; /* where it came in */
	__u32 hash;	       /* flow hash, 0 when not computed */
	__u32 mark;
	__u32 priority;
	__u32 queue_mapping;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto; /* network byte order */
	__u32 gso_size;	  /* bytes of payload a segment, 0 without GSO */
	__u32 gso_segs;
	__u16 family;	       /* at the cgroup hook, of the socket: AF_INET, AF_INET6; else 0 */
	__u16 type;	       /* SOCK_STREAM, ... */
	__u16 socket_protocol; /* IPPROTO_TCP, ... */
	__u16 local_port;      /* host byte order */
	__u16 peer_port;       /* host byte order, 0 if it has no peer */
	__u8 state;	       /* TCP_LISTEN, ... */
	__u8 pad0;
	__s16 link_len;	      /* bytes in link[], or a negative errno */
	__s16 net_len;	      /* bytes in net[], or a negative errno */
	__u8 link[LINK_MAX];  /* from the link header on */
	__u8 pad[2];
	__u8 net[NET_MAX];    /* from the network header on */
};

/* One set a cpu. seen == recorded + ring_full + load_failed, always. */
struct counters {
	__u64 seen;
	__u64 recorded;
	__u64 ring_full;
	__u64 load_failed;
	__u64 truncated; /* of the recorded: cut off by the snaplen */
	__u64 dropped;	 /* of the seen: verdict 0 */
};

/* Where a packet is recorded: which socket it is for, where the filter's offset 0
 * is in the bytes that the hook sees, and what was decided.
 */
struct place {
	struct counters *counters;
	__u64 origin;
	__u32 start;
	__s32 decided;
	__u16 family, type, protocol, local_port, peer_port;
	__u8 state;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 32 << 20);
	__type(value, struct record); /* puts the layout into BTF for bpf2go */
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counts SEC(".maps");

const volatile __u32 snaplen = 262144;

/* Whether anybody wants to see link[]. */
const volatile __u32 wants_link = 1;

/* Unread bytes at which userspace is woken; 0 wakes it for every packet. */
const volatile __u64 wakeup_bytes = 1 << 20;

/* Whether it is woken as well by the first record after it has read all there were. */
const volatile __u32 wakes_first = 0;

/* Atomic, because a filter in process context (unix sockets) can be
 * interrupted by one in softirq on the same cpu.
 */
static __always_inline void count(__u64 *counter)
{
	__sync_fetch_and_add(counter, 1);
}

static __always_inline int is_ipv6_extension(__u8 nexthdr)
{
	return nexthdr == IPPROTO_HOPOPTS || nexthdr == IPPROTO_ROUTING || nexthdr == IPPROTO_FRAGMENT ||
	       nexthdr == IPPROTO_DSTOPTS || nexthdr == IPPROTO_AH;
}

static __always_inline long load_net(struct __sk_buff *skb, __u32 offset, void *to, __u32 len)
{
	return bpf_skb_load_bytes_relative(skb, offset, to, len, BPF_HDR_START_NET);
}

/* What follows the first 20 bytes of an IPv4 header: its options. */
static __always_inline int reach_ipv4_options(struct __sk_buff *skb, struct record *rec)
{
	__u32 more = (rec->net[0] & 0xf) * 4 - 20;

	if (more < 1 || more > 40)
		return 20;
	asm volatile("" : "+r"(more));
	more = ((more - 1) & 63) + 1;
	if (more > 40 || load_net(skb, 20, rec->net + 20, more))
		return 20;
	return 20 + more;
}

/* What follows the first 20 bytes of an IPv6 header: the rest of it, and as
 * much of the extension headers as there is room for.
 */
static __always_inline int reach_ipv6_rest(struct __sk_buff *skb, struct record *rec)
{
	int len = 40;

	if (load_net(skb, 20, rec->net + 20, 20))
		return 20;
	if (!is_ipv6_extension(rec->net[6]))
		return len;
#pragma unroll
	for (int at = 40; at < NET_MAX; at += 8) {
		if (load_net(skb, at, rec->net + at, 8))
			break;
		len = at + 8;
	}
	return len;
}

static __always_inline int reach_net(struct __sk_buff *skb, struct record *rec)
{
	long err = load_net(skb, 0, rec->net, 20);

	if (err)
		return err;
	if (rec->protocol == bpf_htons(ETH_P_IP))
		return reach_ipv4_options(skb, rec);
	if (rec->protocol == bpf_htons(ETH_P_IPV6))
		return reach_ipv6_rest(skb, rec);
	return 20;
}

/* Below the threshold the kernel itself wakes who has given back all before this
 * record, or nobody. What is discarded counts for that like what is submitted.
 */
static __always_inline __u64 first_wakeup(void)
{
	return wakes_first ? 0 : BPF_RB_NO_WAKEUP;
}

/* Wakes userspace when this record made the unread bytes cross the threshold,
 * not as long as they are above it: that would be once a packet whenever the
 * reader is behind. Asked after the reservation, so that of two cpus that cross
 * it together at least one knows.
 */
static __always_inline __u64 wakeup(__u64 size)
{
	__u64 unread;

	if (!wakeup_bytes)
		return BPF_RB_FORCE_WAKEUP;
	unread = bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA);
	if (unread >= wakeup_bytes && unread - size < wakeup_bytes)
		return BPF_RB_FORCE_WAKEUP;
	return first_wakeup();
}

static __attribute__((noinline)) void describe(struct __sk_buff *skb, struct record *rec)
{
	long err;

	rec->time = bpf_ktime_get_boot_ns();
	rec->cookie = bpf_get_socket_cookie(skb);
	rec->cpu = bpf_get_smp_processor_id();
	rec->pkt_type = skb->pkt_type;
	rec->protocol = skb->protocol;
	rec->ifindex = skb->ifindex;
	rec->ingress_ifindex = skb->ingress_ifindex;
	rec->hash = skb->hash;
	rec->mark = skb->mark;
	rec->priority = skb->priority;
	rec->queue_mapping = skb->queue_mapping;
	rec->vlan_present = skb->vlan_present;
	rec->vlan_tci = skb->vlan_tci;
	rec->vlan_proto = skb->vlan_proto;
	rec->gso_size = skb->gso_size;
	rec->gso_segs = skb->gso_segs;
	rec->pad[0] = 0;
	rec->pad[1] = 0;
	rec->link_len = 0;
	if (wants_link) {
		err = bpf_skb_load_bytes_relative(skb, 0, rec->link, LINK_MAX, BPF_HDR_START_MAC);
		rec->link_len = err ? err : LINK_MAX;
	}
	rec->net_len = reach_net(skb, rec);
}

/* Fills in a record with room for class bytes, of which caplen are wanted. It is there
 * once for all classes, because a socket's filter counts as its memory: 20 KB may be all
 * that it has, and a filter that replaces it needs room beside it.
 */
static __attribute__((noinline)) int fill(struct __sk_buff *skb, struct record *rec, const struct place *at, __u32 caplen,
					  __u32 class)
{
	struct counters *c = at->counters;
	__u64 room = class, n = caplen; /* of 64 bits, of which no copy is made to compare them */

	describe(skb, rec);
	rec->len = skb->len - at->start;
	rec->origin = at->origin;
	rec->family = at->family;
	rec->type = at->type;
	rec->socket_protocol = at->protocol;
	rec->local_port = at->local_port;
	rec->peer_port = at->peer_port;
	rec->state = at->state;
	rec->pad0 = 0;
	rec->verdict = at->decided;
	rec->caplen = caplen;
	rec->lost = c->ring_full + c->load_failed;
	if (caplen > 0) {
		n = bounded(n, room);
		if (n > room || bpf_skb_load_bytes(skb, at->start, rec + 1, n)) {
			bpf_ringbuf_discard(rec, first_wakeup());
			count(&c->load_failed);
			return 0;
		}
	}
	bpf_ringbuf_submit(rec, wakeup(sizeof(*rec) + class + BPF_RINGBUF_HDR_SZ));
	count(&c->recorded);
	if (skb->len - at->start > caplen)
		count(&c->truncated);
	return 0;
}

/* Records a packet from the filter's offset 0 on. */
static __always_inline void record_packet(struct __sk_buff *skb, struct counters *c, struct place *at)
{
	__u32 caplen = skb->len - at->start, class;
	struct record *rec;

	at->counters = c;
	if (caplen > snaplen)
		caplen = snaplen;
	class = class_for(caplen);
	rec = bpf_ringbuf_reserve(&ring, sizeof(*rec) + class, 0);
	if (rec)
		fill(skb, rec, at, caplen, class);
	else
		count(&c->ring_full);
}
