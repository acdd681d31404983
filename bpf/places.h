/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * Sequence numbers for io_uring's completions. Several requests on one TCP socket may be
 * done before the first completion is posted. Computing back from the socket's current
 * position would give all of them the position of the last one. So their lengths are added
 * up, in the order of the completions.
 */
#pragma once

#include "sockets.h"

struct stream_place {
	__u32 inode; /* of the socket, since another one may have its address by now, and neither a cookie yet */
	__u32 next;  /* sequence number of the first byte of the next completion */
	__u32 read;  /* copied_seq when it was last looked at */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64); /* address of the socket */
	__type(value, struct stream_place);
} places SEC(".maps");

/* A system call has read from the socket: the next completion begins where it stopped. */
static __always_inline void forget_place(struct sock *sk)
{
	__u64 key = (__u64)sk;

	bpf_map_delete_elem(&places, &key);
}

/* A request is submitted: if the position is not known yet, it is the current one. */
static __always_inline void begin_place(struct sock *sk, __u32 inode)
{
	struct stream_place fresh = {.inode = inode}, *at;
	__u64 key = (__u64)sk;

	if (!next_byte(sk, &fresh.next))
		return;
	at = bpf_map_lookup_elem(&places, &key);
	if (at && at->inode == inode)
		return;
	fresh.read = fresh.next;
	bpf_map_update_elem(&places, &key, &fresh, BPF_ANY);
}

/* Finds the sequence number of the first of a completion's n bytes, which may only have
 * been peeked at. Returns 0 for sockets other than TCP.
 */
static __always_inline int find_place(struct sock *sk, __u32 inode, __u32 n, int peek, __u32 *seq)
{
	struct stream_place fresh = {.inode = inode}, *at;
	struct tcp_sock *tcp = (void *)sk;
	__u64 key = (__u64)sk;
	__u32 read;

	if (!next_byte(sk, &read))
		return 0;
	at = bpf_map_lookup_elem(&places, &key);
	if (!at || at->inode != inode) {
		*seq = read;
		if (peek)
			return 1;
		*seq -= n;
		if (n && past_fin(sk, read))
			--*seq; /* the FIN was consumed together with the bytes */
		fresh.next = *seq + n;
		fresh.read = read;
		bpf_map_update_elem(&places, &key, &fresh, BPF_ANY);
		return 1;
	}
	*seq = at->next;
	/* If more was read since, although completions for what had been read before are
	 * outstanding, something was missed.
	 */
	if (at->next != at->read && read != at->read && !past_fin(sk, read))
		*seq = at->read;
	/* An urgent byte is skipped. */
	if (*seq == FIELD(tcp, urg_seq) && read - *seq > n)
		++*seq;
	if ((__s32)(read - *seq - n) < 0 && !peek)
		*seq = read - n;
	if (!peek) {
		at->next = *seq + n;
		at->read = read;
	}
	return 1;
}
