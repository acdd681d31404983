//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Follows sockets of other processes without changing them. A mark in a socket's local
// storage says that it is followed; the sockets that it accepts inherit the mark. The
// cgroup hook, which the kernel runs just before the socket's own filter and for the
// same packet, records the packets of marked sockets. The children of a followed process
// are followed, too.

#include "record.h"
#include "expression.h"
#include "descriptor.h"
#include "marks.h"
#include "scope.h"
#include "ports.h"
#include "ownfilter.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define AF_INET 2
#define AF_INET6 10
#define SOCK_RAW 3

/* MPTCP listeners that are older than the hook. The packets of each go to a subflow
 * socket of the kernel's own, of which no process has a descriptor; it is recognized by
 * its port and network namespace. The value is the origin.
 */
struct mptcp_listener {
	__u32 network; /* inode of the namespace */
	__u32 port;    /* host byte order */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct mptcp_listener);
	__type(value, __u64);
} mptcp_ports SEC(".maps");

__u32 mptcp_listeners;

/* Whether new sockets of followed processes are marked, and whether packets are recorded:
 * from the network header on, instead of from the filter's offset 0.
 */
const volatile __u32 mark_new = 1, recording = 1, from_network = 0;

/* Like counts, for the packets that marked sockets send. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* set by Go */
	__type(key, __u32);     /* cpu */
	__type(value, struct counters);
} egress_counts SEC(".maps");

/* Where the counters begin, in counts, of what arrives at sockets whose filters run inside the tap, if that is
 * recorded here as well; 0 leaves it to the tap alone.
 */
const volatile __u32 wrapped_counts = 0;

/* Whether packets that are sent and not wanted leave notes. */
const volatile __u32 notes_sent = 0;

/* Whether records tell of the filter that a socket has of its own. */
const volatile __u32 tells_filters = 0;

/* What find_process looks for, and what it found. */
__u32 wanted_pid, found_pid;

/* The position of the socket filter's offset 0 in the bytes that the hook sees, which begin
 * with the network header. Global, so that the verifier does not go through all that follows once
 * for each way through it.
 */
__attribute__((noinline)) __u32 filter_offset(struct __sk_buff *skb, __u32 family, __u32 type)
{
	__u8 first = 0;

	if (family == AF_INET && type == SOCK_RAW)
		return 0;
	if (bpf_skb_load_bytes(skb, 0, &first, 1))
		return 0;
	if (first >> 4 == 4)
		return (first & 0xf) * 4;
	return ipv6_transport(skb);
}

/* Marks the subflow socket of an MPTCP listener when its first packet arrives. The sockets
 * that it accepts inherit the mark.
 */
static __attribute__((noinline)) struct mark *mark_subflow(struct bpf_sock *sk)
{
	struct mptcp_listener key = {.port = sk->src_port};
	struct mark fresh = {};
	struct tcp_sock *tcp;
	struct net *net;
	__u64 *origin;

	if (sk->protocol != IPPROTO_TCP || sk->state != BPF_TCP_LISTEN)
		return 0;
	tcp = (void *)bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 0;
	net = FIELD(tcp, inet_conn.icsk_inet.sk.__sk_common.skc_net.net);
	key.network = FIELD(net, ns.inum);
	origin = bpf_map_lookup_elem(&mptcp_ports, &key);
	if (!origin)
		return 0;
	fresh.origin = *origin;
	return bpf_sk_storage_get(&marks, sk, &fresh, BPF_SK_STORAGE_GET_F_CREATE);
}

/* Describes a packet's socket, which is marked. Returns 0 if the packet is not to be recorded. */
static __always_inline int describe_owner(struct bpf_sock *sk, const struct mark *mark, struct arrival *at)
{
	if (!recording || !*(volatile __u32 *)&following)
		return 0;
	at->origin = mark->origin;
	at->family = sk->family;
	at->type = sk->type;
	at->protocol = sk->protocol;
	at->local_port = sk->src_port;
	at->peer_port = bpf_ntohs(sk->dst_port);
	at->state = sk->state;
	return wanted_port(at->local_port, at->peer_port);
}

/* How many bytes of a packet a program with direct access (data to data_end) does not reach. They
 * are its last ones.
 */
static __always_inline __u32 nonlinear(struct __sk_buff *skb)
{
	__u64 linear = (void *)(long)skb->data_end - (void *)(long)skb->data;

	asm volatile("" : "+r"(linear)); /* the verifier allows no other arithmetic with data_end */
	return skb->len - linear;
}

