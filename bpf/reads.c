//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// What other processes read from their sockets: the bytes that receiving
// system calls returned, copied from the process's own buffers when the call
// ends.
//
// There are two ways to hear of a call. The tracepoints of single calls cost the
// other calls 70 ns, and need tracefs; arguments are kept from the
// beginning of a call to its end. The raw tracepoints of all calls cost each call
// 280 ns, and need to know where the registers are, which Go sets for each
// architecture; at the end of a call they still hold its arguments.

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/socket.h>
#include <bpf/bpf_helpers.h>
#include "reads.h"
#include "messages.h"
#include "descriptors.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline __u64 current_process(void)
{
	struct bpf_pidns_info info = {};

	if (!namespace_inode)
		return bpf_get_current_pid_tgid();
	if (bpf_get_ns_current_pid_tgid(namespace_device, namespace_inode, &info, sizeof(info)))
		return 0;
	return (__u64)info.tgid << 32 | info.pid;
}

static __always_inline __u64 register_at(__u64 regs, __u32 offset)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)(regs + offset));
	return value;
}

/* An argument of a call that has ended. */
static __always_inline __u64 ended_argument(const struct ended_call *e, int n)
{
	return e->begun ? e->begun->arguments[n] : register_at(e->registers, argument_at[n]);
}

/* All arguments. The registers are copied at once, because each copy has its price. */
static __always_inline int load_arguments(struct reading *r, const struct ended_call *e)
{
	__u32 size = registers_size;
	int i;

	if (e->begun) {
		__builtin_memcpy(r->arguments, e->begun->arguments, sizeof(r->arguments));
		return 0;
	}
	if (size > sizeof(r->registers))
		size = sizeof(r->registers);
	if (bpf_probe_read_kernel(r->registers, size, (void *)e->registers))
		return -1;
#pragma unroll
	for (i = 0; i < 6; i++)
		r->arguments[i] = r->registers[argument_at[i] / 8 & (REGISTERS_MAX - 1)];
	return 0;
}

static __always_inline int received(const struct ended_call *e, __u32 call, struct watched_process *w)
{
	struct watched_socket *s;
	struct reading *r;
	__u64 left, before, *position;
	__s32 fd;

	fd = ended_argument(e, 0);
	s = find(e->process >> 32, fd, w);
	if (!s)
		return 0;
	r = begin_call(e->slot, call, e->process, fd, e->result);
	if (!r || load_arguments(r, e))
		return 0;
	position = position_of(s->id);
	r->head.socket = s->id;
	if (position)
		r->head.position = *position;
	before = r->head.position;
	if (e->result < 0) {
		piece(e->slot, 0);
		return 0;
	}
	describe_buffer(r, call);
	if (call == CALL_RECVMMSG) {
		r->message_count = e->result;
		next_message(r);
	} else {
		left = r->left;
		begin_message(r, e->result);
		r->left = left;
	}
	if (call == CALL_SPLICE)
		piece(e->slot, 0);
	else
		record(e->slot);
	if (position)
		__sync_fetch_and_add(position, r->head.position + r->taken - before);
	return 0;
}

/* A connection that a watched socket accepted is watched from its first byte. */
static __always_inline int accepted(const struct ended_call *e, struct watched_process *w)
{
	struct descriptor key = {.pid = e->process >> 32, .fd = e->result};
	struct watched_socket fresh = {};
	struct watched_socket *listener;
	struct read_counters *c;
	struct reading *r;
	__s32 fd;

	fd = ended_argument(e, 0);
	listener = find(e->process >> 32, fd, w);
	if (!listener)
		return 0;
	r = begin_call(e->slot, CALL_ACCEPT, e->process, fd, e->result);
	if (!r || load_arguments(r, e))
		return 0;
	fresh.id = r->head.time | 1ULL << 63;
	r->head.socket = fresh.id;
	r->head.position = listener->id;
	leave(&key, w);
	fresh.since = w->forks;
	sender(r, r->arguments[1], length_at(r->arguments[2]));
	if (bpf_map_update_elem(&descriptors, &key, &fresh, BPF_ANY)) {
		c = counters();
		if (c)
			count(&c->untracked);
	}
	piece(e->slot, 0);
	return 0;
}

/* A copy of a descriptor is the same socket. */
static __always_inline int duplicated(const struct ended_call *e, struct watched_process *w)
{
	struct descriptor key = {.pid = e->process >> 32, .fd = e->result};
	struct watched_socket copy = {};
	struct watched_socket *s;
	struct reading *r;
	__s32 fd;

	fd = ended_argument(e, 0);
	s = find(e->process >> 32, fd, w);
	if (!s || fd == key.fd)
		return 0;
	copy.id = s->id;
	copy.since = w->forks;
	leave(&key, w);
	bpf_map_update_elem(&descriptors, &key, &copy, BPF_ANY);
	r = begin_call(e->slot, CALL_DUP, e->process, fd, e->result);
	if (!r)
		return 0;
	r->head.socket = copy.id;
	piece(e->slot, 0);
	return 0;
}

