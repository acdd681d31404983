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

/* Sockets that have their mark or tap, or are about to get it: of these there is no more
 * news. The key is the cookie, and the value, for a listener, how many of the connections
 * that it accepts next may lack the mark, because they are older than it. A socket without
 * a cookie has its address as the key, which is larger than any cookie. Memory is reused,
 * so its value is its pair of ports or its inode (ports_of), to recognize another socket there.
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

/* The inode of any socket, 0 of one that is released or was not accepted yet. The kernel makes a
 * cookie only for those who ask, and memory and descriptors are reused at once; the number comes back
 * after 2^32 others.
 */
static __always_inline __u32 own_inode(struct sock *sk)
{
	struct socket *socket = FIELD(sk, sk_socket);
	struct file *file = FIELD(socket, file);
	struct inode *inode = FIELD(file, f_inode);

	return FIELD(inode, i_ino);
}

/* The inode of a unix stream's socket, 0 of others. */
static __attribute__((noinline)) __u32 inode_of(struct sock *sk)
{
	if (!unix_streams && choose != CHOOSE_KNOWN)
		return 0;
	if (FIELD(sk, __sk_common.skc_family) != AF_UNIX || FIELD(sk, sk_type) != SOCK_STREAM)
		return 0;
	return own_inode(sk);
}

/* Both ports, which tell a connection from a later one at the same address, or the inode. */
static __always_inline __u32 ports_of(struct sock *sk)
{
	if (!is_inet(FIELD(sk, __sk_common.skc_family)))
		return inode_of(sk);
	return (__u32)own_port(sk) << 16 | FIELD(sk, __sk_common.skc_dport);
}

static __always_inline int is_known(struct sock *sk)
{
	__u64 cookie = cookie_of(sk), address = (__u64)sk;
	__u32 *ports_then;

	if (bpf_map_lookup_elem(&known, &cookie))
		return 1;
	ports_then = bpf_map_lookup_elem(&known, &address);
	return ports_then && *ports_then == ports_of(sk);
}

/* Tells whether a socket is followed. */
static __attribute__((noinline)) int chosen(struct sock *sk)
{
	__u16 family;

	if (choose == CHOOSE_KNOWN)
		return is_known(sk);
	family = FIELD(sk, __sk_common.skc_family);
	if (choose == CHOOSE_PORTS)
		return is_inet(family) && wanted_port(own_port(sk), bpf_ntohs(FIELD(sk, __sk_common.skc_dport)));
	return is_inet(family) || (family == AF_UNIX && (unix_streams || FIELD(sk, sk_type) != SOCK_STREAM));
}

/* Fills in the fields of an event that describe its socket. */
static __attribute__((noinline)) void describe_socket(struct event *e, struct sock *sk)
{
	e->cookie = cookie_of(sk);
	e->family = FIELD(sk, __sk_common.skc_family);
	e->type = FIELD(sk, sk_type);
	e->protocol = FIELD(sk, sk_protocol);
	if (!is_inet(e->family)) {
		*(__u32 *)e->local = inode_of(sk);
		return;
	}
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

/* Takes from an event what is not of the socket that a call began with, if that was closed meanwhile
 * and another one has its memory. Returns whether it was. known is what the event has besides.
 */
static __always_inline int forget_other(struct event *e, __u64 cookie, __u32 inode, __u8 known)
{
	if (!(cookie && e->cookie != cookie) && !(inode && *(__u32 *)e->local != inode))
		return 0;
	__builtin_memset(&e->seq, 0, sizeof(*e) - __builtin_offsetof(struct event, seq));
	e->known = known;
	e->cookie = cookie;
	if (inode) {
		e->family = AF_UNIX;
		e->type = SOCK_STREAM;
		*(__u32 *)e->local = inode;
	}
	return 1;
}

#define TCP_SYN_SENT 2
#define TCP_CLOSE 7

static __always_inline int is_tcp(struct sock *sk)
{
	return FIELD(sk, sk_type) == SOCK_STREAM && FIELD(sk, sk_protocol) == IPPROTO_TCP &&
	       is_inet(FIELD(sk, __sk_common.skc_family));
}

/* Gets the sequence number of the next byte to be read. Returns 0 for sockets other than TCP,
 * and before the peer has said where its bytes begin: until then the number is none, or that
 * of an earlier connection.
 */
static __always_inline int next_byte(struct sock *sk, __u32 *seq)
{
	struct tcp_sock *tcp = (void *)sk;

	if (!is_tcp(sk) || !FIELD(sk, __sk_common.skc_dport) || FIELD(sk, __sk_common.skc_state) == TCP_SYN_SENT)
		return 0;
	*seq = FIELD(tcp, copied_seq);
	return 1;
}

/* Tells whether next is behind the peer's FIN, which takes a sequence number like a byte. */
static __always_inline int past_fin(struct sock *sk, __u32 next)
{
	struct tcp_sock *tcp = (void *)sk;
	__u8 state = FIELD(sk, __sk_common.skc_state);

	/* TCP_TIME_WAIT, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_CLOSING */
	return (state == 6 || state == 7 || state == 8 || state == 9 || state == 11) && next == FIELD(tcp, rcv_nxt);
}
