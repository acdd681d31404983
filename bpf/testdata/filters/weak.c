// Asks for options of the kernel's configuration that may be missing.
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

extern bool CONFIG_EBPFDUMP_UNHEARD __kconfig __weak;
extern int CONFIG_HZ __kconfig __weak;
extern int LINUX_KERNEL_VERSION __kconfig;

SEC("socket")
int options(struct __sk_buff *skb)
{
	if (CONFIG_EBPFDUMP_UNHEARD)
		return 1;
	return LINUX_KERNEL_VERSION >= 0x50800 && CONFIG_HZ > 0 ? 99 : 2;
}
