// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Relocations that no kernel can satisfy, one a program, and one that asks first.

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct ebpfdump_unheard {
	int first;
	int second;
} __attribute__((preserve_access_index));

struct sk_buff___other {
	int unrelated;
	struct {
		int deep[4];
	};
} __attribute__((preserve_access_index));

enum bpf_map_type___other {
	EBPFDUMP_UNHEARD_MAP___other = 3,
};

extern int ebpfdump_unheard_kfunc(struct __sk_buff *skb) __ksym __weak;

SEC("socket")
int offset(struct __sk_buff *skb)
{
	return bpf_core_field_offset(struct ebpfdump_unheard, second);
}

SEC("socket")
int access(struct __sk_buff *skb)
{
	struct sk_buff___other *other = (void *)(long)skb->len;

	return other->deep[2];
}

SEC("socket")
int size(struct __sk_buff *skb)
{
	return bpf_core_type_size(struct ebpfdump_unheard);
}

SEC("socket")
int value(struct __sk_buff *skb)
{
	return bpf_core_enum_value(enum bpf_map_type___other, EBPFDUMP_UNHEARD_MAP___other);
}

SEC("socket")
int kfunc(struct __sk_buff *skb)
{
	return ebpfdump_unheard_kfunc(skb);
}

SEC("socket")
int guarded(struct __sk_buff *skb)
{
	if (bpf_core_type_exists(struct ebpfdump_unheard))
		return bpf_core_type_size(struct ebpfdump_unheard);
	return 12;
}
