/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * The filter that a followed socket has of its own: which one it is when a packet
 * arrives, and what it consists of. Only reads.
 */
#pragma once

#include "record.h"
#include "kernel.h"

/* A filter is identified by a number: an eBPF one by its id, a classic one, which has
 * none, by a hash of its instructions with this bit. Addresses would not do: the kernel
 * uses them again at once.
 */
#define CLASSIC_FILTER (1ull << 63)

#define CLASSIC_MAX 4096   /* BPF_MAXINSNS */
#define CLASSIC_HASHED 512 /* instructions that the hash is made of: the first ones, and their number */
#define HASHED_AT_ONCE 8

struct user_struct {
	struct {
		__u32 val;
	} uid;
} KERNEL;
struct bpf_prog_aux___owned {
	__u64 load_time;
	struct user_struct *user;
	char name[BPF_OBJ_NAME_LEN];
} KERNEL;

/* What is told of an eBPF filter. */
struct own_program {
	__u64 loaded; /* CLOCK_BOOTTIME, nanoseconds */
	__u32 id;     /* 0 if there is none, or a classic one */
	__u32 uid;    /* of the user who has loaded it */
	__u8 name[BPF_OBJ_NAME_LEN];
};

/* Filters that the reader of the ring was told of. If one is forgotten, it is told again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u32);
} announced SEC(".maps");

/* The programs that run such filters inside the tap, by their ids: what they see, they record. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u32);
} wrappers SEC(".maps");

/* A socket's address as a number: the verifier allows no arithmetic with the pointer. */
static __always_inline __u64 address_of(struct bpf_sock *sk)
{
	struct bpf_sock *volatile at = sk;
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), (void *)&at);
	return address;
}

static __always_inline void tell_program(struct bpf_prog_aux *aux, struct own_program *to)
{
	struct bpf_prog_aux___owned *owned = (void *)aux;
	struct user_struct *user;

	__builtin_memset(to, 0, sizeof(*to));
	to->id = FIELD(aux, id);
	if (!to->id)
		return;
	to->loaded = FIELD(owned, load_time);
	user = FIELD(owned, user);
	to->uid = FIELD(user, uid.val);
	bpf_probe_read_kernel(to->name, sizeof(to->name), __builtin_preserve_access_index(&owned->name));
}

static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	return (hash ^ word) * 0x9e3779b97f4a7c15ull + (hash >> 29);
}

/* Identifies a classic filter by its instructions. ClassicKey in Go does the same. */
__attribute__((noinline)) __u64 classic_key(__u64 instructions, __u32 count)
{
	__u64 words[HASHED_AT_ONCE], hash = count;
	__u32 at, i;

	for (at = 0; at < CLASSIC_HASHED; at += HASHED_AT_ONCE) {
		if (at + HASHED_AT_ONCE > count)
			break;
		if (bpf_probe_read_kernel(words, sizeof(words), (void *)(instructions + at * 8)))
			return CLASSIC_FILTER;
#pragma unroll
		for (i = 0; i < HASHED_AT_ONCE; i++)
			hash = mix(hash, words[i]);
	}
	for (i = 0; i < HASHED_AT_ONCE; i++) {
		if (at >= count || at >= CLASSIC_HASHED)
			break;
		if (bpf_probe_read_kernel(words, 8, (void *)(instructions + at * 8)))
			return CLASSIC_FILTER;
		hash = mix(hash, words[0]);
		at++;
	}
	return hash | CLASSIC_FILTER;
}

/* Begins a record that tells of a filter. */
static __always_inline void begin_announcement(struct record *rec, __u64 filter, __u64 lost, __u32 length)
{
	__builtin_memset(rec, 0, sizeof(*rec));
	rec->time = bpf_ktime_get_boot_ns();
	rec->cpu = bpf_get_smp_processor_id();
	rec->filter = filter;
	rec->hook = HOOK_NONE;
	rec->len = length;
	rec->caplen = length;
	rec->lost = lost;
}

/* Tells the reader of the ring of a filter, before its first packet. If there is no room,
 * the next packet tries again.
 */
__attribute__((noinline)) int announce_classic(__u64 key, __u64 instructions, __u32 count, __u64 lost)
{
	struct record *rec;
	__u64 n = count;
	__u32 yes = 1;

	rec = bpf_ringbuf_reserve(&ring, sizeof(*rec) + CLASSIC_MAX * 8, 0);
	if (!rec)
		return 0;
	n = bounded(n * 8, CLASSIC_MAX * 8);
	begin_announcement(rec, key, lost, n);
	if (n > CLASSIC_MAX * 8 || bpf_probe_read_kernel(rec + 1, n, (void *)instructions)) {
		bpf_ringbuf_discard(rec, first_wakeup());
		return 0;
	}
	bpf_ringbuf_submit(rec, wakeup(sizeof(*rec) + CLASSIC_MAX * 8 + BPF_RINGBUF_HDR_SZ));
	bpf_map_update_elem(&announced, &key, &yes, BPF_ANY);
	return 0;
}

__attribute__((noinline)) int announce_program(__u64 key, __u64 aux, __u64 lost)
{
	struct record *rec;
	__u32 yes = 1;

	rec = bpf_ringbuf_reserve(&ring, sizeof(*rec) + sizeof(struct own_program), 0);
	if (!rec)
		return 0;
	begin_announcement(rec, key, lost, sizeof(struct own_program));
	tell_program((void *)aux, (void *)(rec + 1));
	bpf_ringbuf_submit(rec, wakeup(sizeof(*rec) + sizeof(struct own_program) + BPF_RINGBUF_HDR_SZ));
	bpf_map_update_elem(&announced, &key, &yes, BPF_ANY);
	return 0;
}

/* Identifies a socket's own filter, 0 if it has none. */
__attribute__((noinline)) __u64 own_filter_of(__u64 socket, __u64 lost)
{
	struct sock *sk = (void *)socket;
	struct sk_filter *filter = FIELD(sk, sk_filter);
	struct sock_fprog_kern *classic;
	struct bpf_prog_aux *aux;
	struct bpf_prog *program;
	__u64 key, instructions;
	__u32 count;

	if (!filter)
		return 0;
	program = FIELD(filter, prog);
	aux = FIELD(program, aux);
	key = FIELD(aux, id);
	if (key) {
		if (!bpf_map_lookup_elem(&announced, &key) && !bpf_map_lookup_elem(&wrappers, &key))
			announce_program(key, (__u64)aux, lost);
		return key;
	}
	classic = FIELD(program, orig_prog);
	count = FIELD(classic, len);
	instructions = (__u64)FIELD(classic, filter);
	if (!instructions || count < 1 || count > CLASSIC_MAX)
		return 0;
	key = classic_key(instructions, count);
	if (!bpf_map_lookup_elem(&announced, &key))
		announce_classic(key, instructions, count, lost);
	return key;
}

static __always_inline __u64 own_filter(__u64 socket, struct counters *c)
{
	return own_filter_of(socket, c->ring_full + c->load_failed);
}
