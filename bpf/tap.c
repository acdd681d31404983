//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// The tap: a socket filter that keeps every packet and leaves a copy of it in
// a ring buffer. Plain C without BTF relocations or vmlinux.h, so that one
// object loads on every kernel from 5.8 on.

#include "record.h"

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

SEC("socket")
int tap(struct __sk_buff *skb)
{
	struct arrival at = {};
	struct counters *c;
	int decided;

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
	count(&c->seen);
	if (!decided && !selects)
		count(&c->dropped);
	if (selects)
		at.hook = HOOK_SELECT;
	at.decided = decided;
	at.filter = wrapped;
	record_packet(skb, c, &at, snaplen);
	return decided;
}
