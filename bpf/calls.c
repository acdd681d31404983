//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Records what other processes get from their sockets: the bytes that receiving system
// calls returned, copied from the process's buffers when the call ends.
//
// There are three ways to attach. The tracepoints of single system calls cost all other calls
// 70 ns, and need tracefs. The raw tracepoints of all system calls cost more, and the
// programs must know the layout of the registers, which Go sets for each architecture. From
// Linux 7.0 on, a task can be preempted in the middle of a tracepoint's program, and the kernel
// skips that program for everybody else on the cpu until the task runs again. There, probes
// at the functions of the system calls are better, where nobody is preempted.

#include "news.h"
#include "places.h"
#include "points.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* A call in progress. */
struct begun_call {
	__u32 call; /* 0 when it is over */
	__u32 seq;
	__u64 arguments[6];
	__u64 sk;     /* address of the descriptor's struct sock, 0 if its beginning was missed */
	__u64 cookie; /* that the socket had at the beginning */
	__u32 placed; /* whether seq is known */
	__u32 inode;  /* that the socket had at the beginning */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32); /* thread */
	__type(value, struct begun_call);
} begun SEC(".maps");

/* Where a task can be preempted in the middle of a raw tracepoint's program, a second copy
 * runs after the first and handles what the first was skipped for: the first notes here,
 * for each thread, that it ran.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32); /* thread */
	__type(value, __u32);
} taken SEC(".maps");

__u32 twice;

/* Whether a read says where the other direction of its stream is: what was sent is recorded too. */
const volatile __u32 wants_ack;

/* Whether the raw tracepoint is only for calls that began before they were followed, because
 * called sees all others.
 */
__u32 probed;

static __always_inline int receives(__u32 call)
{
	return call <= CALL_ZEROCOPY;
}

/* Notes the socket of a receiving call, before the call can have any effect. Returns 0 if
 * it is not followed.
 */
static __always_inline int begins_to_receive(__u32 slot, struct begun_call *b)
{
	struct sock *sk = socket_of(b->arguments[0]);

	if (!sk || !chosen(sk))
		return 0;
	b->sk = (__u64)sk;
	b->cookie = cookie_of(sk);
	b->inode = inode_of(sk);
	b->placed = next_byte(sk, &b->seq);
	announce_unknown(slot, sk, b->cookie, b->arguments[0]);
	return 1;
}

/* Stores what is known at the beginning of a call, for its end. Returns 0 if its end is of no
 * interest.
 */
static __always_inline int begin(__u32 slot, struct begun_call *fresh)
{
	struct begun_call *before;
	struct event_counters *c;
	__u32 thread = bpf_get_current_pid_tgid();

	before = bpf_map_lookup_elem(&begun, &thread);
	if (fresh->call == CALL_ACCEPT)
		begins_to_accept(slot, socket_of(fresh->arguments[0]), fresh->arguments[0]);
	if (receives(fresh->call) && (!begins_to_receive(slot, fresh) || !records_received)) {
		if (before)
			before->call = 0;
		return 0;
	}
	if (before) {
		*before = *fresh;
	} else if (bpf_map_update_elem(&begun, &thread, fresh, BPF_ANY)) {
		c = counters();
		if (c)
			count(&c->missed);
		return 0;
	}
	return 1;
}

/* Sets the sequence number of a message's first byte. */
static __always_inline void place_in_stream(struct reading *r, const struct begun_call *b, struct sock *sk)
{
	__u32 next;

	if (!next_byte(sk, &next))
		return;
	r->head.known |= EVENT_SEQ;
	if (wants_ack)
		r->head.ack = FIELD((struct tcp_sock *)sk, write_seq);
	if (!b->placed) {
		/* The call is older than the capture, or than the connection. */
		r->head.seq = next;
		if (!(r->head.flags & MSG_PEEK))
			r->head.seq -= r->head.result + past_fin(sk, next);
		return;
	}
	/* Not computed back from next, which may include the FIN, or bytes that another
	 * thread read meanwhile. An urgent byte is skipped before a read begins.
	 */
	r->head.seq = b->seq;
	if (next - b->seq - r->head.result == 1 && !past_fin(sk, next))
		r->head.seq++;
}

static __always_inline int received(__u32 slot, const struct begun_call *b, __s64 result)
{
	struct sock *sk = (void *)b->sk;
	struct reading *r;

	if (!sk) {
		sk = socket_of(b->arguments[0]); /* the call is older than the capture */
		if (!sk || !chosen(sk))
			return 0;
	}
	if (b->call == CALL_ZEROCOPY && (b->arguments[1] != IPPROTO_TCP || b->arguments[2] != 35))
		return 0;
	if (b->call == CALL_SPLICE && !b->arguments[4])
		return 0; /* as without_effect */
	r = begin_event(slot, b->call, b->arguments[0], result);
	if (!r)
		return 0;
	__builtin_memcpy(r->arguments, b->arguments, sizeof(r->arguments));
	describe_socket(&r->head, sk);
	if (forget_other(&r->head, b->cookie, b->inode, 0))
		sk = 0;
	if (result < 0) {
		piece(slot, 0);
		return 0;
	}
	describe_buffer(r, b->call);
	if (r->head.flags & MSG_ERRQUEUE)
		return 0; /* an error message, no data */
	if (b->call == CALL_ZEROCOPY) /* u64 address, u32 length */
		result = r->head.result = length_at(r->arguments[3] + 8);
	if (sk) {
		place_in_stream(r, b, sk);
		if (*(volatile __u32 *)&rings)
			forget_place(sk);
	}
	if (r->head.flags & MSG_TRUNC && r->head.type == SOCK_STREAM)
		r->head.room = 0; /* the bytes were discarded, not stored in a buffer */
	if (b->call == CALL_RECVMMSG) {
		r->message_count = result;
		next_message(slot);
	} else {
		begin_message(r, result);
	}
	record_call(slot);
	return 0;
}

