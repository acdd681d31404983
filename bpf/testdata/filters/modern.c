// An instruction of -mcpu=v4, which Linux knows from 6.6 on: a load that extends
// the sign. Written as a number, for a compiler that does not know it either.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("socket")
int modern(struct __sk_buff *skb)
{
	__u64 len = skb->len;
	int extended;

	asm volatile("*(u64 *)(r10 - 8) = %1\n"
		     ".quad 0x00000000fff8a091\n" /* r0 = *(s8 *)(r10 - 8) */
		     "%0 = r0"
		     : "=r"(extended)
		     : "r"(len)
		     : "r0", "memory");
	return extended;
}
