// Fills all but a little of the stack: fine alone, too much inside of the tap.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("socket")
int greedy(struct __sk_buff *skb)
{
	volatile __u64 stack[62] = {};

	stack[skb->len & 31] = skb->mark;
	return stack[skb->mark & 31] ? -1 : 12;
}