static __always_inline int copies(const struct ended_call *e)
{
	__s32 nr = e->nr;
	__u64 command;

	if (nr == nr_dup || nr == nr_dup2 || nr == nr_dup3)
		return 1;
	if (nr != nr_fcntl)
		return 0;
	command = ended_argument(e, 1);
	return command == 0 || command == 1030; /* F_DUPFD, F_DUPFD_CLOEXEC */
}

/* Exec closes descriptors, and nobody hears of it: then a number can come to mean
 * a file.
 */
static __always_inline int opened(const struct ended_call *e, struct watched_process *w)
{
	struct descriptor key = {.pid = e->process >> 32, .fd = e->result};

	leave(&key, w);
	return 0;
}

static __always_inline int forked(__u32 slot, __u32 pid, __u64 process, struct watched_process *w)
{
	struct watched_process child = {.parent = process >> 32};
	struct reading *r;

	__sync_fetch_and_add(&w->forks, 1);
	child.born = w->forks;

	/* A thread's id does no harm here: no process has it. In another process
	 * id namespace than ours, the number means nothing.
	 */
	inheriting = 1;
	bpf_map_update_elem(&processes, &pid, &child, BPF_NOEXIST);
	r = begin_call(slot, CALL_FORK, process, -1, pid);
	if (!r)
		return 0;
	piece(slot, 0);
	return 0;
}

static __always_inline int happened(__u32 slot, __u32 call, __s64 result, __u64 process)
{
	struct reading *r;

	r = begin_call(slot, call, process, result, result);
	if (!r)
		return 0;
	piece(slot, 0);
	return 0;
}

/* Tells whether the copy of a slot is to take a thread's call. */
static __always_inline int my_turn(__u32 slot, __u32 thread)
{
	__u32 *taken, one = 1;

	if (!twice)
		return 1;
	taken = bpf_map_lookup_elem(&marks, &thread);
	if (slot == SLOT_RETURNED) {
		if (taken)
			*taken = 1;
		else
			bpf_map_update_elem(&marks, &thread, &one, BPF_ANY);
		return 1;
	}
	if (!taken || !*taken)
		return 1;
	*taken = 0;
	return 0;
}

/* Nothing was there yet: by far the most frequent failure, and none. From 512 on
 * the numbers are those of calls that will be made again.
 */
static __always_inline int of_no_interest(__s64 result)
{
	return result == -EAGAIN || result == -EINTR || result <= -512;
}

static __always_inline struct watched_process *watched(__u64 process)
{
	__u32 pid = process >> 32;

	if (!*(volatile __u32 *)&following)
		return 0;
	return bpf_map_lookup_elem(&processes, &pid);
}

static __always_inline int exited(const struct ended_call *e, struct watched_process *w)
{
	__s32 nr = e->nr;

	if (nr == nr_read)
		return received(e, CALL_READ, w);
	if (nr == nr_recvfrom)
		return received(e, CALL_RECVFROM, w);
	if (nr == nr_recvmsg)
		return received(e, CALL_RECVMSG, w);
	if (nr == nr_readv)
		return received(e, CALL_READV, w);
	if (nr == nr_recvmmsg)
		return received(e, CALL_RECVMMSG, w);
	if (nr == nr_splice)
		return received(e, CALL_SPLICE, w);
	if (nr == nr_connect) /* may go on in the background */
		return happened(e->slot, CALL_SOCKET, ended_argument(e, 0), e->process);
	if (e->result < 0)
		return 0;
	if (nr == nr_accept || nr == nr_accept4)
		return accepted(e, w);
	if (nr == nr_openat || nr == nr_open)
		return opened(e, w);
	if (copies(e))
		return duplicated(e, w);
	if (nr == nr_socket)
		return happened(e->slot, CALL_SOCKET, e->result, e->process);
	if (nr == nr_bind || nr == nr_listen)
		return happened(e->slot, CALL_SOCKET, ended_argument(e, 0), e->process);
	if (nr == nr_execve || nr == nr_execveat) {
		inheriting = 1;
		return happened(e->slot, CALL_EXEC, e->result, e->process);
	}
	if (nr == nr_io_uring_setup)
		return happened(e->slot, CALL_IO_URING, e->result, e->process);
	if (e->result > 0 && (nr == nr_clone || nr == nr_clone3 || nr == nr_fork || nr == nr_vfork))
		return forked(e->slot, e->result, e->process, w);
	return 0;
}

/* A descriptor is forgotten before it is closed: afterwards, another thread may
 * have accepted a connection under the same number.
 */
static __always_inline int closes(__u64 process, __s32 fd, struct watched_process *w)
{
	struct descriptor key = {.pid = process >> 32, .fd = fd};
	struct watched_socket *s;
	struct reading *r;
	__u64 id, *position;

	s = find(key.pid, fd, w);
	if (!s)
		return 0;
	r = begin_call(SLOT_ENTERED, CALL_CLOSE, process, fd, 0);
	if (!r)
		return 0;
	id = s->id;
	r->head.socket = id;
	position = bpf_map_lookup_elem(&positions, &id); /* none if it was never read */
	if (position)
		r->head.position = *position;
	leave(&key, w);
	piece(SLOT_ENTERED, 0);
	return 0;
}

