// A filter in a section that only its own loader knows.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("firewall")
int untyped(struct __sk_buff *skb)
{
	return 0;
}
