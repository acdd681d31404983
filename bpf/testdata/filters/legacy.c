// Absolute loads, which end the program with 0 outside of the packet; a global
// function; and a license that allows no GPL-only helper, which it does not call.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Proprietary";

unsigned long long load_byte(void *skb, unsigned long long offset) asm("llvm.bpf.load.byte");

__attribute__((noinline)) int twice(int n)
{
	asm volatile("" : "+r"(n));
	return 2 * n;
}

SEC("socket")
int legacy(struct __sk_buff *skb)
{
	return twice(load_byte(skb, 8));
}