static __always_inline int raw_exit(__u32 slot, struct bpf_raw_tracepoint_args *ctx)
{
	struct ended_call e = {.slot = slot, .registers = ctx->args[0], .result = ctx->args[1]};
	struct watched_process *w;

	if (of_no_interest(e.result))
		return 0;
	e.process = current_process();
	w = watched(e.process);
	if (!w || !my_turn(slot, e.process))
		return 0;
	e.nr = register_at(e.registers, number_at);
	return exited(&e, w);
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

SEC("raw_tp/sys_enter")
int entered(struct bpf_raw_tracepoint_args *ctx)
{
	struct watched_process *w;
	__u64 process;

	if ((__s32)ctx->args[1] != nr_close)
		return 0;
	process = current_process();
	w = watched(process);
	if (!w)
		return 0;
	return closes(process, register_at(ctx->args[0], argument_at[0]), w);
}

/* Loads from a context by an offset that is fixed, as the verifier wants it. */
#define begin_argument(ctx, offset) \
	({ \
		__u64 value; \
		asm volatile("%0 = *(u64 *)(%1 + " #offset ")" : "=r"(value) : "r"(ctx)); \
		value; \
	})

/* Keeps the first n arguments of a call, whatever it is on: that may turn out to
 * be a watched socket before the call ends.
 */
static __always_inline int begins(struct begin_context *ctx, const int n)
{
	struct begun_call fresh = {.nr = ctx->nr}, *known;
	struct watched_process *w;
	struct read_counters *c;
	__u64 process;
	__u32 thread;

	process = current_process();
	thread = process;
	w = watched(process);
	if (!w)
		return 0;
	fresh.arguments[0] = begin_argument(ctx, 16);
	if (n > 1)
		fresh.arguments[1] = begin_argument(ctx, 24);
	if (n > 2)
		fresh.arguments[2] = begin_argument(ctx, 32);
	if (n > 3)
		fresh.arguments[3] = begin_argument(ctx, 40);
	if (n > 4) {
		fresh.arguments[4] = begin_argument(ctx, 48);
		fresh.arguments[5] = begin_argument(ctx, 56);
	}
	if (fresh.nr == nr_close)
		return closes(process, fresh.arguments[0], w);
	known = bpf_map_lookup_elem(&begun, &thread);
	if (known) {
		*known = fresh;
	} else if (bpf_map_update_elem(&begun, &thread, &fresh, BPF_ANY)) {
		c = counters();
		if (c)
			count(&c->forgotten);
	}
	return 0;
}

/* The kernel lets a program see only the arguments that the call has. */
SEC("tracepoint/syscalls/begins1")
int begins1(struct begin_context *ctx)
{
	return begins(ctx, 1);
}

SEC("tracepoint/syscalls/begins2")
int begins2(struct begin_context *ctx)
{
	return begins(ctx, 2);
}

SEC("tracepoint/syscalls/begins3")
int begins3(struct begin_context *ctx)
{
	return begins(ctx, 3);
}

SEC("tracepoint/syscalls/begins4")
int begins4(struct begin_context *ctx)
{
	return begins(ctx, 4);
}

SEC("tracepoint/syscalls/begins6")
int begins6(struct begin_context *ctx)
{
	return begins(ctx, 6);
}

/* The end of a call that began with one of those. */
SEC("tracepoint/syscalls/ends")
int ends(struct end_context *ctx)
{
	struct ended_call e = {.slot = SLOT_RETURNED, .nr = ctx->nr, .result = ctx->result};
	struct watched_process *w;
	__u32 thread;

	e.process = current_process();
	thread = e.process;
	w = watched(e.process);
	if (!w)
		return 0;
	e.begun = bpf_map_lookup_elem(&begun, &thread);
	if (!e.begun || e.begun->nr != e.nr)
		return 0;
	e.begun->nr = NOTHING_BEGUN;
	if (of_no_interest(e.result))
		return 0;
	return exited(&e, w);
}

/* A fork, before the child has run. A child by vfork has closed and copied
 * descriptors, and is another program, when the call returns to its parent.
 */
SEC("tracepoint/sched/sched_process_fork")
int forks(void *ctx)
{
	struct watched_process *w;
	__u64 process;
	__u32 child;

	process = current_process();
	w = watched(process);
	if (!w || bpf_probe_read_kernel(&child, sizeof(child), ctx + child_at))
		return 0;
	return forked(SLOT_RETURNED, child, process, w);
}

/* The end of a call whose arguments do not matter. */
SEC("tracepoint/syscalls/happens")
int happens(struct end_context *ctx)
{
	struct ended_call e = {.slot = SLOT_RETURNED, .nr = ctx->nr, .result = ctx->result};
	struct watched_process *w;

	/* Opening files is frequent, and matters for heirs only. */
	if (!*(volatile __u32 *)&inheriting && (e.nr == nr_openat || e.nr == nr_open))
		return 0;
	e.process = current_process();
	w = watched(e.process);
	if (!w || of_no_interest(e.result))
		return 0;
	return exited(&e, w);
}
