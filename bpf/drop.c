//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Records packets of followed sockets that the kernel frees, with its reason, at the
// tracepoint kfree_skb. What is freed because it was used up does not come there. Only reads.

#include "record.h"
#include "kernel.h"
#include "marks.h"
#include "headers.h"
#include "ports.h"
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define AF_INET 2
#define AF_INET6 10
#define SOCK_RAW 3
#define PACKET_OUTGOING 4
#define TCP_TIME_WAIT 6
#define TCP_NEW_SYN_RECV 12
#define NO_OFFSET 0xffff /* of a header that is not set */

struct net_device {
	net_pointer nd_net;
} KERNEL;
struct skb_shared_info {
	__u16 gso_size, gso_segs;
} KERNEL;
struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	__u32 len;
	__u16 queue_mapping;
	__u8 pkt_type : 3;
	__u32 vlan_all;
	__u16 vlan_proto; /* network byte order */
	__u16 vlan_tci;
	__u32 priority, hash, mark;
	int skb_iif;	/* that has received it, 0 if none has */
	__u16 protocol; /* network byte order */
	__u16 network_header;
	__u32 tail, end; /* offsets from head, like that of the header */
	__u8 *head, *data;
} KERNEL;

/* Whether packets are recorded. Cleared at the end of the capture. */
__u32 recording = 1;

/* Whether the tracepoint tells the socket that was to receive the packet (Linux 6.11), and
 * the number by which the kernel says that a packet was used up.
 */
const volatile __u32 tells_receiver = 0, used_up = 0;

/* Whether there is a register of addresses, for packets whose socket the kernel does not tell. */
const volatile __u32 by_address = 0;

/* The network namespace of all followed processes, 0 if there are several: TCP forgets the
 * device of what it has found a connection for. Only asked where the kernel does not tell the
 * receiver.
 */
__u32 only_network;

/* The ledger of the packets that arrive at their sockets, an element for each cpu. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* set by Go */
	__type(key, __u32);     /* cpu */
	__type(value, struct counters);
} arrivals SEC(".maps");

/* What is known of a packet and its socket before it is recorded. */
struct freed {
	struct counters *counters;
	__u64 origin, cookie, location;
	__u64 arrivals_lost; /* by this cpu so far */
	__u64 network; /* address of its network header */
	__u32 linear;  /* bytes from there on that are in one piece */
	__u32 length;  /* and all of them */
	__u32 before;  /* of those, before offset 0 of the socket's filter */
	__u32 reason;
	__u16 family, type, protocol, local_port, peer_port;
	__u8 state, sent;
};

/* As in expression.h, of the kernel's memory: of a packet in pieces only the first one is there. */
__attribute__((noinline)) __s64 packet_word(struct freed *f, __s64 before, __u64 offset, __u32 size)
{
	__u32 word = 0;
	__u16 half = 0;
	__u8 byte = 0;

	asm volatile("" : "+r"(before)); /* or clang leaves the argument out */
	if (!f)
		return -1;
	if (!size)
		return f->length;
	if (offset > PACKET_MAX || offset + size > f->linear)
		return -1;
	if (size == 4)
		return bpf_probe_read_kernel(&word, 4, (void *)f->network + offset) ? -1 : (__s64)bpf_ntohl(word);
	if (size == 2)
		return bpf_probe_read_kernel(&half, 2, (void *)f->network + offset) ? -1 : (__s64)bpf_ntohs(half);
	return bpf_probe_read_kernel(&byte, 1, (void *)f->network + offset) ? -1 : (__s64)byte;
}
#define PACKET_WORD struct freed
#include "expression.h"

static __always_inline int is_inet(__u16 family)
{
	return family == AF_INET || family == AF_INET6;
}

/* Finds the bytes from the network header on. Those of a packet that has none yet are not
 * recorded: nobody else has seen it either.
 */
static __always_inline int find_bytes(struct sk_buff *skb, struct freed *f)
{
	__u32 at = skb->network_header, tail = skb->tail, end = skb->end, len = skb->len;
	__u64 head = (__u64)skb->head, data = (__u64)skb->data;
	__s64 before; /* bytes between the network header and data */

	if (at == NO_OFFSET || tail > end || at > tail || !head)
		return 0;
	before = data - head - at;
	if (before > 0xffff || before < -0xffff || (__s64)len + before <= 0)
		return 0;
	f->network = head + at;
	f->linear = tail - at;
	f->length = len + before;
	if (f->linear > f->length)
		f->linear = f->length;
	return f->length <= PACKET_MAX;
}

