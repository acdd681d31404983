// Has the names of the tap's own functions, maps and variables, variables of
// every sort with and without a first value, and a map that wants to be pinned.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u32);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

const volatile __u32 snaplen = 12;
__u32 listening = 1000;
__u32 wakeup_bytes;

static __attribute__((noinline)) int describe(struct __sk_buff *skb, __u32 *more)
{
	asm volatile("" : "+r"(skb));
	return snaplen + *more;
}

static __attribute__((noinline)) int verdict(struct __sk_buff *skb)
{
	__u32 key = skb->len, more = 1;

	bpf_map_update_elem(&ring, &key, &more, BPF_ANY);
	return describe(skb, &more);
}

/* The first packet gets 1013, the next ones one more each. */
SEC("socket")
int tap(struct __sk_buff *skb)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&counts, &zero);

	if (count)
		(*count)++;
	return verdict(skb) + listening++ + wakeup_bytes;
}
