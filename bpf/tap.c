//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// The tap: a socket filter that keeps every packet and leaves a copy of it in
// a ring buffer. Plain C without BTF relocations or vmlinux.h, so that one
// object loads on every kernel from 5.8 on.

#include "record.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Cleared when nobody reads any more: sockets accepted while the tap was on
 * keep it for the rest of their lives.
 */
__u32 listening = 1;

/* On sockets of others the tap looks at the clock: who wants it goes on saying so. After
 * kill -9 nobody does, and it is a filter that keeps everything.
 */
const volatile __u32 leased = 0;
__u64 wanted_until; /* CLOCK_BOOTTIME, nanoseconds */

__u32 nothing; /* always 0, which no verifier knows */

/* A user's own filter takes this function's place at load time, so it must
 * stay a call and its result must stay unknown to the compiler.
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
	struct place at = {};
	__u32 zero = 0;
	struct counters *c;
	int decided;

	/* First, because the verifier of 5.10 then takes larger filters in its place. And
	 * mixed with what it does not know, or else it follows each constant that the filter
	 * returns through all of the tap.
	 */
	decided = verdict(skb) ^ *(volatile __u32 *)&nothing;
	if (!*(volatile __u32 *)&listening)
		return -1; /* all of it */
	if (leased && bpf_ktime_get_boot_ns() > *(volatile __u64 *)&wanted_until)
		return -1;
	c = bpf_map_lookup_elem(&counts, &zero);
	if (!c)
		return decided;
	count(&c->seen);
	if (!decided)
		count(&c->dropped);
	at.decided = decided;
	record_packet(skb, c, &at);
	return decided;
}
