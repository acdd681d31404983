// Tail-calls through an array that the object fills, and looks into a map that
// another holds.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} small SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = { .values = { &small } };

SEC("socket")
int target(struct __sk_buff *skb)
{
	__u32 zero = 0, *value;
	void *map = bpf_map_lookup_elem(&outer, &zero);

	if (!map)
		return 1;
	value = bpf_map_lookup_elem(map, &zero);
	if (!value)
		return 2;
	*value += 1;
	return 40 + *value;
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct __sk_buff *));
} jumps SEC(".maps") = { .values = { (void *)&target } };

SEC("socket")
int tailcall(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &jumps, 0);
	return 3;
}
