/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * What the headers of a packet say of its ends.
 */
#pragma once

#include "flows.h"
#include "record.h"

#define ICMP_ECHO 8
#define ICMP_ECHO_REPLY 0
#define ICMP6_ECHO 128
#define ICMP6_ECHO_REPLY 129

struct packet {
	__u32 source[4], destination[4]; /* network byte order; IPv4 as ::ffff:a.b.c.d */
	__u32 transport;		 /* offset of the transport header */
	__u32 id;			 /* of a fragment */
	__u16 source_port, destination_port; /* host byte order; 0 if there are none */
	__u8 version, protocol;
	__u8 fragment; /* it is one */
	__u8 later;    /* it is one, and not the first: there is no transport header */
	__u8 kind;     /* of an ICMP message */
	__u8 reserved[3];
};

static __always_inline int has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE ||
	       protocol == IPPROTO_SCTP || protocol == IPPROTO_DCCP;
}

static __always_inline int read_ipv4(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	__u32 ip[5];
	__u16 offset;

	if (bpf_skb_load_bytes(skb, at, ip, sizeof(ip)))
		return -1;
	p->source[2] = p->destination[2] = bpf_htonl(0xffff);
	p->source[3] = ip[3];
	p->destination[3] = ip[4];
	p->protocol = bpf_ntohl(ip[2]) >> 16;
	p->transport = at + ((bpf_ntohl(ip[0]) >> 24) & 0xf) * 4;
	p->id = bpf_ntohl(ip[1]) >> 16;
	offset = bpf_ntohl(ip[1]) & 0xffff;
	p->later = (offset & 0x1fff) != 0;
	p->fragment = (offset & 0x3fff) != 0;
	return 0;
}

#define SKIPPED_LATER (1ull << 24)

/* Skips the extensions of an IPv6 header: where they end, the protocol behind them in bits
 * 16 to 23, whether it is a later fragment, and the offset of the fragment header from bit
 * 32 on, 0 if there is none. A global function, which is verified by itself: otherwise the
 * verifier goes through the rest of the caller once for each iteration in which the loop
 * can end.
 */
__attribute__((noinline)) __u64 skip_extensions(struct __sk_buff *skb, __u32 at, __u32 protocol)
{
	__u64 found = 0;
	__u8 words[4], next = protocol;
	int i;

	for (i = 0; i < 8; i++) {
		if (found & SKIPPED_LATER || !is_ipv6_extension(next) || bpf_skb_load_bytes(skb, at, words, sizeof(words)))
			break;
		if (next == IPPROTO_FRAGMENT) {
			found = (__u64)(at & 0xffff) << 32;
			if (words[2] || words[3] & 0xf8)
				found |= SKIPPED_LATER;
		}
		at += extension_size(next, words[1]);
		next = words[0];
	}
	return found | (at & 0xffff) | (__u32)next << 16;
}

static __always_inline int read_ipv6(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	__u32 ip[10], id;
	__u64 found;

	if (bpf_skb_load_bytes(skb, at, ip, sizeof(ip)))
		return -1;
	__builtin_memcpy(p->source, ip + 2, 16);
	__builtin_memcpy(p->destination, ip + 6, 16);
	found = skip_extensions(skb, at + sizeof(ip), bpf_ntohl(ip[1]) >> 8 & 0xff);
	p->transport = found & 0xffff;
	p->protocol = found >> 16;
	at = found >> 32;
	if (at) {
		p->fragment = 1;
		p->later = (found & SKIPPED_LATER) != 0;
		if (!bpf_skb_load_bytes(skb, at + 4, &id, sizeof(id)))
			p->id = bpf_ntohl(id);
	}
	return 0;
}

/* Reads what the headers say, from the offset of the network header on. Returns something
 * else than 0 if it is no IP packet.
 */
static __attribute__((noinline, unused)) int read_packet(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	__u32 words[2];
	__u8 first;

	__builtin_memset(p, 0, sizeof(*p));
	if (bpf_skb_load_bytes(skb, at, &first, 1))
		return -1;
	p->version = first >> 4;
	if (p->version == 4) {
		if (read_ipv4(skb, at, p))
			return -1;
	} else if (p->version != 6 || read_ipv6(skb, at, p)) {
		return -1;
	}
	if (p->later)
		return 0;
	if (has_ports(p->protocol)) {
		if (bpf_skb_load_bytes(skb, p->transport, words, 4))
			return 0;
		p->source_port = bpf_ntohl(words[0]) >> 16;
		p->destination_port = bpf_ntohl(words[0]) & 0xffff;
	} else if (p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6) {
		p->kind = 0xff;
		if (bpf_skb_load_bytes(skb, p->transport, words, 8))
			return 0;
		p->kind = bpf_ntohl(words[0]) >> 24;
		/* The identifier is the port of who asks, which the answer comes back to. */
		if (p->kind == (p->version == 4 ? ICMP_ECHO : ICMP6_ECHO))
			p->source_port = bpf_ntohl(words[1]) >> 16;
		else if (p->kind == (p->version == 4 ? ICMP_ECHO_REPLY : ICMP6_ECHO_REPLY))
			p->destination_port = bpf_ntohl(words[1]) >> 16;
	}
	return 0;
}

/* The packet as the socket sees it to which it comes, or which sends it. */
static __always_inline void flow_of(const struct packet *p, __u32 network, __u32 incoming, struct flow *f)
{
	f->network = network;
	f->protocol = p->protocol;
	f->reserved = 0;
	f->local_port = incoming ? p->destination_port : p->source_port;
	f->peer_port = incoming ? p->source_port : p->destination_port;
	__builtin_memcpy(f->local, incoming ? p->destination : p->source, 16);
	__builtin_memcpy(f->peer, incoming ? p->source : p->destination, 16);
}
