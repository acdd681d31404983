// Programs that choose a socket of a reuseport group by the first byte of a UDP payload: the
// digit of the socket, x for none, h for whichever the kernel takes.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

__u32 runs; /* to be found in the map of the object's own */

static __attribute__((noinline)) int first_byte(struct sk_reuseport_md *md)
{
	unsigned char *payload = (unsigned char *)(long)md->data + 8;

	if (payload + 1 > (unsigned char *)(long)md->data_end)
		return 'h';
	return *payload;
}

SEC("sk_reuseport")
int digit(struct sk_reuseport_md *md)
{
	int byte = first_byte(md);
	__u32 index = byte - '0';

	runs++;
	if (byte == 'x')
		return SK_DROP;
	if (byte != 'h')
		bpf_sk_select_reuseport(md, &sockets, &index, 0);
	return SK_PASS;
}

SEC("sk_reuseport")
int nothing(struct sk_reuseport_md *md)
{
	return SK_PASS;
}

SEC("sk_reuseport/migrate")
int migrating(struct sk_reuseport_md *md)
{
	__u32 index = 1;

	return bpf_sk_select_reuseport(md, &sockets, &index, 0) ? SK_DROP : SK_PASS;
}

SEC("sk_reuseport")
int writes(struct sk_reuseport_md *md)
{
	md->hash = 1;
	return SK_PASS;
}

SEC("socket")
int number(struct __sk_buff *skb)
{
	unsigned char byte;

	if (bpf_skb_load_bytes(skb, 0, &byte, 1))
		return -1;
	return byte - '0';
}
