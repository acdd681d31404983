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
#define PACKET_MAX 262144
#define NET_MAX 64  /* an IPv4 header with all its options, an IPv6 header with 24 bytes of extensions */

/* Where a packet was seen: by the filter of its socket, at a cgroup hook, or on an interface. */
#define HOOK_FILTER 0
#define HOOK_INGRESS 1
#define HOOK_EGRESS 2
#define HOOK_NONE 3 /* no packet: the bytes that follow tell of the filter */
#define HOOK_WIRE_IN 4	/* on an interface: it comes to the socket */
#define HOOK_WIRE_OUT 5 /* on an interface: the socket has sent it */
#define HOOK_DROP 6	/* the kernel has freed it, and says that this is no ordinary end */
#define HOOK_SELECT 7 /* by the program that chooses a socket of a reuseport group */
#define HOOK_BESIDE 8 /* as HOOK_INGRESS, of a socket with a filter inside the tap, which records the packet as well */
#define HOOK_UNWANTED 0x80 /* a bit beside: the expression leaves the packet out, and this is a note of it */

/* What a hook says of one packet; the packet follows, from offset 0 on or from before it,
 * in room of a class. Go's RecordHeader has the same fields, as its
 * compiler checks. Native byte order unless it says otherwise. No data[] at the end,
 * because Go would pad a struct that ends in it.
 */
struct record {
	__u64 time;	       /* CLOCK_BOOTTIME, nanoseconds */
	__u64 cookie;	       /* of the socket that receives */
	__u64 origin;	       /* at the cgroup hook: cookie of the marked socket, its listener or itself */
	__u64 lost;	       /* packets that this cpu has lost so far */
	__u64 filter;	       /* at the cgroup hook: the socket's own filter, see ownfilter.h; 0 if it has none. On an interface: inode of its network namespace. At
				* HOOK_DROP: address of the instruction that has freed the packet */
	__u32 cpu;	       /* that ran the filter */
	__u32 len;	       /* skb->len: bytes from where the recorded ones begin */
	__u32 caplen;	       /* bytes that follow and are the packet's */
	__s32 verdict;	       /* what the filter decided: bytes to keep, 0 drops. At HOOK_DROP the kernel's reason */
	__u32 pkt_type;	       /* PACKET_HOST, PACKET_OUTGOING, ... */
	__u32 protocol;	       /* ethertype, network byte order */
	__u16 family;	       /* of the socket: AF_INET, AF_INET6; 0 unless at the cgroup hook */
	__u16 type;	       /* SOCK_STREAM, ... */
	__u16 socket_protocol; /* IPPROTO_TCP, ... */
	__u16 local_port;      /* host byte order */
	__u16 peer_port;       /* host byte order, 0 if not connected */
	__u8 state;	       /* TCP_LISTEN, ... */
	__u8 hook;	       /* HOOK_FILTER, ...; with HOOK_UNWANTED in a note */
	__u16 before;	       /* bytes that come before the filter's offset 0 and are recorded as well; on an interface, those before the network header */
	__s16 net_len;	       /* bytes in net[], or a negative errno */
	__u32 ifindex;	       /* 0 if the packet has no interface. From here on a note is different, see expression.h */
	__u32 ingress_ifindex; /* that received the packet */
	__u32 hash;	       /* flow hash, 0 when not computed */
	__u32 mark;
	__u32 priority;
	__u32 queue_mapping;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto; /* network byte order */
	__u32 gso_size;	  /* payload bytes of each segment, 0 without GSO */
	__u32 gso_segs;
	__u32 nonlinear; /* at a cgroup hook: of len, the last bytes, which direct access does not reach */
	__s16 link_len;	 /* bytes in link[], or a negative errno */
	__u8 link[LINK_MAX];  /* from the link header on. At HOOK_DROP, in 8 bytes: how many packets that arrive this cpu has lost so far */
	__u8 net[NET_MAX];    /* from the network header on */
};

/* One set for each cpu. seen == recorded + unwanted + ring_full + load_failed, always. */
struct counters {
	__u64 seen;
	__u64 recorded;
	__u64 ring_full;
	__u64 load_failed;
	__u64 truncated; /* of those recorded: longer than the snaplen */
	__u64 dropped;	 /* of those seen: verdict 0 */
	__u64 unwanted;	 /* left out by the expression, see expression.h */
} __attribute__((aligned(64)));

/* What is known of a packet before it is recorded: which socket it is for, from where on
 * the bytes that the hook sees are recorded, how many of those come before the filter's
 * offset 0, and the verdict.
 */
struct arrival {
	struct counters *counters;
	__u64 origin;
	__u64 filter;
	__u32 start;
	__s32 decided;
	__u16 family, type, protocol, local_port, peer_port;
	__u8 state, hook;
	__u32 before;
	__u32 nonlinear;
#ifdef WITHOUT_SOCKET
	__u64 cookie; /* of the socket that the packet is of, which is not the skb's */
#endif
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 32 << 20);
	__type(value, struct record); /* puts the layout into BTF for bpf2go */
} ring SEC(".maps");

/* An element for each cpu, and no per-cpu array: that could not be mapped. While a system call
 * looks into a map, the kernel runs no tracepoint's and no probe's program on its cpu, not
 * even when it is preempted.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* set by Go */
	__type(key, __u32);     /* cpu */
	__type(value, struct counters);
} counts SEC(".maps");

static __always_inline struct counters *counts_here(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&counts, &cpu);
}

const volatile __u32 snaplen = 262144;