/* Of the bytes from the filter's offset 0 on there are as many as without those before it.
 */
static __always_inline __u32 limit(const struct arrival *at)
{
	__u32 most = snaplen + at->before;

	return most > PACKET_MAX ? PACKET_MAX : most;
}

/* Tells whether the expression chooses a packet, at whose network header the hook's bytes begin. */
static __attribute__((noinline)) int is_chosen(struct __sk_buff *skb)
{
	struct first_bytes first = {};

	if (bpf_skb_load_bytes(skb, 0, &first, FIRST_MAX)) {
		if (bpf_skb_load_bytes(skb, 0, &first, FIRST_MIN))
			return 0;
		first.less = FIRST_LESS;
	}
	return is_wanted(skb, 0, &first);
}

SEC("cgroup_skb/ingress")
int arrived(struct __sk_buff *skb)
{
	struct arrival at = {.decided = -1, .hook = HOOK_INGRESS};
	struct counters *c;
	struct bpf_sock *sk = skb->sk;
	struct mark *mark;
	int unwanted;
	__u32 cpu;

	if (!sk)
		return 1;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 1;
	mark = bpf_sk_storage_get(&marks, sk, 0, 0);
	if (!mark && *(volatile __u32 *)&mptcp_listeners)
		mark = mark_subflow(sk);
	if (!mark || !describe_owner(sk, mark, &at))
		return 1;
	c = counts_here();
	if (!c)
		return 1;
	if (tells_filters)
		at.filter = own_filter(address_of(sk), c);
	if (at.filter && bpf_map_lookup_elem(&wrappers, &at.filter)) {
		if (!wrapped_counts)
			return 1; /* the tap records it */
		cpu = bpf_get_smp_processor_id() + wrapped_counts;
		c = bpf_map_lookup_elem(&counts, &cpu);
		if (!c)
			return 1;
		at.hook = HOOK_BESIDE;
	}
	count(&c->seen);
	unwanted = selective && !is_chosen(skb);
	if (unwanted && (!notes_unwanted || at.hook == HOOK_BESIDE)) {
		count(&c->unwanted); /* beside the tap, that leaves the note */
		return 1;
	}
	at.start = filter_offset(skb, at.family, at.type);
	if (at.start > skb->len) {
		count(&c->load_failed);
		return 1;
	}
	if (unwanted) {
		at.counters = c;
		/* Where the socket has a filter of its own, that is asked about all of the packet. */
		if (!at.filter && leave_note(skb, &at, at.start))
			return 1;
		at.hook |= HOOK_UNWANTED;
	}
	at.nonlinear = nonlinear(skb);
	if (from_network) {
		at.before = at.start;
		at.start = 0;
	}
	record_packet(skb, c, &at, limit(&at));
	return 1;
}

/* What a marked socket sends, from the network header on. Also what the kernel sends in its
 * name, such as acknowledgements.
 */
SEC("cgroup_skb/egress")
int departed(struct __sk_buff *skb)
{
	struct arrival at = {.decided = -1, .hook = HOOK_EGRESS};
	__u32 cpu = bpf_get_smp_processor_id();
	struct bpf_sock *sk = skb->sk;
	struct counters *c;
	struct mark *mark;
	int unwanted;

	if (!sk)
		return 1;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 1;
	mark = bpf_sk_storage_get(&marks, sk, 0, 0);
	if (!mark || !describe_owner(sk, mark, &at))
		return 1;
	c = bpf_map_lookup_elem(&egress_counts, &cpu);
	if (!c)
		return 1;
	count(&c->seen);
	unwanted = selective && !is_chosen(skb);
	if (unwanted && !notes_sent) {
		count(&c->unwanted);
		return 1;
	}
	at.before = filter_offset(skb, at.family, at.type);
	if (at.before > skb->len)
		at.before = 0;
	if (unwanted) {
		at.counters = c;
		at.start = at.before;
		if (leave_note(skb, &at, at.start))
			return 1;
		at.start = 0;
		at.hook |= HOOK_UNWANTED;
	}
	at.nonlinear = nonlinear(skb);
	record_packet(skb, c, &at, limit(&at));
	return 1;
}

/* Marks a socket, unless it has a mark. */
static __always_inline void mark(struct bpf_sock *sk, __u64 cookie)
{
	struct mark fresh = {.origin = cookie};

	bpf_sk_storage_get(&marks, sk, &fresh, BPF_SK_STORAGE_GET_F_CREATE);
}

