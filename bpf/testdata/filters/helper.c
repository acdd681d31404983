// Two helpers: one that no kernel has, one that socket filters may not call.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static long (*no_such_helper)(void) = (void *)9999;

SEC("socket")
int unheard(struct __sk_buff *skb)
{
	return no_such_helper();
}

SEC("socket")
int forbidden(struct __sk_buff *skb)
{
	return bpf_redirect(1, 0);
}
