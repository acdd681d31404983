/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * What system calls and io_uring's requests have in common: news of sockets, and
 * which results matter.
 */
#pragma once

#include <linux/errno.h>
#include <linux/socket.h>
#include "messages.h"

/* News of a socket. */
__attribute__((noinline)) int tell(__u32 slot, __u32 call, __s32 fd, __u64 sk)
{
	struct reading *r = begin_event(slot, call, fd, 0);

	if (!r)
		return 0;
	if (sk)
		name_socket(&r->head, (void *)sk);
	bpf_get_current_comm(r->head.comm, sizeof(r->head.comm));
	piece(slot, 0);
	return 0;
}

/* A socket is about to be read: there is news of it the first time. */
static __always_inline void meet(__u32 slot, struct sock *sk, __u64 cookie, __s32 fd)
{
	__u32 all = -1;

	if (choose == CHOOSE_KNOWN || is_known(sk))
		return;
	if (cookie)
		bpf_map_update_elem(&known, &cookie, &all, BPF_ANY);
	tell(slot, CALL_FOUND, fd, (__u64)sk);
}

/* A listener that somebody else has made is found when the process is about to accept
 * from it.
 */
static __always_inline void begins_to_accept(__u32 slot, struct sock *listener, __s32 fd)
{
	__u32 all = -1;
	__u64 key;

	if (!listener || choose == CHOOSE_KNOWN || !chosen(listener))
		return;
	key = cookie_of(listener);
	if (bpf_map_lookup_elem(&known, &key))
		return;
	if (key)
		bpf_map_update_elem(&known, &key, &all, BPF_ANY);
	tell(slot, CALL_FOUND, fd, (__u64)listener);
}

/* A connection that was accepted has its listener's mark, unless it waited there
 * before that had one: known says of how many that may be so. Without a listener, the
 * call was running already when the process began to be followed.
 */
static __always_inline int accepted(__u32 slot, struct sock *listener, __s32 fd)
{
	__u32 ends, unmarked = 1, *waited;
	struct sock *sk = socket_of(fd);
	__u64 key, from = 0;

	if (!sk)
		return 0;
	key = cookie_of(sk);
	if (listener)
		from = cookie_of(listener);
	waited = bpf_map_lookup_elem(&known, &from);
	if (from && waited) {
		unmarked = *waited;
		if (unmarked)
			(*waited)--;
		if (!key)
			key = (__u64)sk;
		ends = ends_of(sk);
		bpf_map_update_elem(&known, &key, &ends, BPF_ANY);
	}
	if (chosen(sk) && (unmarked || !is_inet(FIELD(sk, __sk_common.skc_family))))
		tell(slot, CALL_ACCEPT, fd, (__u64)sk);
	return 0;
}

/* What somebody may want to look at. */
static __always_inline int happened(__u32 slot, __u32 call, __s32 fd)
{
	struct sock *sk = socket_of(fd);

	if (!sk)
		return 0;
	if (!news_of_all && call == CALL_SOCKET && is_inet(FIELD(sk, __sk_common.skc_family)))
		return 0; /* it has its mark */
	if (choose != CHOOSE_PORTS && !chosen(sk))
		return 0;
	return tell(slot, call, fd, (__u64)sk);
}

/* Nothing was there yet: by far the most frequent failure, and none. From 512 on
 * the numbers are those of calls that will be made again.
 */
static __always_inline int of_no_interest(__s64 result)
{
	return result == -EAGAIN || result == -EINTR || result <= -512;
}
