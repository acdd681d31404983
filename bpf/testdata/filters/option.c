// Wants an option of the kernel's configuration that no kernel has.
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

extern bool CONFIG_EBPFDUMP_UNHEARD __kconfig;

SEC("socket")
int option(struct __sk_buff *skb)
{
	return CONFIG_EBPFDUMP_UNHEARD;
}