static __always_inline int read_freed_ipv4(const struct freed *f, struct packet *p)
{
	__u32 ip[5];
	__u16 offset;

	if (f->linear < sizeof(ip) || bpf_probe_read_kernel(ip, sizeof(ip), (void *)f->network))
		return -1;
	p->source[2] = p->destination[2] = bpf_htonl(0xffff);
	p->source[3] = ip[3];
	p->destination[3] = ip[4];
	p->protocol = bpf_ntohl(ip[2]) >> 16;
	p->transport = ((bpf_ntohl(ip[0]) >> 24) & 0xf) * 4;
	offset = bpf_ntohl(ip[1]) & 0xffff;
	p->later = (offset & 0x1fff) != 0;
	return 0;
}

static __always_inline int read_freed_ipv6(const struct freed *f, struct packet *p)
{
	__u32 ip[10], at = sizeof(ip), words[2];
	__u8 next;
	int i;

	if (f->linear < sizeof(ip) || bpf_probe_read_kernel(ip, sizeof(ip), (void *)f->network))
		return -1;
	__builtin_memcpy(p->source, ip + 2, 16);
	__builtin_memcpy(p->destination, ip + 6, 16);
	next = bpf_ntohl(ip[1]) >> 8;
	for (i = 0; i < 8; i++) {
		if (p->later || !is_ipv6_extension(next) || at + sizeof(words) > f->linear ||
		    bpf_probe_read_kernel(words, sizeof(words), (void *)f->network + at))
			break;
		p->later = next == IPPROTO_FRAGMENT && (bpf_ntohl(words[0]) & 0xfff8);
		at += extension_size(next, bpf_ntohl(words[0]) >> 16);
		next = bpf_ntohl(words[0]) >> 24;
	}
	p->protocol = next;
	p->transport = at;
	return 0;
}

/* As read_packet in headers.h, of the kernel's memory. Global for the same reason. */
__attribute__((noinline)) int read_freed(const struct freed *f, struct packet *p)
{
	__u32 words[2];
	__u8 first = 0, asks;

	if (!f || !p)
		return -1;
	__builtin_memset(p, 0, sizeof(*p));
	if (bpf_probe_read_kernel(&first, 1, (void *)f->network))
		return -1;
	p->version = first >> 4;
	if (p->version == 4) {
		if (read_freed_ipv4(f, p))
			return -1;
	} else if (p->version != 6 || read_freed_ipv6(f, p)) {
		return -1;
	}
	if (p->later || p->transport + 8 > f->linear || bpf_probe_read_kernel(words, 8, (void *)f->network + p->transport))
		return 0;
	if (has_ports(p->protocol)) {
		p->source_port = bpf_ntohl(words[0]) >> 16;
		p->destination_port = bpf_ntohl(words[0]) & 0xffff;
	} else if (p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6) {
		p->kind = bpf_ntohl(words[0]) >> 24;
		asks = p->version == 4 ? ICMP_ECHO : ICMP6_ECHO;
		if (p->kind == asks)
			p->source_port = bpf_ntohl(words[1]) >> 16;
		else if (p->kind == (p->version == 4 ? ICMP_ECHO_REPLY : ICMP6_ECHO_REPLY))
			p->destination_port = bpf_ntohl(words[1]) >> 16;
	}
	return 0;
}

/* Describes the packet's socket. */
static __attribute__((noinline)) void describe_owner(struct freed *f, __u64 address)
{
	struct sock *sk = (void *)address;
	struct inet_sock *inet = (void *)address;

	f->cookie = FIELD(sk, __sk_common.skc_cookie.counter);
	f->family = FIELD(sk, __sk_common.skc_family);
	f->type = FIELD(sk, sk_type);
	f->protocol = FIELD(sk, sk_protocol);
	f->state = FIELD(sk, __sk_common.skc_state);
	f->local_port = bpf_ntohs(FIELD(inet, inet_sport));
	f->peer_port = bpf_ntohs(FIELD(sk, __sk_common.skc_dport));
}

