// Filters whose maps, variables and tables somebody else sets up, in sections of names that only
// their own loaders know, and options of the kernel's configuration that may be missing.
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum mode { MODE_DROP, MODE_KEEP = 7, MODE_OTHER = 70000 };

struct rule {
	__u8 flags;
	__u32 keep;
	__u16 ports[3];
	char name[8];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct rule);
} rules SEC(".maps");

struct prefix {
	__u32 length;
	__be32 address;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4);
	__type(key, struct prefix);
	__type(value, __u32);
} prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} numbers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} jumps SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

const volatile enum mode mode;
const volatile __s16 offset;
const volatile bool plain;
const volatile char name[8];
__u64 wide = 5;

extern bool CONFIG_EBPFDUMP_UNHEARD __kconfig __weak;
extern int CONFIG_HZ __kconfig __weak;
extern int LINUX_KERNEL_VERSION __kconfig;

/* What the rule for the packet's length says. */
SEC("filter")
int rule(struct __sk_buff *skb)
{
	__u32 key = skb->len;
	struct rule *r = bpf_map_lookup_elem(&rules, &key);

	if (!r)
		return 1;
	return r->keep + r->flags * 100 + r->ports[1] * 1000 + (r->name[0] == 'a' ? 1000000 : 0);
}

/* The value of the prefix that its first four bytes have. */
SEC("loadbalancer")
int prefix(struct __sk_buff *skb)
{
	struct prefix key = { .length = 32 };
	__u32 *value;

	if (bpf_skb_load_bytes(skb, 0, &key.address, 4))
		return 0;
	value = bpf_map_lookup_elem(&prefixes, &key);
	return value ? *value : 1;
}

SEC("filter")
int number(struct __sk_buff *skb)
{
	__u32 key = 2;
	__u64 *value = bpf_map_lookup_elem(&numbers, &key);

	return value ? *value : 1;
}

SEC("filter")
int variables(struct __sk_buff *skb)
{
	if (name[0] != 'e' || name[4])
		return 3;
	return mode + offset + plain * 100 + wide;
}

SEC("tail")
int target(struct __sk_buff *skb)
{
	return 42;
}

SEC("filter")
int jump(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &jumps, 1);
	return 3;
}

SEC("socket")
int options(struct __sk_buff *skb)
{
	if (CONFIG_EBPFDUMP_UNHEARD)
		return 1;
	return LINUX_KERNEL_VERSION >= KERNEL_VERSION(5, 8, 0) && CONFIG_HZ > 0 ? 99 : 2;
}
