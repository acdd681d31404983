//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Records what a program sees that chooses a socket of a reuseport group, and what it chooses.
// Go puts the user's program into it, as verdict(). Plain C without BTF relocations, so that
// one object loads on every kernel from 5.8 on.

#include "record.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Cleared at the end of a capture. */
__u32 enabled = 1;

__u32 unknown_zero; /* always 0, but the verifier cannot know that */

/* Whether all maps that the program chooses from have indexes for keys. */
const volatile __u32 reads_keys = 1;

/* What the program asked for while it looked at the current packet. Go's Chosen has the same
 * fields. In a record it comes before the packet.
 */
struct choice {
	__u32 calls;	   /* of bpf_sk_select_reuseport */
	__s32 error;	   /* of the last one */
	__u32 index;	   /* that the last one asked for */
	__u32 bind_inany;  /* whether the group is bound to all addresses */
};

/* The kernel chooses while it processes what has arrived, which nothing on the same cpu interrupts that
 * would choose as well.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct choice);
} choices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} nobody SEC(".maps");

/* Go has the user's program call this instead of bpf_sk_select_reuseport. */
static __attribute__((noinline)) long choose(struct sk_reuseport_md *md, void *sockets, void *key, __u64 flags)
{
	long err = bpf_sk_select_reuseport(md, sockets, key, flags);
	__u32 zero = 0;
	struct choice *choice = bpf_map_lookup_elem(&choices, &zero);

	if (choice) {
		choice->calls++;
		choice->error = err;
		if (reads_keys)
			choice->index = *(__u32 *)key;
	}
	return err;
}

/* Go replaces this function by the user's program. Here it keeps the compiler from inferring the
 * arguments of choose().
 */
static __attribute__((noinline)) int verdict(struct sk_reuseport_md *md)
{
	void *sockets = &nobody;
	__u64 flags = 0;
	__u32 key = 0;
	int pass;

	asm volatile("" : "+r"(sockets), "+r"(flags));
	pass = choose(md, sockets, &key, flags) ? SK_PASS : SK_DROP;
	asm volatile("" : "+r"(pass));
	return pass;
}

/* Fills in a record with room for class bytes, of which length are wanted of the packet. */
static __attribute__((noinline)) int fill_choice(struct sk_reuseport_md *md, struct record *rec, struct counters *c, __u32 length,
						 __u32 class)
{
	struct choice *to = (struct choice *)(rec + 1);
	__u64 room = class, n = length;

	rec->time = bpf_ktime_get_boot_ns();
	rec->cpu = bpf_get_smp_processor_id();
	rec->len = md->len + sizeof(*to);
	rec->caplen = length + sizeof(*to);
	rec->before = sizeof(*to);
	rec->protocol = md->eth_protocol;
	rec->socket_protocol = md->ip_protocol;
	rec->hash = md->hash;
	rec->hook = HOOK_SELECT;
	rec->lost = c->ring_full + c->load_failed;
	rec->net_len = load_net_header((struct __sk_buff *)md, rec);
	to->bind_inany = md->bind_inany;
	if (length > 0) {
		n = bounded(n, room);
		if (n > room - sizeof(*to) || bpf_skb_load_bytes((struct __sk_buff *)md, 0, to + 1, n)) {
			bpf_ringbuf_discard(rec, first_wakeup());
			count(&c->load_failed);
			return 0;
		}
	}
	bpf_ringbuf_submit(rec, wakeup(sizeof(*rec) + class + BPF_RINGBUF_HDR_SZ));
	count(&c->recorded);
	if (md->len > length)
		count(&c->truncated);
	return 0;
}

/* Records what is between data and data_end: the program can read no more directly. */
static __always_inline void record_choice(struct sk_reuseport_md *md, struct counters *c, const struct choice *choice, int decided)
{
	__u64 linear = (__u64)(long)md->data_end - (__u64)(long)md->data;
	__u32 length = linear, class;
	struct record *rec;

	if (length > snaplen)
		length = snaplen;
	if (length > PACKET_MAX - sizeof(*choice))
		length = PACKET_MAX - sizeof(*choice);
	class = class_for(length + sizeof(*choice));
	rec = bpf_ringbuf_reserve(&ring, sizeof(*rec) + class, 0);
	if (!rec) {
		count(&c->ring_full);
		return;
	}
	__builtin_memset(rec, 0, sizeof(*rec));
	rec->verdict = decided;
	rec->nonlinear = md->len - (__u32)linear;
	*(struct choice *)(rec + 1) = *choice;
	fill_choice(md, rec, c, length, class);
}

SEC("sk_reuseport")
int selector(struct sk_reuseport_md *md)
{
	struct choice *choice, none = {};
	struct counters *c;
	__u32 zero = 0;
	int decided;

	bpf_map_update_elem(&choices, &zero, &none, BPF_ANY);
	decided = verdict(md) ^ *(volatile __u32 *)&unknown_zero;
	if (!*(volatile __u32 *)&enabled)
		return decided;
	c = counts_here();
	choice = bpf_map_lookup_elem(&choices, &zero);
	if (!c || !choice)
		return decided;
	count(&c->seen);
	if (decided != SK_PASS)
		count(&c->dropped);
	record_choice(md, c, choice, decided);
	return decided;
}
