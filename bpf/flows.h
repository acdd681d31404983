/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * The addresses of the chosen sockets, for programs that see packets without their
 * sockets: on an interface, or where the kernel drops them.
 *
 * Such a program fills in a struct flow from the socket's point of view: what is local is
 * the destination of a packet that comes in, and the source of one that goes out. Then
 * owner_of says whose it is, or 0, with a constant number of look-ups. headers.h reads a
 * packet from an skb (struct packet, flow_of); who has the bytes otherwise fills in a
 * struct packet by himself.
 *
 * Flows in flows.go creates the maps and enters the sockets that there are already,
 * flows.c enters what becomes of them: what a socket is bound to, and the addresses of
 * each packet that it sends. The programs that look up are given the same maps
 * (Flows.shared).
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Both ends of a packet. */
struct flow {
	__u32 network;	  /* inode of the network namespace */
	__u16 local_port; /* host byte order; of an ICMP echo its identifier, 0 where there are no ports */
	__u16 peer_port;
	__u32 local[4]; /* network byte order; IPv4 as ::ffff:a.b.c.d */
	__u32 peer[4];
	__u16 protocol; /* IPPROTO_TCP, ... */
	__u16 reserved;
};

/* What a socket is bound to. */
struct local {
	__u32 network;
	__u16 port;	  /* 0: a raw socket, which gets what comes with its protocol */
	__u8 version;	  /* of IP: 4 or 6; a socket may have an entry for each */
	__u8 protocol;
	__u32 address[4]; /* 0 is any address */
};

/* The socket, as a record describes it. */
struct owner {
	__u64 cookie;
	__u64 origin; /* of the marked socket: itself, or the listener that has accepted it */
	__u16 family, type, protocol, local_port, peer_port;
	__u8 state;
	__u8 reserved[5];
};

/* Of connected sockets, and of what raw ones send. An entry stays when its socket is
 * closed, since the last acknowledgements of a connection come later, until others need
 * its room.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, struct owner);
} flows SEC(".maps");

/* Of listeners, bound and raw sockets. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct local);
	__type(value, struct owner);
} locals SEC(".maps");

/* Not 0 where there is, or was, an entry with that local port, or a raw socket of that
 * protocol: nearly all packets of others need no more than a look at this.
 */
struct hints {
	__u8 port[65536];
	__u8 raw[256];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hints);
} hints SEC(".maps");

/* The hints of a port and of a protocol. The verifier of 5.10 accepts a bound only if it sees it
 * computed, and clang would leave out what it can infer.
 */
static __always_inline __u8 *port_hint(struct hints *h, __u64 port)
{
	asm volatile("" : "+r"(port));
	return &h->port[port & 0xffff];
}

static __always_inline __u8 *raw_hint(struct hints *h, __u64 protocol)
{
	asm volatile("" : "+r"(protocol));
	return &h->raw[protocol & 0xff];
}

/* Whose packet it is; 0 if it is nobody's. Of several sockets the one that is connected,
 * then the one that is bound to the address, then to any, and then a raw one: of those
 * only what comes in is theirs, for what they send is entered.
 */
static __attribute__((noinline)) struct owner *owner_of(struct flow *f, __u32 version, __u32 incoming)
{
	struct local at = {.network = f->network, .port = f->local_port, .version = version, .protocol = f->protocol};
	struct owner *found;
	struct hints *h;
	__u32 zero = 0;

	h = bpf_map_lookup_elem(&hints, &zero);
	if (!h)
		return 0;
	if (*port_hint(h, f->local_port)) {
		found = bpf_map_lookup_elem(&flows, f);
		if (found)
			return found;
		if (at.port) {
			__builtin_memcpy(at.address, f->local, sizeof(at.address));
			found = bpf_map_lookup_elem(&locals, &at);
			if (found)
				return found;
			__builtin_memset(at.address, 0, sizeof(at.address));
			found = bpf_map_lookup_elem(&locals, &at);
			if (found)
				return found;
		}
	}
	if (!incoming || !*raw_hint(h, f->protocol))
		return 0;
	at.port = 0;
	__builtin_memcpy(at.address, f->local, sizeof(at.address));
	found = bpf_map_lookup_elem(&locals, &at);
	if (found)
		return found;
	__builtin_memset(at.address, 0, sizeof(at.address));
	return bpf_map_lookup_elem(&locals, &at);
}
