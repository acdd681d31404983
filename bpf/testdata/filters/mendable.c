// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// What a verifier refuses and a user can mend, one a program.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u64);
} unsized SEC(".maps");

SEC("socket")
int packet(struct __sk_buff *skb)
{
	return *(volatile __u32 *)&skb->data_end;
}

SEC("socket")
int remote(struct __sk_buff *skb)
{
	return *(volatile __u32 *)&skb->remote_ip4;
}

SEC("socket")
int mark(struct __sk_buff *skb)
{
	*(volatile __u32 *)&skb->mark = 1;
	return -1;
}

SEC("socket")
int size(struct __sk_buff *skb)
{
	__u32 key = skb->len;

	return bpf_map_lookup_elem(&unsized, &key) ? 0 : -1;
}

SEC("socket")
int storage(struct __sk_buff *skb)
{
	return bpf_sk_storage_get((void *)0, (void *)0, (void *)0, 0) ? 1 : -1;
}

SEC("socket")
int print(struct __sk_buff *skb)
{
	static const char format[] = "x";

	bpf_trace_printk(format, sizeof(format));
	return -1;
}

SEC("socket")
int leak(struct __sk_buff *skb)
{
	return (long)skb;
}
