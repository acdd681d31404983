/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * Where in a TCP stream a completion of io_uring stands. Several requests on one
 * socket can have been done before the first of them is told of: counting back from
 * where the socket is by then would give all of them the place of the last one.
 * So their lengths are added up, in the order in which they are told of.
 */
#pragma once

#include "sockets.h"

struct stream_place {
	__u64 cookie; /* whose it is: the address can be another socket's by now */
	__u32 next;   /* the sequence number of the next byte to be told of */
	__u32 read;   /* that of the next byte to be read, at the last look */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64); /* address of the socket */
	__type(value, struct stream_place);
} places SEC(".maps");

/* Somebody read the socket in another way: what is told of next is what is read next. */
static __always_inline void forget_place(struct sock *sk)
{
	__u64 key = (__u64)sk;

	bpf_map_delete_elem(&places, &key);
}

/* A request begins: if nothing is known yet, what it reads begins here. */
static __always_inline void begin_place(struct sock *sk, __u64 cookie)
{
	struct stream_place fresh = {.cookie = cookie}, *at;
	__u64 key = (__u64)sk;

	if (!next_byte(sk, &fresh.next))
		return;
	at = bpf_map_lookup_elem(&places, &key);
	if (at && at->cookie == cookie)
		return;
	fresh.read = fresh.next;
	bpf_map_update_elem(&places, &key, &fresh, BPF_ANY);
}

/* Finds the sequence number of the first of n bytes that are told of now, or are
 * only looked at. 0 if the socket has none.
 */
static __always_inline int find_place(struct sock *sk, __u64 cookie, __u32 n, int peek, __u32 *seq)
{
	struct stream_place fresh = {.cookie = cookie}, *at;
	struct tcp_sock *tcp = (void *)sk;
	__u64 key = (__u64)sk;
	__u32 read;

	if (!next_byte(sk, &read))
		return 0;
	at = bpf_map_lookup_elem(&places, &key);
	if (!at || at->cookie != cookie) {
		*seq = read;
		if (peek)
			return 1;
		*seq -= n;
		if (n && at_end(sk, read))
			--*seq; /* the end was passed in the same go, which counts as a byte */
		fresh.next = *seq + n;
		fresh.read = read;
		bpf_map_update_elem(&places, &key, &fresh, BPF_ANY);
		return 1;
	}
	*seq = at->next;
	/* All that had been read at the last look has been told of before more is read, or
	 * something was missed.
	 */
	if (at->next != at->read && read != at->read && !at_end(sk, read))
		*seq = at->read;
	/* An urgent byte is passed over. */
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