static __always_inline int ended(__u32 slot, const struct begun_call *b, __s64 result)
{
	if (ignored(result))
		return 0;
	if (receives(b->call))
		return records_received ? received(slot, b, result) : 0;
	if (result < 0)
		return 0;
	if (b->call == CALL_ACCEPT)
		return accepted(slot, socket_of(b->arguments[0]), result);
	if (b->call == CALL_SOCKET)
		return announce_chosen(slot, b->call, result);
	if (b->call == CALL_IO_URING) {
		rings = 1;
		return announce(slot, b->call, result, 0);
	}
	return announce_chosen(slot, b->call, b->arguments[0]);
}

/* The beginning of a call. */
SEC("tracepoint/syscalls/begins")
int begins(struct begin_context *ctx)
{
	struct begun_call fresh = {};

	if (!followed(bpf_get_current_pid_tgid() >> 32))
		return 0;
	fresh.call = call_number(ctx->nr);
	if (copy_arguments(fresh.arguments, ctx))
		return 0;
	begin(SLOT_ENTERED, &fresh);
	return 0;
}

/* The end of a call, with the arguments that begins has stored. */
SEC("tracepoint/syscalls/ends")
int ends(struct end_context *ctx)
{
	struct begun_call *kept, b = {.call = CALL_ACCEPT, .arguments = {-1}};
	__u64 process = bpf_get_current_pid_tgid();
	__u32 thread = process, call;

	if (!followed(process >> 32))
		return 0;
	call = call_number(ctx->nr);
	kept = bpf_map_lookup_elem(&begun, &thread);
	if (kept && kept->call && kept->call == call) {
		b = *kept;
		kept->call = 0;
	} else if (call != CALL_ACCEPT) {
		return 0; /* its beginning was missed, and this tracepoint has no arguments */
	}
	return ended(SLOT_RETURNED, &b, ctx->result);
}

SEC("raw_tp/sys_enter")
int entered(struct bpf_raw_tracepoint_args *ctx)
{
	struct begun_call fresh = {.call = call_number(ctx->args[1])};

	if (!fresh.call || !followed(bpf_get_current_pid_tgid() >> 32))
		return 0;
	if (!load_arguments(SLOT_ENTERED, fresh.arguments, ctx->args[0]))
		begin(SLOT_ENTERED, &fresh);
	return 0;
}

/* Tells whether the copy with this slot is to handle a thread's call. */
static __always_inline int handles(__u32 slot, __u32 thread)
{
	__u32 *done, one = 1;

	if (!*(volatile __u32 *)&twice)
		return 1;
	done = bpf_map_lookup_elem(&taken, &thread);
	if (slot == SLOT_RETURNED) {
		if (done)
			*done = 1;
		else
			bpf_map_update_elem(&taken, &thread, &one, BPF_ANY);
		return 1;
	}
	if (!done || !*done)
		return 1;
	*done = 0;
	return 0;
}

static __always_inline int raw_exit(__u32 slot, struct bpf_raw_tracepoint_args *ctx)
{
	__u64 process = bpf_get_current_pid_tgid();
	struct begun_call *kept, b = {};
	__u32 thread = process, call;

	if (ignored(ctx->args[1]) || !followed(process >> 32) || !handles(slot, thread))
		return 0;
	call = call_number(register_at(ctx->args[0], number_at));
	if (!call)
		return 0;
	kept = bpf_map_lookup_elem(&begun, &thread);
	if (*(volatile __u32 *)&probed && kept)
		return 0; /* called has seen it */
	if (kept && kept->call == call) {
		b = *kept;
		kept->call = 0;
	} else {
		/* Its beginning was missed, but its arguments are still in the registers. */
		b.call = call;
		if (load_arguments(slot, b.arguments, ctx->args[0]))
			return 0;
	}
	return ended(slot, &b, ctx->args[1]);
}

SEC("raw_tp/sys_exit")
int returned(struct bpf_raw_tracepoint_args *ctx)
{
	return raw_exit(SLOT_RETURNED, ctx);
}

SEC("raw_tp/sys_exit")
int returned_again(struct bpf_raw_tracepoint_args *ctx)
{
	return raw_exit(SLOT_AGAIN, ctx);
}

/* Runs at the beginning of the function of a system call, and when it returns 0, at the end.
 * The function's argument is the address of the registers with those of the system call; the
 * cookie of the probe is which call it is.
 */
SEC("kprobe.session")
int called(void *ctx)
{
	struct begun_call *kept, b = {};
	__u64 process = bpf_get_current_pid_tgid();
	__u32 thread = process;

	if (!followed(process >> 32))
		return 1;
	if (!bpf_session_is_return(ctx)) {
		b.call = bpf_get_attach_cookie(ctx);
		if (load_arguments(SLOT_ENTERED, b.arguments, register_at((__u64)ctx, parameter_at)))
			return 1;
		return !begin(SLOT_ENTERED, &b);
	}
	kept = bpf_map_lookup_elem(&begun, &thread);
	if (!kept || !kept->call)
		return 0;
	b = *kept;
	kept->call = 0;
	ended(SLOT_RETURNED, &b, register_at((__u64)ctx, returned_at));
	return 0;
}
