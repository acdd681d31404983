// Returns a number that depends on all that a filter can see of a packet and a replay can give:
// its length, protocol and VLAN tag, its first bytes and its last one.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline __u32 mix(__u32 sum, __u32 value)
{
	return (sum ^ value) * 16777619;
}

SEC("socket")
int digest(struct __sk_buff *skb)
{
	__u32 sum = 2166136261, length = skb->len;
	__u8 byte;

	sum = mix(sum, length);
	sum = mix(sum, skb->protocol);
	sum = mix(sum, skb->vlan_present);
	if (skb->vlan_present) {
		sum = mix(sum, skb->vlan_tci);
		sum = mix(sum, skb->vlan_proto);
	}
	for (__u32 i = 0; i < 96; i++) {
		if (bpf_skb_load_bytes(skb, i, &byte, 1))
			break;
		sum = mix(sum, byte);
	}
	if (length > 0 && !bpf_skb_load_bytes(skb, length - 1, &byte, 1))
		sum = mix(sum, byte);
	return sum;
}
