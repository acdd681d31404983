// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Chooses a socket of a reuseport group by the first digit of a datagram; of all others the
// kernel's hash chooses one.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

SEC("sk_reuseport")
int pick(struct sk_reuseport_md *md)
{
	unsigned char *payload = (unsigned char *)(long)md->data + 8; /* behind the UDP header */
	__u32 index;

	if (payload + 1 > (unsigned char *)(long)md->data_end)
		return SK_PASS;
	if (*payload == '-')
		return SK_DROP;
	index = *payload - '0';
	if (index < 10)
		bpf_sk_select_reuseport(md, &sockets, &index, 0);
	return SK_PASS;
}
