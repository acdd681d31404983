// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Drops what comes from an odd port, and counts both sorts. For tcp and udp
// sockets, whose offset 0 is the transport header.
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

SEC("socket")
int oddports(struct __sk_buff *skb)
{
	__be16 source;
	__u32 odd;
	__u64 *count;

	if (bpf_skb_load_bytes(skb, 0, &source, sizeof(source)))
		return -1;
	odd = bpf_ntohs(source) & 1;
	count = bpf_map_lookup_elem(&counts, &odd);
	if (count)
		__sync_fetch_and_add(count, 1);
	return odd ? 0 : -1;
}
