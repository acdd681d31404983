// Many ways out, each with its own verdict: the verifier must not follow each
// of them through the whole tap.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("socket")
int paths(struct __sk_buff *skb)
{
	__u8 byte;

#pragma unroll
	for (int i = 0; i < 100; i++) {
		if (bpf_skb_load_bytes(skb, 8 + i, &byte, 1))
			return 1000 + i;
		if (byte == i + 1)
			return 3 * i + 5;
	}
	return -1;
}
