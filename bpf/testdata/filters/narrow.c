// A program that chooses among two sockets.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

SEC("sk_reuseport")
int second(struct sk_reuseport_md *md)
{
	__u32 index = 1;

	bpf_sk_select_reuseport(md, &sockets, &index, 0);
	return SK_PASS;
}