static __attribute__((noinline)) void describe_freed(__u64 address, struct record *rec, const struct freed *f)
{
	struct sk_buff *skb = (void *)address;
	struct skb_shared_info *shared = (void *)FIELD(skb, head) + FIELD(skb, end);
	__u32 net = f->linear > NET_MAX ? NET_MAX : f->linear;

	rec->time = bpf_ktime_get_boot_ns();
	rec->cookie = f->cookie;
	rec->origin = f->origin;
	rec->filter = f->location;
	rec->cpu = bpf_get_smp_processor_id();
	rec->verdict = f->reason;
	rec->pkt_type = f->sent ? PACKET_OUTGOING : 0;
	rec->protocol = FIELD(skb, protocol);
	rec->ifindex = rec->ingress_ifindex = FIELD(skb, skb_iif);
	rec->hash = FIELD(skb, hash);
	rec->mark = FIELD(skb, mark);
	rec->priority = FIELD(skb, priority);
	rec->queue_mapping = FIELD(skb, queue_mapping);
	rec->vlan_present = rec->vlan_tci = rec->vlan_proto = 0;
	/* Before Linux 6.2 what these fields have may be of an earlier packet. */
	if (bpf_core_field_exists(skb->vlan_all) && FIELD(skb, vlan_all)) {
		rec->vlan_present = 1;
		rec->vlan_tci = FIELD(skb, vlan_tci);
		rec->vlan_proto = FIELD(skb, vlan_proto);
	}
	rec->gso_size = FIELD(shared, gso_size);
	rec->gso_segs = FIELD(shared, gso_segs);
	rec->nonlinear = f->length - f->linear;
	rec->family = f->family;
	rec->type = f->type;
	rec->socket_protocol = f->protocol;
	rec->local_port = f->local_port;
	rec->peer_port = f->peer_port;
	rec->state = f->state;
	rec->hook = HOOK_DROP;
	rec->link_len = 0;
	__builtin_memcpy(rec->link, &f->arrivals_lost, sizeof(f->arrivals_lost));
	rec->before = f->before;
	rec->net_len = 0;
	if (net >= 20 && !bpf_probe_read_kernel(rec->net, 20, (void *)f->network)) {
		rec->net_len = 20;
		if (net >= 40 && !bpf_probe_read_kernel(rec->net + 20, 20, (void *)f->network + 20))
			rec->net_len = 40;
		if (net == NET_MAX && rec->net_len == 40 &&
		    !bpf_probe_read_kernel(rec->net + 40, NET_MAX - 40, (void *)f->network + 40))
			rec->net_len = NET_MAX;
	}
}

/* As fill in record.h, for bytes of the kernel's memory. */
static __attribute__((noinline)) int fill_freed(__u64 skb, struct record *rec, const struct freed *f, __u32 caplen, __u32 class)
{
	struct counters *c = f->counters;
	__u64 room = class, n = caplen;

	describe_freed(skb, rec, f);
	rec->len = f->length;
	rec->caplen = caplen;
	rec->lost = c->ring_full + c->load_failed;
	n = bounded(n, room);
	if (n > room || bpf_probe_read_kernel(rec + 1, n, (void *)f->network)) {
		bpf_ringbuf_discard(rec, first_wakeup());
		count(&c->load_failed);
		return 0;
	}
	bpf_ringbuf_submit(rec, wakeup(sizeof(*rec) + class + BPF_RINGBUF_HDR_SZ));
	count(&c->recorded);
	if (f->length > caplen)
		count(&c->truncated);
	return 0;
}

static __always_inline void record_freed(__u64 skb, struct freed *f)
{
	__u32 caplen = f->linear, limit = snaplen + f->before, class;
	struct record *rec;

	if (limit > PACKET_MAX)
		limit = PACKET_MAX;
	if (caplen > limit)
		caplen = limit;
	class = class_for(caplen);
	rec = bpf_ringbuf_reserve(&ring, sizeof(*rec) + class, 0);
	if (!rec) {
		count(&f->counters->ring_full);
		return;
	}
	fill_freed(skb, rec, f, caplen, class);
}

#define NOT_CHOSEN 0
#define CHOSEN 1
#define BY_ADDRESS 2 /* its socket does not tell */

/* Whether a packet is one of a followed socket, by the socket itself: that which was to receive
 * it, or that which it belongs to. The copies of other observers belong to packet sockets.
 */
static __always_inline int choose_by_socket(struct freed *f, struct sock *receiver, struct sock *owner)
{
	__u16 family = receiver ? receiver->__sk_common.skc_family : 0;
	struct mark *mark;
	__u8 state;

	if (family) {
		if (!is_inet(family))
			return NOT_CHOSEN;
		state = receiver->__sk_common.skc_state;
		if (state == TCP_TIME_WAIT || state == TCP_NEW_SYN_RECV)
			return BY_ADDRESS; /* no whole socket, and has no mark */
		if (!receiver)
			return NOT_CHOSEN;
		mark = bpf_sk_storage_get(&marks, receiver, 0, 0);
		if (!mark)
			return NOT_CHOSEN;
		f->origin = mark->origin;
		describe_owner(f, (__u64)receiver);
		return CHOSEN;
	}
	if (!owner)
		return BY_ADDRESS;
	mark = bpf_sk_storage_get(&marks, owner, 0, 0);
	if (!mark)
		return BY_ADDRESS;
	f->origin = mark->origin;
	describe_owner(f, (__u64)owner);
	return CHOSEN;
}

