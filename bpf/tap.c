//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// The tap: a socket filter that keeps every packet and leaves a copy of it in
// a ring buffer. Plain C without BTF relocations or vmlinux.h, so that one
// object loads on every kernel from 5.8 on.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define LINK_MAX 14 /* an Ethernet header */
#define NET_MAX 64  /* an IPv4 header with all its options, an IPv6 header with 24 bytes of extensions */

/* What the tap says of one packet; the packet follows, from offset 0 on, in room
 * for a power of two of bytes. Go's Record is made of it: field order and sizes
 * are written here only. Native byte order but where it says otherwise. No
 * data[] at the end, because Go would pad a struct that ends in it.
 */
struct record {
	__u64 time;	       /* CLOCK_BOOTTIME, nanoseconds */
	__u64 cookie;	       /* of the socket whose filter ran */
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

/* Unread bytes at which userspace is woken; 0 wakes it for every packet. */
const volatile __u64 wakeup_bytes = 1 << 20;

/* Cleared when nobody reads any more: sockets accepted while the tap was on
 * keep it for the rest of their lives.
 */
__u32 listening = 1;

/* A user's own filter takes this function's place at load time, so it must
 * stay a call and its result must stay unknown to the compiler.
 */
static __attribute__((noinline)) int verdict(struct __sk_buff *skb)
{
	int keep_all = -1;

	asm volatile("" : "+r"(keep_all), "+r"(skb));
	return keep_all;
}

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

static __attribute__((noinline)) void describe(struct __sk_buff *skb, struct record *rec)
{
	long err;

	rec->time = bpf_ktime_get_boot_ns();
	rec->cookie = bpf_get_socket_cookie(skb);
	rec->cpu = bpf_get_smp_processor_id();
	rec->len = skb->len;
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
	err = bpf_skb_load_bytes_relative(skb, 0, rec->link, LINK_MAX, BPF_HDR_START_MAC);
	rec->link_len = err ? err : LINK_MAX;
	rec->net_len = reach_net(skb, rec);
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
	return BPF_RB_NO_WAKEUP;
}

/* Records a packet of which caplen bytes, at most class, are wanted. The ring
 * wants a constant size, so there is one copy of this for each class.
 */
static __always_inline void record(struct __sk_buff *skb, struct counters *c, __u32 caplen, int decided,
				   const __u32 class)
{
	struct record *rec;

	rec = bpf_ringbuf_reserve(&ring, sizeof(*rec) + class, 0);
	if (!rec) {
		count(&c->ring_full);
		return;
	}
	describe(skb, rec);
	rec->verdict = decided;
	rec->caplen = caplen;
	rec->lost = c->ring_full + c->load_failed;
	if (caplen > 0) {
		/* The verifiers of 5.10 and 6.1 believe in a bound only when they see it
		 * computed, and clang would leave out what it knows already.
		 */
		asm volatile("" : "+r"(caplen));
		caplen = ((caplen - 1) & (class - 1)) + 1;
		if (bpf_skb_load_bytes(skb, 0, rec + 1, caplen)) {
			bpf_ringbuf_discard(rec, BPF_RB_NO_WAKEUP);
			count(&c->load_failed);
			return;
		}
	}
	bpf_ringbuf_submit(rec, wakeup(sizeof(*rec) + class + BPF_RINGBUF_HDR_SZ));
	count(&c->recorded);
	if (skb->len > caplen)
		count(&c->truncated);
}

SEC("socket")
int tap(struct __sk_buff *skb)
{
	__u32 zero = 0, caplen = skb->len;
	struct counters *c;
	int decided;

	/* First, because the verifier of 5.10 then takes larger filters in its place. */
	decided = verdict(skb);
	if (!*(volatile __u32 *)&listening)
		return -1; /* all of it */
	c = bpf_map_lookup_elem(&counts, &zero);
	if (!c)
		return decided;
	count(&c->seen);
	if (!decided)
		count(&c->dropped);
	if (caplen > snaplen)
		caplen = snaplen;

	if (caplen <= 64)
		record(skb, c, caplen, decided, 64);
	else if (caplen <= 128)
		record(skb, c, caplen, decided, 128);
	else if (caplen <= 256)
		record(skb, c, caplen, decided, 256);
	else if (caplen <= 512)
		record(skb, c, caplen, decided, 512);
	else if (caplen <= 1024)
		record(skb, c, caplen, decided, 1024);
	else if (caplen <= 2048)
		record(skb, c, caplen, decided, 2048);
	else if (caplen <= 4096)
		record(skb, c, caplen, decided, 4096);
	else if (caplen <= 8192)
		record(skb, c, caplen, decided, 8192);
	else if (caplen <= 16384)
		record(skb, c, caplen, decided, 16384);
	else if (caplen <= 32768)
		record(skb, c, caplen, decided, 32768);
	else if (caplen <= 65536)
		record(skb, c, caplen, decided, 65536);
	else if (caplen <= 131072)
		record(skb, c, caplen, decided, 131072);
	else
		record(skb, c, caplen, decided, 262144);
	return decided;
}
