//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Tells what is on a socket that no system call tells: the eBPF program that is its filter,
// the program of its reuseport group, the sockmaps that it is in. Only reads.

#include <bpf/bpf_core_read.h>
#include "descriptor.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Types whose other fields kernel.h has. */
struct bpf_prog_aux___named {
	__u32 id;
	__u64 load_time;
	char name[BPF_OBJ_NAME_LEN];
} KERNEL;
struct bpf_prog___named {
	struct bpf_prog_aux___named *aux;
	struct sock_fprog_kern *orig_prog; /* the instructions of a classic one */
} KERNEL;
struct sk_filter___named {
	struct bpf_prog___named *prog;
} KERNEL;
struct sock_reuseport {
	__u16 num_socks;
	struct bpf_prog___named *prog;
} KERNEL;
struct sock___attached {
	struct sk_filter___named *sk_filter;
	struct sock_reuseport *sk_reuseport_cb;
	void *sk_user_data;
} KERNEL;
struct bpf_map {
	enum bpf_map_type map_type;
	__u32 id;
	char name[BPF_OBJ_NAME_LEN];
} KERNEL;
struct list_head {
	struct list_head *next;
} KERNEL;
struct sk_psock {
	struct sock *sk;
	struct list_head link; /* an sk_psock_link for each sockmap */
} KERNEL;
struct sk_psock_link {
	struct list_head list;
	struct bpf_map *map;
} KERNEL;

#define MAPS_MAX 8
#define CLASSIC_MAX 4096 /* BPF_MAXINSNS */

struct found_program {
	__u64 loaded; /* CLOCK_BOOTTIME, nanoseconds */
	__u32 id;     /* 0 if there is none, or a classic one */
	__u8 name[BPF_OBJ_NAME_LEN];
};

struct found_map {
	__u32 id;
	__u8 name[BPF_OBJ_NAME_LEN];
};

struct attachments {
	struct found_program filter, reuseport;
	__u32 network;		 /* inode of the network namespace */
	__u32 reuseport_sockets; /* of its group; 0 if it is in none */
	__u32 reuseport_classic; /* instructions of the group's classic program */
	__u32 maps;		 /* sockmaps that it is in, at most MAPS_MAX */
	struct found_map map[MAPS_MAX];
};

/* What the last run found. */
struct attachments found;
__u64 classic_found[CLASSIC_MAX]; /* instructions, as struct sock_filter */

static __always_inline void find_program(struct bpf_prog___named *program, struct found_program *to)
{
	struct bpf_prog_aux___named *aux = FIELD(program, aux);

	to->id = FIELD(aux, id);
	if (!to->id)
		return;
	to->loaded = FIELD(aux, load_time);
	bpf_probe_read_kernel(to->name, sizeof(to->name), __builtin_preserve_access_index(&aux->name));
}

static __always_inline void find_reuseport(struct sock___attached *sk)
{
	struct sock_reuseport *group = FIELD(sk, sk_reuseport_cb);
	struct bpf_prog___named *program;
	struct sock_fprog_kern *classic;
	__u32 length;

	if (!group)
		return;
	found.reuseport_sockets = FIELD(group, num_socks);
	program = FIELD(group, prog);
	if (!program)
		return;
	find_program(program, &found.reuseport);
	classic = FIELD(program, orig_prog);
	length = FIELD(classic, len);
	if (found.reuseport.id || !classic || length > CLASSIC_MAX)
		return;
	found.reuseport_classic = length;
	bpf_probe_read_kernel(classic_found, length * 8, FIELD(classic, filter));
}

/* Others keep something in sk_user_data, too: a psock points back to its socket, and
 * what its list is about is a sockmap.
 */
static __always_inline void find_maps(struct sock *sk, struct sock___attached *attached)
{
	struct sk_psock *psock = (void *)((unsigned long)FIELD(attached, sk_user_data) & ~7ul);
	struct list_head *head, *at = 0;
	enum bpf_map_type type;
	struct bpf_map *map;
	__u32 i, n = 0;

	if (!bpf_core_type_exists(struct sk_psock_link) || !psock || FIELD(psock, sk) != sk)
		return;
	head = __builtin_preserve_access_index(&psock->link);
	bpf_probe_read_kernel(&at, sizeof(at), head);
#pragma unroll
	for (i = 0; i < MAPS_MAX; i++) {
		struct sk_psock_link *link = (void *)at - bpf_core_field_offset(struct sk_psock_link, list);

		if (!at || at == head)
			break;
		map = FIELD(link, map);
		type = FIELD(map, map_type);
		if (type != BPF_MAP_TYPE_SOCKMAP && type != BPF_MAP_TYPE_SOCKHASH)
			break;
		found.map[i].id = FIELD(map, id);
		bpf_probe_read_kernel(found.map[i].name, sizeof(found.map[i].name), __builtin_preserve_access_index(&map->name));
		n = i + 1;
		at = FIELD(at, next);
	}
	found.maps = n;
}

/* Run on demand. args[0] is a socket's descriptor in the calling process. Returns 1, or 0
 * if it is none.
 */
SEC("raw_tp")
int inspect(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = socket_of(ctx->args[0]);
	struct sock___attached *attached = (void *)sk;
	struct sk_filter___named *filter;
	struct net *network;

	__builtin_memset(&found, 0, sizeof(found));
	if (!sk)
		return 0;
	network = FIELD(sk, __sk_common.skc_net.net);
	found.network = FIELD(network, ns.inum);
	filter = FIELD(attached, sk_filter);
	find_program(FIELD(filter, prog), &found.filter);
	find_reuseport(attached);
	find_maps(sk, attached);
	return 1;
}
