// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// The old way to see what a socket filter sees: print every byte into the
// kernel's trace. Slow, at most 128 bytes of a packet, and shared with everybody
// who traces on this machine; it is here to make the sample texts, and to be
// compared with the tap.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define PRINTED_MAX 128

SEC("socket")
int printing(struct __sk_buff *skb)
{
	bpf_printk("Kernelspace: Received %d bytes, dumping", skb->len);
	for (int i = 0; i < PRINTED_MAX; i++) {
		__u8 byte;

		if (bpf_skb_load_bytes(skb, i, &byte, 1))
			break;
		bpf_printk("\tbyte[%d]=0x%x", i, byte);
	}
	bpf_printk("");
	return -1;
}
