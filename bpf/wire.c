//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// The filter of a packet socket that gets the frames of all interfaces of a network
// namespace. It records those of chosen sockets, and lets none pass. Plain C without BTF
// relocations, as the tap.

#define WITHOUT_SOCKET
#include "record.h"
#include "expression.h"
#include "flows.h"
#include "headers.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define PACKET_OUTGOING 4
#define LOOPBACK 1 /* the number of lo in each network namespace */
#define TCP_LISTEN 10

/* The inode of the network namespace. */
const volatile __u32 network;

/* Cleared at the end of the capture. */
__u32 watching = 1;

/* The later fragments of a packet have no ports: they are found by the first one. */
struct fragment {
	__u32 network;
	__u32 id;
	__u32 source[4], destination[4];
	__u32 protocol;
};

struct fragment_owner {
	struct owner owner;
	__u32 incoming;
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct fragment);
	__type(value, struct fragment_owner);
} fragments SEC(".maps");

/* The offset of the network header; negative if there is none that is known. Devices
 * without a link header begin with it.
 */
static __attribute__((noinline)) int network_offset(struct __sk_buff *skb)
{
	__u64 link[2] = {}, net;
	__u8 *bytes = (__u8 *)link;
	__u16 type;
	int at = 14;

	if (bpf_skb_load_bytes(skb, 0, link, 14))
		return -1;
	/* No frame has an address that is the beginning of its IP header. */
	if (!load_net(skb, 0, &net, sizeof(net)) && net == link[0])
		return 0;
	type = bytes[12] << 8 | bytes[13];
#pragma unroll
	for (int tags = 0; tags < 2; tags++) {
		if (type != ETH_P_8021Q && type != ETH_P_8021AD)
			break;
		if (bpf_skb_load_bytes(skb, at + 2, &type, sizeof(type)))
			return -1;
		type = bpf_ntohs(type);
		at += 4;
	}
	return type == ETH_P_IP || type == ETH_P_IPV6 ? at : -1;
}

/* Tells whether a frame is nobody's for sure, without a look at all of its headers: nearly
 * all are TCP or UDP, at ports of others.
 */
static __attribute__((noinline)) int of_others(struct __sk_buff *skb, __u32 incoming)
{
	__u64 words[5] = {}, net; /* the IP header begins at a multiple of 8 */
	__u8 *frame = (__u8 *)words + 2, ports[4], protocol;
	__u16 source, destination;
	struct hints *h;
	__u32 zero = 0;

	if (bpf_skb_load_bytes(skb, 0, frame, 38) || load_net(skb, 0, &net, sizeof(net)) || net != words[2])
		return 0;
	if (frame[12] == ETH_P_IP >> 8 && !frame[13] && frame[14] == 0x45 && !(frame[20] & 0x3f) && !frame[21]) {
		protocol = frame[23];
		source = frame[34] << 8 | frame[35];
		destination = frame[36] << 8 | frame[37];
	} else if (frame[12] == ETH_P_IPV6 >> 8 && frame[13] == (ETH_P_IPV6 & 0xff)) {
		protocol = frame[20];
		if (bpf_skb_load_bytes(skb, 54, ports, sizeof(ports)))
			return 0;
		source = ports[0] << 8 | ports[1];
		destination = ports[2] << 8 | ports[3];
	} else {
		return 0;
	}
	h = bpf_map_lookup_elem(&hints, &zero);
	if (!h || !has_ports(protocol))
		return 0;
	if (incoming && (*port_hint(h, destination) || *raw_hint(h, protocol)))
		return 0;
	return !((!incoming || skb->ifindex == LOOPBACK) && *port_hint(h, source));
}

static __always_inline struct owner *owner_at(const struct packet *p, __u32 incoming)
{
	struct flow f;

	flow_of(p, network, incoming, &f);
	return owner_of(&f, p->version, incoming);
}

