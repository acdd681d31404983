// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Keeps the first 12 bytes of each packet, from offset 0 of the socket on: of a
// UDP datagram the header (8 bytes) and 4 bytes of payload.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("socket")
int keep12(struct __sk_buff *skb)
{
	return 12;
}
