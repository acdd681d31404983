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

#define NOTE_MAX 128
#define FIRST_MAX 20 /* of the first bytes of a packet, those that are loaded at once */

/* Loads a number of 4, 2 or 1 bytes at an offset from the network header on. before is how many
 * bytes that header comes before the program's offset 0. A size of 0 stands for the packet's length.
 * Negative outside of the packet. Global, as wants(), so that the verifier goes through it once, and not
 * once for each call.
 */
#ifndef PACKET_WORD
static __always_inline long load_packet(struct __sk_buff *skb, __s32 before, __u64 offset, void *to, __u32 size)
{
	/* Below offset 0 only what is in one piece with the headers is to be had. */
	if ((__s64)offset < before)
		return load_net(skb, offset, to, size);
	return bpf_skb_load_bytes(skb, offset - before, to, size);
}

__attribute__((noinline)) __s64 packet_word(struct __sk_buff *skb, __s32 before, __u64 offset, __u32 size)
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
	return (__s64)skb->len + before;
}
#define PACKET_WORD struct __sk_buff
#endif

/* Tells whether a packet is wanted, whose first 20 bytes are there already: as numbers, because before
 * 5.12 a global function takes no pointer to them. What stands here only keeps the compiler from
 * inferring anything.
 */
__attribute__((noinline)) int wants(PACKET_WORD *packet, __s32 before, __u64 first, __u64 second, __u32 third)
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
	__u64 first, second;
	__u32 third;
	__u32 reserved;
};

static __always_inline int is_wanted(PACKET_WORD *packet, __s32 before, const struct first_bytes *bytes)
{
	return wants(packet, before, bytes->first, bytes->second, bytes->third);
}

static __always_inline int is_ip(__u16 protocol)
{
	return protocol == bpf_htons(ETH_P_IP) || protocol == bpf_htons(ETH_P_IPV6);
}

/* Leaves a packet that is not wanted: counts it, or takes of it what a note has. Returns whether
 * there is one.
 */
static __always_inline int leave_out(struct counters *c, struct arrival *at)
{
	if (!notes_unwanted) {
		count(&c->unwanted);
		return 0;
	}
	at->hook |= HOOK_UNWANTED;
	return 1;
}