/* Whether link[] is filled in. */
const volatile __u32 wants_link = 1;

/* Unread bytes at which the reader is woken; 0 wakes it for every packet. */
const volatile __u64 wakeup_bytes = 1 << 20;

/* Whether the reader is also woken by the first record after it has emptied the ring. */
const volatile __u32 wakes_first = 0;

/* Atomic, because a filter that runs in process context (unix sockets) can be
 * interrupted by one in softirq context on the same cpu.
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

/* How many bytes an IPv6 extension header has, whose second byte is length. */
static __always_inline __u32 extension_size(__u8 nexthdr, __u8 length)
{
	if (nexthdr == IPPROTO_FRAGMENT)
		return 8;
	return nexthdr == IPPROTO_AH ? (length + 2) * 4 : (length + 1) * 8;
}

static __always_inline long load_net(struct __sk_buff *skb, __u32 offset, void *to, __u32 len)
{
	return bpf_skb_load_bytes_relative(skb, offset, to, len, BPF_HDR_START_NET);
}

/* The offset of the transport header behind an IPv6 header and its extensions. */
static __attribute__((noinline, unused)) __u32 ipv6_transport(struct __sk_buff *skb)
{
	__u8 next = 0, extension[2];
	__u32 at = 40;
	int i;

	if (load_net(skb, 6, &next, 1))
		return at;
	for (i = 0; i < 8; i++) {
		if (!is_ipv6_extension(next) || load_net(skb, at, extension, 2))
			break;
		at += extension_size(next, extension[1]);
		next = extension[0];
	}
	return at;
}

/* Loads the options of an IPv4 header, which follow its first 20 bytes. Returns how many
 * bytes of net[] are filled in.
 */
static __always_inline int load_ipv4_options(struct __sk_buff *skb, struct record *rec)
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

/* Loads what follows the first 20 bytes of an IPv6 header: the rest of it, and as many
 * of the extension headers as there is room for.
 */
static __always_inline int load_ipv6_rest(struct __sk_buff *skb, struct record *rec)
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

/* Loads the network header. Returns its length in net[], or a negative errno. */
static __always_inline int load_net_header(struct __sk_buff *skb, struct record *rec)
{
	long err = load_net(skb, 0, rec->net, 20);

	if (err)
		return err;
	if (rec->protocol == bpf_htons(ETH_P_IP))
		return load_ipv4_options(skb, rec);
	if (rec->protocol == bpf_htons(ETH_P_IPV6))
		return load_ipv6_rest(skb, rec);
	return 20;
}

/* The wakeup flags below the threshold. 0 lets the kernel decide: it wakes the reader
 * only if the reader has consumed everything before this record. For that, a discarded
 * record counts like a submitted one.
 */
static __always_inline __u64 first_wakeup(void)
{
	return wakes_first ? 0 : BPF_RB_NO_WAKEUP;
}

/* Wakes the reader if this record made the unread bytes cross the threshold, and not
 * while they are above it: that would be a wakeup for each packet whenever the reader is
 * behind. To be called after the reservation, so that of two cpus that cross it at the
 * same time at least one notices.
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
	rec->link_len = 0;
	if (wants_link) {
		err = bpf_skb_load_bytes_relative(skb, 0, rec->link, LINK_MAX, BPF_HDR_START_MAC);
		rec->link_len = err ? err : LINK_MAX;
	}
	rec->net_len = load_net_header(skb, rec);
}

/* Fills in a record with room for class bytes, of which caplen are wanted. It is there
 * once for all classes, because a socket's filter counts as its memory: 20 KB may be all
 * that it has, and a filter that replaces it needs room beside it.
 */
static __attribute__((noinline)) int fill(struct __sk_buff *skb, struct record *rec, const struct arrival *at, __u32 caplen,
					  __u32 class)
{
	struct counters *c = at->counters;
	__u64 room = class, n = caplen; /* of 64 bits, of which no copy is made to compare them */

	describe(skb, rec);
#ifdef WITHOUT_SOCKET
	rec->cookie = at->cookie;
#endif
	rec->len = skb->len - at->start;
	rec->origin = at->origin;
	rec->family = at->family;
	rec->type = at->type;
	rec->socket_protocol = at->protocol;
	rec->local_port = at->local_port;
	rec->peer_port = at->peer_port;
	rec->state = at->state;
	rec->hook = at->hook;
	rec->before = at->before;
	rec->nonlinear = at->nonlinear;
	rec->filter = at->filter;
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
	if (at->hook & HOOK_UNWANTED) {
		count(&c->unwanted);
		return 0;
	}
	count(&c->recorded);
	if (skb->len - at->start > caplen)
		count(&c->truncated);
	return 0;
}

/* Records at most so many bytes of a packet. */
static __always_inline void record_packet(struct __sk_buff *skb, struct counters *c, struct arrival *at, __u32 limit)
{
	__u32 caplen = skb->len - at->start, class;
	struct record *rec;

	at->counters = c;
	if (caplen > limit)
		caplen = limit;
	class = class_for(caplen);
	rec = bpf_ringbuf_reserve(&ring, sizeof(*rec) + class, 0);
	if (!rec) {
		count(&c->ring_full);
		return;
	}
	/* Here, and the fields of struct arrival in that order: otherwise the verifier of 6.18 fails
	 * (EFAULT) where a verdict of the user's loads bytes with BPF_LD_ABS.
	 */
	rec->hook = at->hook;
	rec->before = at->before;
	fill(skb, rec, at, caplen, class);
}
