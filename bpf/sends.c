//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Records what other processes hand to their sockets: the bytes that sending system calls
// took, copied from the process's buffers when the call ends. Only then it is known how many
// the kernel has taken, and until then the process does not use its buffers again.
//
// An object of its own, so that nothing of it is loaded or attached unless somebody wants to
// see what was sent: write is called for files all the time. The ways to attach are those of
// calls.c.

#include "news.h"
#include "points.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* A send in progress. */
struct begun_send {
	__u32 call; /* 0 when it is over */
	__u32 seq;  /* TCP's sequence number of the next byte to be sent */
	__u32 ack;  /* and of the next byte to be read, 0 if there is none yet */
	__u32 placed; /* AT_BEGIN, AT_END, or 0 if there are none */
	__u64 arguments[6];
	__u64 sk; /* address of the descriptor's struct sock */
	__u64 cookie;
	__u64 inode;
	__u64 began; /* CLOCK_BOOTTIME */
};

#define AT_BEGIN 1 /* seq is that at the beginning of the call */
#define AT_END 2   /* the call connects (TCP Fast Open), and seq is to be computed back from its end */

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32); /* thread */
	__type(value, struct begun_send);
} begun_sends SEC(".maps");

/* Finds where a connection's next bytes are, in both directions. What goes through an upper
 * layer protocol (TLS in the kernel) is not what goes into the stream.
 */
static __always_inline void place_send(struct begun_send *s, struct sock *sk)
{
	struct inet_connection_sock *connection = (void *)sk;
	struct tcp_sock *tcp = (void *)sk;

	if (!is_tcp(sk) || FIELD(connection, icsk_ulp_ops))
		return;
	s->placed = AT_END;
	if (FIELD(sk, __sk_common.skc_state) == TCP_CLOSE || !next_byte(sk, &s->ack))
		return; /* there is no SYN yet, or none that the peer has answered */
	s->placed = AT_BEGIN;
	s->seq = FIELD(tcp, write_seq);
}

static __always_inline __s32 descriptor_of(const struct begun_send *s)
{
	return s->call == CALL_SPLICE_TO ? s->arguments[2] : s->arguments[0];
}

/* The beginning of a sending call, which most often is a write to a file. Returns 0 if its end
 * is of no interest.
 */
static __always_inline int begin_send(__u32 slot, struct begun_send *fresh)
{
	struct sock *sk = socket_of(descriptor_of(fresh));
	__u32 thread = bpf_get_current_pid_tgid();
	struct event_counters *c;
	struct begun_send *before = bpf_map_lookup_elem(&begun_sends, &thread);

	if (!sk || !chosen(sk)) {
		if (before)
			before->call = 0; /* its end was missed */
		return 0;
	}
	fresh->sk = (__u64)sk;
	fresh->cookie = cookie_of(sk);
	fresh->inode = inode_of(sk);
	fresh->began = bpf_ktime_get_boot_ns();
	place_send(fresh, sk);
	announce_unknown(slot, sk, fresh->cookie, descriptor_of(fresh));
	if (before) {
		*before = *fresh;
		return 1;
	}
	if (!bpf_map_update_elem(&begun_sends, &thread, fresh, BPF_ANY))
		return 1;
	c = counters();
	if (c)
		count(&c->missed);
	return 0;
}

/* Takes the buffer, the flags and the destination from a call's arguments. What sendfile and
 * splice move is in no buffer of the process.
 */