/* Takes the socket that the register of addresses has. */
static __always_inline int take_owner(struct freed *f, const struct packet *p, __u32 network, __u32 incoming)
{
	struct owner *whose;
	struct flow at;

	if (network) {
		flow_of(p, network, incoming, &at);
		whose = owner_of(&at, p->version, incoming);
	} else {
		/* A connection has both addresses: that another namespace has one with the same is unlikely. */
		flow_of(p, *(volatile __u32 *)&only_network, incoming, &at);
		whose = bpf_map_lookup_elem(&flows, &at);
	}
	if (!whose)
		return 0;
	f->cookie = whose->cookie;
	f->origin = whose->origin;
	f->family = whose->family;
	f->type = whose->type;
	f->protocol = whose->protocol;
	f->local_port = whose->local_port;
	f->peer_port = whose->peer_port;
	f->state = whose->state;
	f->sent = !incoming;
	return 1;
}

/* Finds the socket of a packet by its addresses, in the network namespace of the socket that it
 * belongs to or else of its device.
 */
static __attribute__((noinline)) int choose_by_address(struct freed *f, const struct packet *p, __u64 skb_address, __u64 owner_address)
{
	struct sk_buff *skb = (void *)skb_address;
	struct sock *owner = (void *)owner_address;
	struct net_device *dev = FIELD(skb, dev);
	struct net *net;
	__u32 network;

	net = owner ? FIELD(owner, __sk_common.skc_net.net) : FIELD(dev, nd_net.net);
	network = FIELD(net, ns.inum);
	if (!network && (tells_receiver || p->protocol != IPPROTO_TCP))
		return NOT_CHOSEN;
	/* What no device has received yet goes out, or is on its way from one socket to another. */
	if (!FIELD(skb, skb_iif) && take_owner(f, p, network, 0))
		return CHOSEN;
	return take_owner(f, p, network, 1) ? CHOSEN : NOT_CHOSEN;
}

/* Tells whether the expression chooses a packet. */
static __attribute__((noinline)) int is_chosen(struct freed *f)
{
	struct first_bytes first = {};

	if (f->linear < FIRST_MIN)
		return 0;
	if (f->linear < FIRST_MAX)
		first.less = FIRST_LESS;
	if (bpf_probe_read_kernel(&first, FIRST_MIN, (void *)f->network) ||
	    (!first.less && bpf_probe_read_kernel(&first, FIRST_MAX, (void *)f->network)))
		return 0;
	return is_wanted(f, 0, &first);
}

SEC("tp_btf/kfree_skb")
int freed(__u64 *ctx)
{
	struct sk_buff *skb = (void *)ctx[0];
	struct freed f = {.location = ctx[1], .reason = ctx[2]};
	struct counters *counters, *arrived;
	struct packet p;
	struct sock *owner;
	__u32 cpu, chosen = BY_ADDRESS;
	__u16 family;

	if (!*(volatile __u32 *)&recording || !f.reason || f.reason == used_up || !is_ip(skb->protocol))
		return 0;
	/* The copy that packet sockets get of what is sent. Nothing else is of this type. */
	if (BPF_CORE_READ_BITFIELD(skb, pkt_type) == PACKET_OUTGOING)
		return 0;
	owner = skb->sk;
	family = owner ? owner->__sk_common.skc_family : 0;
	if (family && !is_inet(family))
		return 0; /* a copy in the queue of a packet socket */
	if (tells_receiver)
		chosen = choose_by_socket(&f, (struct sock *)ctx[3], owner);
	if (chosen == NOT_CHOSEN || !find_bytes(skb, &f) || read_freed(&f, &p))
		return 0;
	f.sent = !skb->skb_iif;
	if (chosen == BY_ADDRESS && by_address)
		chosen = choose_by_address(&f, &p, (__u64)skb, (__u64)owner);
	if (chosen != CHOSEN || !wanted_port(f.local_port, f.peer_port))
		return 0;
	cpu = bpf_get_smp_processor_id();
	counters = bpf_map_lookup_elem(&counts, &cpu);
	if (!counters)
		return 0;
	count(&counters->seen);
	if (selective && !is_chosen(&f)) {
		count(&counters->unwanted);
		return 0;
	}
	arrived = bpf_map_lookup_elem(&arrivals, &cpu);
	if (arrived)
		f.arrivals_lost = arrived->ring_full + arrived->load_failed;
	f.counters = counters; /* now: a global function that f is given to may have changed it, for the verifier */
	if (!(f.family == AF_INET && f.type == SOCK_RAW) && p.transport <= f.length)
		f.before = p.transport;
	record_freed((__u64)skb, &f);
	return 0;
}
