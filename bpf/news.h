/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * What system calls and io_uring's requests have in common: news of sockets, and
 * which results are ignored.
 */
#pragma once

#include <linux/errno.h>
#include <linux/socket.h>
#include "messages.h"

/* Records an event without data: news of a socket. */
__attribute__((noinline)) int announce(__u32 slot, __u32 call, __s32 fd, __u64 sk)
{
	struct reading *r = begin_event(slot, call, fd, 0);

	if (!r)
		return 0;
	if (sk)
		describe_socket(&r->head, (void *)sk);
	bpf_get_current_comm(r->head.comm, sizeof(r->head.comm));
	piece(slot, 0);
	return 0;
}

/* A socket is about to be read: it is announced the first time. */
static __always_inline void announce_unknown(__u32 slot, struct sock *sk, __u64 cookie, __s32 fd)
{
	__u32 all = -1;

	if (choose == CHOOSE_KNOWN || is_known(sk))
		return;
	if (cookie)
		bpf_map_update_elem(&known, &cookie, &all, BPF_ANY);
	announce(slot, CALL_FOUND, fd, (__u64)sk);
}

/* A process is about to accept from a listener: if another process created it, it is
 * announced now.
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
	announce(slot, CALL_FOUND, fd, (__u64)listener);
}

/* A connection was accepted. It has inherited its listener's mark, unless it was in the
 * backlog before the listener had one: known has the number of those that may have been.
 * Without a listener, the call is older than the capture.
 */
static __always_inline int accepted(__u32 slot, struct sock *listener, __s32 fd)
{
	__u32 own_ports, unmarked = 1, *waited;
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
		own_ports = ports_of(sk);
		bpf_map_update_elem(&known, &key, &own_ports, BPF_ANY);
	}
	if (chosen(sk) && (unmarked || !is_inet(FIELD(sk, __sk_common.skc_family))))
		announce(slot, CALL_ACCEPT, fd, (__u64)sk);
	return 0;
}

/* Announces a socket that was created, bound or put to listen. */
static __always_inline int announce_chosen(__u32 slot, __u32 call, __s32 fd)
{
	struct sock *sk = socket_of(fd);

	if (!sk)
		return 0;
	if (!news_of_all && call == CALL_SOCKET && is_inet(FIELD(sk, __sk_common.skc_family)))
		return 0; /* the hook has marked it */
	if (choose != CHOOSE_PORTS && !chosen(sk))
		return 0;
	return announce(slot, call, fd, (__u64)sk);
}

/* Results that are not recorded: nothing was there yet, which is by far the most frequent,
 * and the kernel's internal ERESTART numbers, from 512 on, of calls that will be restarted.
 */
static __always_inline int ignored(__s64 result)
{
	return result == -EAGAIN || result == -EINTR || result <= -512;
}
