// Follows a pointer that no verifier would.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("socket")
int wild(struct __sk_buff *skb)
{
	return *(int *)(long)skb->mark;
}
