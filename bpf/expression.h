/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * Which packets are recorded, where an expression chooses: Go puts it in as the function wants().
 */
#pragma once

#include "record.h"

/* Whether an expression chooses. */
const volatile __u32 selective = 0;

/* Whether a packet that is not wanted leaves a note, a record with its first bytes, since
 * somebody wants to know what became of it.
 */
const volatile __u32 notes_unwanted = 0;

/* A note is shorter than a record: of that it has the fields which pairing needs, and of the packet the
 * first bytes, from the network header or from offset 0 on, whichever is first. net_len is where in
 * them the network header is. Every note has the same size, which no record has. bpf/record.go knows the
 * same numbers.
 */
#define NOTE_HEAD __builtin_offsetof(struct record, ifindex)
#define NOTE_BEFORE 40 /* most bytes before offset 0 */
#define NOTE_MAX 128   /* from offset 0 on */
#define NOTE_DATA (NOTE_BEFORE + NOTE_MAX)
#define NOTE_SIZE (NOTE_HEAD + NOTE_DATA)
#define NOTE_ROOM 256 /* the next power of two, for bounded() */

/* Of the first bytes of a packet, those that are loaded at once: ports that follow an IPv4 header without
 * options are among them. A packet with FIRST_MIN has a whole IPv4 header. If it has no more than
 * that, FIRST_LESS is added to before.
 */
#define FIRST_MAX 24
#define FIRST_MIN 20
#define FIRST_LESS (1 << 20)

/* Loads a number of 4, 2 or 1 bytes at an offset from the network header on. before is how many
 * bytes that header comes before the program's offset 0. A size of 0 stands for the packet's length.
 * Negative outside of the packet. Global, as wants(), so that the verifier goes through it once, and not
 * once for each call.
 */
#ifndef PACKET_WORD
static __always_inline long load_packet(struct __sk_buff *skb, __s64 before, __u64 offset, void *to, __u32 size)
{
	if (before >= FIRST_LESS / 2)
		before -= FIRST_LESS;
	/* Below offset 0 only what is in one piece with the headers is to be had. */
	if ((__s64)offset < before)
		return load_net(skb, offset, to, size);
	return bpf_skb_load_bytes(skb, offset - before, to, size);
}

__attribute__((noinline)) __s64 packet_word(struct __sk_buff *skb, __s64 before, __u64 offset, __u32 size)
{
	__u32 word = 0;
	__u16 half = 0;
	__u8 byte = 0;

	if (offset > PACKET_MAX)
		return -1;
	if (size == 4)
		return load_packet(skb, before, offset, &word, 4) ? -1 : (__s64)bpf_ntohl(word);
	if (size == 2)
		return load_packet(skb, before, offset, &half, 2) ? -1 : (__s64)bpf_ntohs(half);
	if (size == 1)
		return load_packet(skb, before, offset, &byte, 1) ? -1 : (__s64)byte;
	return (__s64)skb->len + (before >= FIRST_LESS / 2 ? before - FIRST_LESS : before);
}
#define PACKET_WORD struct __sk_buff
#endif

/* Tells whether a packet is wanted, whose first bytes are there already: as numbers, because before
 * 5.12 a global function takes no pointer to them. What stands here only keeps the compiler from
 * inferring anything.
 */
__attribute__((noinline)) int wants(PACKET_WORD *packet, __s64 before, __u64 first, __u64 second, __u64 third)
{
	__u64 offset = first + second + third;
	__s64 word;

	asm volatile("" : "+r"(before));
	if (!packet)
		return 0;
	word = packet_word(packet, before, offset, 4);
	asm volatile("" : "+r"(word));
	return word;
}

struct first_bytes {
	__u64 first, second, third;
	__s64 less; /* FIRST_LESS or 0 */
};

static __always_inline int is_wanted(PACKET_WORD *packet, __s64 before, const struct first_bytes *bytes)
{
	return wants(packet, before + bytes->less, bytes->first, bytes->second, bytes->third);
}

static __always_inline int is_ip(__u16 protocol)
{
	return protocol == bpf_htons(ETH_P_IP) || protocol == bpf_htons(ETH_P_IPV6);
}

/* Leaves a note of a packet whose network header comes so many bytes before its offset 0. Returns
 * 0 if it takes a record, with HOOK_UNWANTED. There once, as fill(), for the socket's memory.
 */
static __attribute__((noinline, unused)) int leave_note(struct __sk_buff *skb, const struct arrival *at, __s32 before)
{
	__u32 ahead = before > 0 ? before : 0, len = skb->len - at->start + ahead;
	struct counters *c = at->counters;
	__u64 caplen = len;
	struct record *rec; /* its first fields */

	if (before > NOTE_BEFORE || !len)
		return 0;
	rec = bpf_ringbuf_reserve(&ring, NOTE_SIZE, 0);
	if (!rec) {
		count(&c->ring_full);
		return 1;
	}
	if (caplen > NOTE_MAX + ahead)
		caplen = NOTE_MAX + ahead;
	caplen = bounded(caplen, NOTE_ROOM);
	if (caplen > NOTE_DATA || (before < 0 ? bpf_skb_load_bytes(skb, at->start, (void *)rec + NOTE_HEAD, caplen) :
						load_net(skb, 0, (void *)rec + NOTE_HEAD, caplen))) {
		bpf_ringbuf_discard(rec, first_wakeup());
		return 0;
	}
	rec->time = bpf_ktime_get_boot_ns();
	rec->cookie = bpf_get_socket_cookie(skb);
	rec->origin = at->origin;
	rec->lost = c->ring_full + c->load_failed;
	rec->filter = at->filter;
	rec->cpu = bpf_get_smp_processor_id();
	rec->len = len;
	rec->caplen = caplen;
	rec->verdict = at->decided;
	rec->pkt_type = skb->pkt_type;
	rec->protocol = skb->protocol;
	rec->family = at->family;
	rec->type = at->type;
	rec->socket_protocol = at->protocol;
	rec->local_port = at->local_port;
	rec->peer_port = at->peer_port;
	rec->state = at->state;
	rec->hook = at->hook | HOOK_UNWANTED;
	rec->before = ahead;
	rec->net_len = ahead - before;
	bpf_ringbuf_submit(rec, wakeup(NOTE_SIZE + BPF_RINGBUF_HDR_SZ));
	count(&c->unwanted);
	return 1;
}
