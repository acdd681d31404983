//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// The tap: a socket filter that keeps every packet and leaves a copy of it in
// a ring buffer. Plain C without BTF relocations or vmlinux.h, so that one
// object loads on every kernel from 5.8 on.

#include "record.h"
#include "expression.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Cleared at the end of a capture: sockets that were accepted meanwhile have inherited
 * the tap and keep it until they are closed.
 */
__u32 enabled = 1;

/* On sockets of other processes the tap works only as long as its lease is renewed. If the
 * capture is killed, the lease expires, and the tap is a filter that keeps everything.
 */
const volatile __u32 leased = 0;
__u64 lease_end; /* CLOCK_BOOTTIME, nanoseconds */

/* The filter that the socket has of its own, if verdict() runs it: then it goes on to decide
 * when nothing is recorded any more. 0 if there is none. See ownfilter.h.
 */
const volatile __u64 wrapped = 0;

/* Whether this is no socket's filter, but chooses a socket of a reuseport group by the number that
 * verdict() returns.
 */
const volatile __u32 selects = 0;

__u32 unknown_zero; /* always 0, but the verifier cannot know that */

/* Go replaces this function by the user's filter before it loads the tap. So the compiler
 * must neither inline it nor infer its result.
 */
static __attribute__((noinline)) int verdict(struct __sk_buff *skb)
{
	int keep_all = -1;

	asm volatile("" : "+r"(keep_all), "+r"(skb));
	return keep_all;
}

static __always_inline int begins(struct __sk_buff *skb, __u32 at, const struct first_bytes *bytes)
{
	struct first_bytes here = {};

	return !bpf_skb_load_bytes(skb, at, &here, FIRST_MIN) && here.first == bytes->first && here.second == bytes->second &&
	       (__u32)here.third == (__u32)bytes->third;
}

/* How many bytes the network header comes before the filter's offset 0, which depends on the kind
 * of socket. The packet's own length tells, to which the kernel has cut it, so that nobody
 * can write something into a packet that makes it look like another kind's.
 */
static __attribute__((noinline)) int before_offset_0(struct __sk_buff *skb, const struct first_bytes *first)
{
	const __u8 *header = (const __u8 *)first;
	__u32 whole, transport;

	if (header[0] >> 4 == 4) {
		whole = bpf_ntohs(((const __u16 *)header)[1]);
		transport = (header[0] & 0xf) * 4;
	} else {
		whole = bpf_ntohs(((const __u16 *)header)[2]) + 40;
		transport = 0;
	}
	if (whole == skb->len)
		return 0;
	if (whole < skb->len) {
		/* A frame, and perhaps padding, or too long for an IP header to say. */
		if (begins(skb, 14, first))
			return -14;
		if (begins(skb, 18, first))
			return -18;
		if (begins(skb, 22, first))
			return -22;
		if (begins(skb, 0, first))
			return 0;
	}
	return transport ? transport : ipv6_transport(skb);
}

#define CHOSEN (1 << 30)
#define NOT_IP (CHOSEN + 1)

/* Returns CHOSEN, NOT_IP, or before_offset_0 of a packet that is not chosen. Not inlined, because a socket's
 * memory counts, and the stack of the tap itself is for the verdict.
 */
static __attribute__((noinline)) int choose(struct __sk_buff *skb)
{
	struct first_bytes first = {};
	int before;

	if (!is_ip(skb->protocol))
		return NOT_IP;
	if (load_net(skb, 0, &first, FIRST_MAX)) {
		if (load_net(skb, 0, &first, FIRST_MIN))
			return NOT_IP;
		first.less = FIRST_LESS;
	}
	before = before_offset_0(skb, &first);
	return is_wanted(skb, before, &first) ? CHOSEN : before;
}

SEC("socket")
int tap(struct __sk_buff *skb)
{
	struct arrival at;
	struct counters *c;
	int decided, before;

	/* Called first, because the verifier of 5.10 then accepts larger filters. The XOR makes
	 * the result unknown: otherwise the verifier goes through all of the tap once for each
	 * constant that the filter returns.
	 */
	decided = verdict(skb) ^ *(volatile __u32 *)&unknown_zero;
	if (!*(volatile __u32 *)&enabled || (leased && bpf_ktime_get_boot_ns() > *(volatile __u64 *)&lease_end))
		return wrapped || selects ? decided : -1; /* -1 is all of it */
	c = counts_here();
	if (!c)
		return decided;
	/* Not before verdict() is called: the verifier of 6.18 fails (EFAULT) if it has to know the value of
	 * something on this stack from before, where a verdict of the user's loads bytes with BPF_LD_ABS.
	 */
	__builtin_memset(&at, 0, sizeof(at));
	asm volatile("" : : "r"(&at) : "memory");
	count(&c->seen);
	if (!decided && !selects)
		count(&c->dropped);
	if (selects)
		at.hook = HOOK_SELECT;
	at.decided = decided;
	at.filter = wrapped;
	if (selective && (before = choose(skb)) != CHOSEN) {
		if (!notes_unwanted) {
			count(&c->unwanted);
			return decided;
		}
		at.counters = c;
		if (leave_note(skb, &at, before))
			return decided;
		at.hook |= HOOK_UNWANTED;
	}
	record_packet(skb, c, &at, snaplen);
	return decided;
}
