// Two socket filters, a program of another type and one of no known type.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("socket")
int first(struct __sk_buff *skb)
{
	return 1;
}

SEC("socket/more")
int second(struct __sk_buff *skb)
{
	return 2;
}

SEC("xdp")
int other(struct xdp_md *ctx)
{
	return 2;
}

SEC("firewall")
int untyped(struct __sk_buff *skb)
{
	return 0;
}
