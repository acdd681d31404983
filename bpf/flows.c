//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Enters the addresses of marked sockets into flows.h: what they are bound to, and both
// ends of what they send, which the cgroup hook sees before any interface does.

#include <bpf/bpf_core_read.h>
#include "headers.h"
#include "kernel.h"
#include "marks.h"
#include "ports.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_RAW 3
#define IPPROTO_MPTCP_SOCKET 262

struct sock_common___flags {
	unsigned char skc_ipv6only : 1;
} KERNEL;

/* A socket's address as a number: the verifier allows no arithmetic with the pointer. */
static __always_inline struct sock *kernel_socket(struct bpf_sock *sk)
{
	struct bpf_sock *volatile at = sk;
	struct sock *address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), (void *)&at);
	return address;
}

static __always_inline __u32 network_of(struct sock *sk)
{
	struct net *net = FIELD(sk, __sk_common.skc_net.net);

	return FIELD(net, ns.inum);
}

/* The network namespaces of the sockets that were entered. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} networks SEC(".maps");

static __always_inline void note_network(__u32 network)
{
	__u32 yes = 1;

	if (!bpf_map_lookup_elem(&networks, &network))
		bpf_map_update_elem(&networks, &network, &yes, BPF_ANY);
}

static __always_inline void hint(struct hints *h, __u16 port)
{
	__u8 *at = port_hint(h, port);

	if (!*at)
		*at = 1;
}

static __always_inline struct hints *hints_here(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&hints, &zero);
}

/* The address that a socket is bound to, as the keys of locals have it: for which versions
 * of IP, bits 4 and 6.
 */
static __attribute__((noinline)) __u32 bound_address(struct sock *sk, __u32 *address)
{
	struct sock_common___flags *common = (void *)sk;

	if (FIELD(sk, __sk_common.skc_family) == AF_INET) {
		address[3] = FIELD(sk, __sk_common.skc_rcv_saddr);
		if (address[3])
			address[2] = bpf_htonl(0xffff);
		return 1 << 4;
	}
	bpf_probe_read_kernel(address, 16, __builtin_preserve_access_index(&sk->__sk_common.skc_v6_rcv_saddr));
	if (!address[0] && !address[1] && address[2] == bpf_htonl(0xffff)) {
		if (!address[3])
			address[2] = 0;
		return 1 << 4;
	}
	if (address[0] | address[1] | address[2] | address[3])
		return 1 << 6;
	return BPF_CORE_READ_BITFIELD_PROBED(common, skc_ipv6only) ? 1 << 6 : 1 << 4 | 1 << 6;
}

static __always_inline __u8 wire_protocol(__u16 protocol)
{
	return protocol == IPPROTO_MPTCP_SOCKET ? IPPROTO_TCP : protocol;
}

/* Enters what a marked socket is bound to, or with port 0 a raw socket. */
static __attribute__((noinline)) int enter_local(struct sock *sk, __u16 port, __u64 cookie, __u64 origin)
{
	struct owner fresh = {.cookie = cookie, .origin = origin, .local_port = port};
	struct local at = {.port = port, .network = network_of(sk)};
	struct hints *h = hints_here();
	__u32 versions;

	if (!h)
		return 0;
	note_network(at.network);
	fresh.family = FIELD(sk, __sk_common.skc_family);
	fresh.type = FIELD(sk, sk_type);
	fresh.protocol = FIELD(sk, sk_protocol);
	/* Only a listener gets packets by what it is bound to. */
	fresh.state = fresh.type == SOCK_STREAM ? BPF_TCP_LISTEN : BPF_TCP_CLOSE;
	at.protocol = wire_protocol(fresh.protocol);
	versions = bound_address(sk, at.address);
	if (port)
		hint(h, port);
	else
		*raw_hint(h, at.protocol) = 1;
	if (versions & 1 << 4) {
		at.version = 4;
		bpf_map_update_elem(&locals, &at, &fresh, BPF_ANY);
	}
	if (versions & 1 << 6) {
		at.version = 6;
		bpf_map_update_elem(&locals, &at, &fresh, BPF_ANY);
	}
	return 0;
}

static __always_inline void forget_local(const struct local *at, __u64 cookie)
{
	struct owner *known = bpf_map_lookup_elem(&locals, at);

	if (known && known->cookie == cookie)
		bpf_map_delete_elem(&locals, at);
}