static __always_inline void describe_sent(struct reading *r)
{
	struct user_msghdr h;

	switch (r->head.call) {
	case CALL_SENDTO:
		r->head.flags = r->arguments[3];
		copy_sender(r, r->arguments[4], r->arguments[5]);
		/* fall through */
	case CALL_WRITE:
		r->at = r->arguments[1];
		r->left = r->arguments[2];
		r->head.room = r->left > 0x7fffffff ? 0x7fffffff : r->left;
		break;
	case CALL_WRITEV:
	case CALL_PWRITEV2:
		take_parts(r, r->arguments[1], r->arguments[2]);
		break;
	case CALL_SENDMSG:
	case CALL_SENDMMSG: /* its first message */
		r->head.flags = r->arguments[r->head.call == CALL_SENDMSG ? 2 : 3];
		if (!bpf_probe_read_user(&h, sizeof(h), (void *)r->arguments[1]))
			take_buffer(r, &h);
		break;
	}
}

#define MESSAGES_MAX 1024 /* of one call */

#define MESSAGES_AT_ONCE 32

/* Goes back by the lengths of some messages. Returns whether there are more. Global, so that its
 * loop is verified once.
 */
__attribute__((noinline)) int go_back_some(__u32 slot)
{
	struct reading *r = reading(slot);
	__u32 len;
	int i;

	if (!r)
		return 0;
	for (i = 0; i < MESSAGES_AT_ONCE; i++) {
		if (!r->message_count)
			return 0;
		if (bpf_probe_read_user(&len, sizeof(len), (void *)r->messages + __builtin_offsetof(struct user_mmsghdr, len))) {
			r->head.known &= ~EVENT_SEQ;
			return 0;
		}
		r->head.seq -= len;
		r->messages += sizeof(struct user_mmsghdr);
		r->message_count--;
	}
	return 1;
}

/* Goes back in the stream from the end of what sendmmsg has sent to the beginning, by the
 * lengths that the kernel has noted at each message.
 */
__attribute__((noinline)) int go_back(__u32 slot)
{
	struct reading *r = reading(slot);
	int i;

	if (!r)
		return 0;
	for (i = 0; i <= MESSAGES_MAX; i += MESSAGES_AT_ONCE) {
		if (!go_back_some(slot))
			return 0;
	}
	r->head.known &= ~EVENT_SEQ;
	return 0;
}

/* Sets the place in the stream of what a call has sent. */
static __always_inline void place_sent(__u32 slot, struct reading *r, const struct begun_send *s, __u32 result)
{
	struct sock *sk = (void *)s->sk;
	struct tcp_sock *tcp = (void *)sk;

	r->head.known |= EVENT_SEQ;
	r->head.seq = s->seq;
	r->head.ack = s->ack;
	if (s->placed == AT_BEGIN)
		return;
	next_byte(sk, &r->head.ack);
	r->head.seq = FIELD(tcp, write_seq);
	if (s->call != CALL_SENDMMSG) {
		r->head.seq -= result;
		return;
	}
	r->messages = s->arguments[1];
	r->message_count = result;
	go_back(slot);
}

/* Records what a call has sent, or how it failed. A global function is verified once, and not
 * in each program.
 */
__attribute__((noinline)) int record_sent(__u32 slot)
{
	struct reading *r = reading(slot);
	__s64 result;

	if (!r)
		return 0;
	result = r->head.result;
	describe_sent(r);
	if (result < 0) {
		piece(slot, 0);
		return 0;
	}
	if (r->head.call == CALL_SENDMMSG) {
		r->messages = r->arguments[1];
		r->message_count = result;
		r->head.result = 0; /* what was sent before the next message */
		if (!next_message(slot))
			return 0;
	} else {
		begin_message(r, result);
	}
	record_call(slot);
	return 0;
}

static __always_inline int sent(__u32 slot, const struct begun_send *s, __s64 result)
{
	struct sock *sk = (void *)s->sk;
	struct reading *r;

	if (ignored(result) || (result < 0 && s->call == CALL_SPLICE_TO)) /* which may be about the pipe */
		return 0;
	r = begin_event(slot, s->call, descriptor_of(s), result);
	if (!r)
		return 0;
	__builtin_memcpy(r->arguments, s->arguments, sizeof(r->arguments));
	r->head.began = s->began;
	describe_socket(&r->head, sk);
	if (!forget_other(&r->head, s->cookie, s->inode, 0) && s->placed && result >= 0) /* what failed is nowhere in the stream */
		place_sent(slot, r, s, result);
	record_sent(slot);
	return 0;
}

