// Calls a kernel function that no kernel has.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

extern int ebpfdump_no_such_kfunc(struct __sk_buff *skb) __ksym;

SEC("socket")
int kfunc(struct __sk_buff *skb)
{
	return ebpfdump_no_such_kfunc(skb);
}