/* Forgets what a socket was bound to. */
static __attribute__((noinline)) int leave_local(struct sock *sk, __u16 port, __u64 cookie)
{
	struct local at = {.port = port, .network = network_of(sk)};
	__u32 versions;

	at.protocol = wire_protocol(FIELD(sk, sk_protocol));
	versions = bound_address(sk, at.address);
	if (versions & 1 << 4) {
		at.version = 4;
		forget_local(&at, cookie);
	}
	if (versions & 1 << 6) {
		at.version = 6;
		forget_local(&at, cookie);
	}
	/* It may have been entered for any address, before it was connected. */
	__builtin_memset(at.address, 0, sizeof(at.address));
	forget_local(&at, cookie);
	return 0;
}

static __always_inline int binds(struct bpf_sock *ctx)
{
	struct mark *mark = bpf_sk_storage_get(&marks, ctx, 0, 0);

	if (mark && wanted_port(ctx->src_port, 0))
		enter_local(kernel_socket(ctx), ctx->src_port, bpf_get_socket_cookie(ctx), mark->origin);
	return 1;
}

SEC("cgroup/post_bind4")
int binds4(struct bpf_sock *ctx)
{
	return binds(ctx);
}

SEC("cgroup/post_bind6")
int binds6(struct bpf_sock *ctx)
{
	return binds(ctx);
}

/* A raw socket gets what comes with its protocol as soon as it is there. */
SEC("cgroup/sock_create")
int begins(struct bpf_sock *ctx)
{
	struct mark *mark;

	if (ctx->type != SOCK_RAW || (ctx->family != AF_INET && ctx->family != AF_INET6))
		return 1;
	mark = bpf_sk_storage_get(&marks, ctx, 0, 0);
	if (mark && wanted_port(0, 0))
		enter_local(kernel_socket(ctx), 0, bpf_get_socket_cookie(ctx), mark->origin);
	return 1;
}

SEC("cgroup/sock_release")
int ends(struct bpf_sock *ctx)
{
	struct inet_sock *inet;
	struct sock *sk;
	__u16 port = 0;

	if (!bpf_sk_storage_get(&marks, ctx, 0, 0))
		return 1;
	sk = kernel_socket(ctx);
	inet = (void *)sk;
	if (ctx->type != SOCK_RAW)
		port = bpf_ntohs(FIELD(inet, inet_sport));
	if (port || ctx->type == SOCK_RAW)
		leave_local(sk, port, bpf_get_socket_cookie(ctx));
	return 1;
}

/* What a marked socket sends. The addresses are those of the packet: whatever translates
 * them has done so.
 */
SEC("cgroup_skb/egress")
int sends(struct __sk_buff *skb)
{
	struct owner fresh = {}, *known;
	struct bpf_sock *sk = skb->sk;
	struct packet p;
	struct flow f;
	struct mark *mark;
	struct hints *h;
	__u16 peer;

	if (!sk)
		return 1;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 1;
	mark = bpf_sk_storage_get(&marks, sk, 0, 0);
	peer = bpf_ntohs(sk->dst_port);
	if (!mark || sk->state == BPF_TCP_LISTEN || !wanted_port(sk->src_port, peer) || read_packet(skb, 0, &p) || p.later)
		return 1;
	fresh.cookie = bpf_get_socket_cookie(skb);
	fresh.origin = mark->origin;
	flow_of(&p, network_of(kernel_socket(sk)), 0, &f);
	known = bpf_map_lookup_elem(&flows, &f);
	if (known && known->cookie == fresh.cookie)
		return 1;
	if (sk->type == SOCK_DGRAM && f.local_port && (!peer || !has_ports(p.protocol))) {
		/* Whoever answers may do so from another address. */
		known = owner_of(&f, p.version, 0);
		if (!known || known->cookie != fresh.cookie)
			enter_local(kernel_socket(sk), f.local_port, fresh.cookie, fresh.origin);
		return 1;
	}
	h = hints_here();
	if (!h)
		return 1;
	fresh.family = sk->family;
	fresh.type = sk->type;
	fresh.protocol = sk->protocol;
	fresh.local_port = sk->src_port;
	fresh.peer_port = peer;
	fresh.state = sk->state;
	note_network(f.network);
	hint(h, f.local_port);
	bpf_map_update_elem(&flows, &f, &fresh, BPF_ANY);
	return 1;
}
