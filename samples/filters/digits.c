// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Keeps of each UDP datagram the digits that its payload begins with, at most
// `limit`, and drops datagrams without any. A function of its own, a constant
// that a loader may set, and a variable.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define HEADER 8 /* of UDP */

const volatile __u32 limit = 5;
__u64 dropped;

static __attribute__((noinline)) int is_digit(struct __sk_buff *skb, __u32 offset)
{
	__u8 byte;

	if (bpf_skb_load_bytes(skb, offset, &byte, 1))
		return 0;
	return byte >= '0' && byte <= '9';
}

SEC("socket")
int digits(struct __sk_buff *skb)
{
	__u32 n;

	for (n = 0; n < 16 && n < limit; n++)
		if (!is_digit(skb, HEADER + n))
			break;
	if (n)
		return HEADER + n;
	__sync_fetch_and_add(&dropped, 1);
	return 0;
}
