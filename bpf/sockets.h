/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * Which sockets are chosen, and what an event says of them.
 */
#pragma once

#include <bpf/bpf_endian.h>
#include "calls.h"
#include "descriptor.h"
#include "ports.h"

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define IPPROTO_TCP 6

/* Sockets of which it is certain that they have their mark, or their tap, or will have
 * it at once, by cookie. The value is, of a listener, how many of the connections that it
 * accepts next may have none, since they were there before. Those that have no cookie
 * yet are here by address, which no cookie is as large as. The address can come to be
 * another one's, so their value says whose it was (ends_of).
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u32);
} known SEC(".maps");

static __always_inline __u64 cookie_of(struct sock *sk)
{
	return FIELD(sk, __sk_common.skc_cookie.counter);
}

static __always_inline int is_inet(__u16 family)
{
	return family == AF_INET || family == AF_INET6;
}

static __always_inline __u16 own_port(struct sock *sk)
{
	struct inet_sock *inet = (void *)sk;

	return bpf_ntohs(FIELD(inet, inet_sport));
}

/* The ports of both ends, by which a connection differs from the next one that has
 * its memory.
 */
static __always_inline __u32 ends_of(struct sock *sk)
{
	if (!is_inet(FIELD(sk, __sk_common.skc_family)))
		return 0;
	return (__u32)own_port(sk) << 16 | FIELD(sk, __sk_common.skc_dport);
}

static __always_inline int is_known(struct sock *sk)
{
	__u64 cookie = cookie_of(sk), address = (__u64)sk;
	__u32 *ends;

	if (bpf_map_lookup_elem(&known, &cookie))
		return 1;
	ends = bpf_map_lookup_elem(&known, &address);
	return ends && *ends == ends_of(sk);
}

/* Tells whether the user wants a socket. */
static __attribute__((noinline)) int chosen(struct sock *sk)
{
	__u16 family;

	if (choose == CHOOSE_KNOWN)
		return is_known(sk);
	family = FIELD(sk, __sk_common.skc_family);
	if (choose == CHOOSE_PORTS)
		return is_inet(family) && wanted_port(own_port(sk), bpf_ntohs(FIELD(sk, __sk_common.skc_dport)));
	return is_inet(family) || (family == AF_UNIX && FIELD(sk, sk_type) != SOCK_STREAM);
}

/* Says of an event which socket it is about. */
static __attribute__((noinline)) void name_socket(struct event *e, struct sock *sk)
{
	e->cookie = cookie_of(sk);
	e->family = FIELD(sk, __sk_common.skc_family);
	e->type = FIELD(sk, sk_type);
	e->protocol = FIELD(sk, sk_protocol);
	if (!is_inet(e->family))
		return;
	e->state = FIELD(sk, __sk_common.skc_state);
	e->local_port = own_port(sk);
	e->peer_port = bpf_ntohs(FIELD(sk, __sk_common.skc_dport));
	if (e->family == AF_INET) {
		*(__u32 *)e->local = FIELD(sk, __sk_common.skc_rcv_saddr);
		*(__u32 *)e->peer = FIELD(sk, __sk_common.skc_daddr);
		return;
	}
	e->known |= EVENT_V6;
	bpf_probe_read_kernel(e->local, 16, __builtin_preserve_access_index(&sk->__sk_common.skc_v6_rcv_saddr));
	bpf_probe_read_kernel(e->peer, 16, __builtin_preserve_access_index(&sk->__sk_common.skc_v6_daddr));
}

/* The sequence number of the next byte that a read takes. */
static __always_inline int next_byte(struct sock *sk, __u32 *seq)
{
	struct tcp_sock *tcp = (void *)sk;

	if (FIELD(sk, sk_type) != SOCK_STREAM || FIELD(sk, sk_protocol) != IPPROTO_TCP ||
	    !is_inet(FIELD(sk, __sk_common.skc_family)))
		return 0;
	*seq = FIELD(tcp, copied_seq);
	return 1;
}

/* Tells whether the peer has said that it sends no more, and that was counted as a byte. */
static __always_inline int at_end(struct sock *sk, __u32 next)
{
	struct tcp_sock *tcp = (void *)sk;
	__u8 state = FIELD(sk, __sk_common.skc_state);

	/* TCP_TIME_WAIT, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_CLOSING */
	return (state == 6 || state == 7 || state == 8 || state == 9 || state == 11) && next == FIELD(tcp, rcv_nxt);
}
