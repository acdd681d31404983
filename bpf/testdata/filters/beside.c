// Filters that return what they find beside a packet's bytes.
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("socket")
int tag(struct __sk_buff *skb)
{
	return skb->vlan_present ? bpf_ntohs(skb->vlan_proto) << 16 | skb->vlan_tci : -1;
}

SEC("socket")
int mark(struct __sk_buff *skb)
{
	return skb->mark;
}

SEC("socket")
int priority(struct __sk_buff *skb)
{
	return skb->priority;
}

SEC("socket")
int gso(struct __sk_buff *skb)
{
	return skb->gso_segs << 16 | skb->gso_size;
}

/* Called, with a call before that takes the registers. */
static __attribute__((noinline)) int hash_of(struct __sk_buff *skb, int none)
{
	return skb->hash + none;
}

SEC("socket")
int hash(struct __sk_buff *skb)
{
	__u8 byte = 0;

	bpf_skb_load_bytes(skb, 0, &byte, 1);
	return hash_of(skb, byte & 0);
}

/* The lower half only. */
SEC("socket")
int queue(struct __sk_buff *skb)
{
	return *(volatile __u16 *)&skb->queue_mapping;
}

/* Uses for itself what a detour would go by. */
SEC("socket")
int scratch(struct __sk_buff *skb)
{
	*(volatile __u32 *)&skb->cb[1] = 7;
	return skb->vlan_tci;
}

SEC("socket")
int protocol(struct __sk_buff *skb)
{
	return bpf_ntohs(skb->protocol);
}

/* What no replay has. */
SEC("socket")
int never(struct __sk_buff *skb)
{
	__u8 byte;

	if (bpf_skb_load_bytes_relative(skb, 0, &byte, 1, BPF_HDR_START_NET))
		return 0;
	return skb->pkt_type + skb->ifindex + bpf_get_socket_cookie(skb) + bpf_ktime_get_ns();
}