/* The end of a call: whatever was begun is over, also if it was another one, whose end was
 * missed.
 */
static __always_inline int end_send(__u32 slot, __u32 call, __s64 result)
{
	__u32 thread = bpf_get_current_pid_tgid();
	struct begun_send *kept, s;

	kept = bpf_map_lookup_elem(&begun_sends, &thread);
	if (!kept || !kept->call)
		return 0;
	s = *kept;
	kept->call = 0;
	return s.call == call ? sent(slot, &s, result) : 0;
}

SEC("tracepoint/syscalls/begins")
int begins_to_send(struct begin_context *ctx)
{
	struct begun_send fresh = {};

	if (!followed(bpf_get_current_pid_tgid() >> 32))
		return 0;
	fresh.call = call_number(ctx->nr);
	if (!copy_arguments(fresh.arguments, ctx))
		begin_send(SLOT_ENTERED, &fresh);
	return 0;
}

SEC("tracepoint/syscalls/ends")
int ends_to_send(struct end_context *ctx)
{
	if (!followed(bpf_get_current_pid_tgid() >> 32))
		return 0;
	return end_send(SLOT_RETURNED, call_number(ctx->nr), ctx->result);
}

/* Where a task can be preempted in the middle of a raw tracepoint's program, there are two copies
 * of each, as in calls.c: if neither was skipped, the second notes the same beginning once more, and
 * finds that the end is over.
 */
static __always_inline int raw_enter(__u32 slot, struct bpf_raw_tracepoint_args *ctx)
{
	struct begun_send fresh = {.call = call_number(ctx->args[1])};

	if (!fresh.call || !followed(bpf_get_current_pid_tgid() >> 32))
		return 0;
	if (!load_arguments(slot, fresh.arguments, ctx->args[0]))
		begin_send(slot, &fresh);
	return 0;
}

static __always_inline int raw_exit(__u32 slot, struct bpf_raw_tracepoint_args *ctx)
{
	__u32 call;

	if (!followed(bpf_get_current_pid_tgid() >> 32))
		return 0;
	call = call_number(register_at(ctx->args[0], number_at));
	return call ? end_send(slot, call, ctx->args[1]) : 0;
}

SEC("raw_tp/sys_enter")
int entered_to_send(struct bpf_raw_tracepoint_args *ctx)
{
	return raw_enter(SLOT_ENTERED, ctx);
}

SEC("raw_tp/sys_enter")
int entered_to_send_again(struct bpf_raw_tracepoint_args *ctx)
{
	return raw_enter(SLOT_ENTERED_AGAIN, ctx);
}

SEC("raw_tp/sys_exit")
int returned_to_send(struct bpf_raw_tracepoint_args *ctx)
{
	return raw_exit(SLOT_RETURNED, ctx);
}

SEC("raw_tp/sys_exit")
int returned_to_send_again(struct bpf_raw_tracepoint_args *ctx)
{
	return raw_exit(SLOT_AGAIN, ctx);
}

/* At the function of the system call, as called in calls.c. */
SEC("kprobe.session")
int called_to_send(void *ctx)
{
	struct begun_send fresh = {};

	if (!followed(bpf_get_current_pid_tgid() >> 32))
		return 1;
	if (bpf_session_is_return(ctx)) {
		end_send(SLOT_RETURNED, bpf_get_attach_cookie(ctx), register_at((__u64)ctx, returned_at));
		return 0;
	}
	fresh.call = bpf_get_attach_cookie(ctx);
	if (load_arguments(SLOT_ENTERED, fresh.arguments, register_at((__u64)ctx, parameter_at)))
		return 1;
	return !begin_send(SLOT_ENTERED, &fresh);
}