/* Tells whether sockets of the current process are marked. */
static __always_inline int marks_current(void)
{
	return mark_new && followed(bpf_get_current_pid_tgid() >> 32);
}

/* A socket is marked before it can receive a packet: when it is created, and, because it
 * may have been created by somebody else (the kernel for MPTCP, a process that passed it
 * on), when it is bound or connected.
 */
SEC("cgroup/sock_create")
int created(struct bpf_sock *sk)
{
	if (marks_current())
		mark(sk, bpf_get_socket_cookie(sk));
	return 1;
}

SEC("cgroup/post_bind4")
int bound4(struct bpf_sock *sk)
{
	if (marks_current())
		mark(sk, bpf_get_socket_cookie(sk));
	return 1;
}

SEC("cgroup/post_bind6")
int bound6(struct bpf_sock *sk)
{
	if (marks_current())
		mark(sk, bpf_get_socket_cookie(sk));
	return 1;
}

SEC("cgroup/connect4")
int connects4(struct bpf_sock_addr *ctx)
{
	if (ctx->sk && marks_current())
		mark(ctx->sk, bpf_get_socket_cookie(ctx));
	return 1;
}

SEC("cgroup/connect6")
int connects6(struct bpf_sock_addr *ctx)
{
	if (ctx->sk && marks_current())
		mark(ctx->sk, bpf_get_socket_cookie(ctx));
	return 1;
}

/* Follows a child before it runs. */
static __always_inline int follow_child(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *parent = (void *)ctx->args[0], *child = (void *)ctx->args[1];
	__u32 process = FIELD(parent, tgid), fresh = FIELD(child, tgid);

	if (process == fresh || !followed(process))
		return 0; /* a thread, or a child of a process that is not followed */
	follow(fresh, FOLLOWED);
	return 0;
}

/* Stops following a process when its last thread exits: the kernel may reuse its id. */
static __always_inline int forget_process(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0];
	struct signal_struct *signal = FIELD(task, signal);
	__u32 process = FIELD(task, tgid);

	if (FIELD(signal, live.counter) == 0)
		follow(process, 0);
	return 0;
}

SEC("raw_tp/sched_process_fork")
int forked(struct bpf_raw_tracepoint_args *ctx)
{
	return follow_child(ctx);
}

SEC("raw_tp/sched_process_exit")
int exited(struct bpf_raw_tracepoint_args *ctx)
{
	return forget_process(ctx);
}

/* A second copy of both. From Linux 7.0 on, a task can be preempted in the middle of a
 * program, and the kernel skips that program for the next task on the cpu. For that one
 * the other copy runs.
 */
SEC("raw_tp/sched_process_fork")
int forked_again(struct bpf_raw_tracepoint_args *ctx)
{
	return follow_child(ctx);
}

SEC("raw_tp/sched_process_exit")
int exited_again(struct bpf_raw_tracepoint_args *ctx)
{
	return forget_process(ctx);
}

/* The cgroup whose processes are followed, if there is one. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} cgroups SEC(".maps");

/* Whoever puts a process into a cgroup, such as a service manager, has it run a program
 * there: it is followed from that program's first instruction. What it has from before is
 * looked at later.
 */
SEC("raw_tp/sched_process_exec")
int executed(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 process = bpf_get_current_pid_tgid() >> 32;

	if (!followed(process) && bpf_current_task_under_cgroup(&cgroups, 0) == 1)
		follow(process, FOLLOWED_NOT_SEEN);
	return 0;
}

/* What the last run of filter_id found. */
struct own_program found_filter;

/* Run on demand: returns the id of the eBPF program that is a socket's filter, or 0 if it
 * has none or a classic one. args[0] is the socket's descriptor in the calling process.
 */
SEC("raw_tp")
int filter_id(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = socket_of(ctx->args[0]);
	struct sk_filter *filter;
	struct bpf_prog *program;
	struct bpf_prog_aux *aux;

	if (!sk)
		return 0;
	filter = FIELD(sk, sk_filter);
	program = FIELD(filter, prog);
	aux = FIELD(program, aux);
	tell_program(aux, &found_filter);
	return found_filter.id;
}

struct bpf_iter__task {
	void *meta;
	struct task_struct *task;
} KERNEL;

/* Translates wanted_pid, a process id of our pid namespace, into that of the initial one. */
SEC("iter/task")
int find_process(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (!task)
		return 0;
	if (pid_here(task) == wanted_pid)
		found_pid = FIELD(task, tgid);
	return 0;
}