/* Tells whether a packet is an ICMP message that quotes another one. */
static __always_inline int quotes(const struct packet *p)
{
	if (p->version == 4)
		return p->protocol == IPPROTO_ICMP && (p->kind == 3 || p->kind == 4 || p->kind == 5 || p->kind == 11 || p->kind == 12);
	return p->protocol == IPPROTO_ICMPV6 && p->kind >= 1 && p->kind <= 4;
}

/* Whose packet it is, if it goes that way. What is quoted went the other way. */
static __attribute__((noinline)) struct owner *owner_on_way(struct __sk_buff *skb, struct packet *p, __u32 incoming)
{
	struct owner *found = owner_at(p, incoming);
	struct packet quoted;

	if (found || !quotes(p) || read_packet(skb, p->transport + 8, &quoted) || quoted.later)
		return found;
	return owner_at(&quoted, !incoming);
}

static __always_inline void fragment_of(const struct packet *p, struct fragment *f)
{
	__builtin_memset(f, 0, sizeof(*f));
	f->network = network;
	f->id = p->id;
	f->protocol = p->protocol;
	__builtin_memcpy(f->source, p->source, 16);
	__builtin_memcpy(f->destination, p->destination, 16);
}

/* Whose packet it is, from its direction on the interface. Of what passes lo only the side
 * that arrives is looked at, so it may be either end's.
 */
static __attribute__((noinline)) struct owner *owner_of_frame(struct __sk_buff *skb, struct packet *p, __u32 *incoming)
{
	struct fragment_owner *known, fresh = {};
	struct owner *found = 0;
	struct fragment f;

	if (p->later) {
		fragment_of(p, &f);
		known = bpf_map_lookup_elem(&fragments, &f);
		if (!known)
			return 0;
		*incoming = known->incoming;
		return &known->owner;
	}
	if (*incoming) {
		found = owner_on_way(skb, p, 1);
		if (!found && skb->ifindex == LOOPBACK)
			*incoming = 0;
	}
	if (!*incoming)
		found = owner_on_way(skb, p, 0);
	if (found && p->fragment) {
		fragment_of(p, &f);
		fresh.owner = *found;
		fresh.incoming = *incoming;
		bpf_map_update_elem(&fragments, &f, &fresh, BPF_ANY);
	}
	return found;
}

/* Tells whether the expression chooses a frame, whose network header is at an offset. */
static __attribute__((noinline)) int is_chosen(struct __sk_buff *skb, int net)
{
	struct first_bytes first = {};

	if (bpf_skb_load_bytes(skb, net, &first, FIRST_MAX)) {
		if (bpf_skb_load_bytes(skb, net, &first, FIRST_MIN))
			return 0;
		first.less = FIRST_LESS;
	}
	return is_wanted(skb, -net, &first);
}

SEC("socket")
int wire(struct __sk_buff *skb)
{
	__u32 incoming = skb->pkt_type != PACKET_OUTGOING;
	struct arrival at = {.decided = -1};
	struct packet p;
	struct counters *c;
	struct owner *owner;
	int net;

	if (!*(volatile __u32 *)&watching || (!incoming && skb->ifindex == LOOPBACK) || of_others(skb, incoming))
		return 0;
	net = network_offset(skb);
	if (net < 0 || read_packet(skb, net, &p))
		return 0;
	owner = owner_of_frame(skb, &p, &incoming);
	if (!owner)
		return 0;
	c = counts_here();
	if (!c)
		return 0;
	count(&c->seen);
	if (selective && !is_chosen(skb, net)) {
		count(&c->unwanted);
		return 0;
	}
	at.cookie = owner->cookie;
	at.origin = owner->origin;
	at.filter = network;
	at.family = owner->family;
	at.type = owner->type;
	at.protocol = owner->protocol;
	at.local_port = owner->local_port;
	at.peer_port = owner->peer_port;
	at.state = owner->state;
	at.hook = incoming ? HOOK_WIRE_IN : HOOK_WIRE_OUT;
	at.before = net;
	record_packet(skb, c, &at, snaplen);
	return 0;
}
