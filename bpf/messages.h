/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * Records what receiving calls returned: a message's bytes, copied in pieces, and its
 * sender.
 */
#pragma once

#include "classes.h"
#include "control.h"
#include "sockets.h"

/* Layouts of the system calls' arguments on 64-bit architectures. */
struct user_iovec {
	__u64 base;
	__u64 len;
};
struct user_msghdr {
	__u64 name;
	__u32 namelen;
	__u32 pad;
	__u64 iov;
	__u64 iovlen;
	__u64 control;
	__u64 controllen;
	__u32 flags;
	__u32 pad2;
};
struct user_mmsghdr {
	struct user_msghdr hdr;
	__u32 len;
	__u32 pad;
};

#define REGISTERS_MAX 64 /* words, a power of two: no struct pt_regs has more */

/* A call whose bytes are being copied. */
struct reading {
	__u64 registers[REGISTERS_MAX];
	__u64 arguments[6];
	struct event head;
	__u64 at;    /* address in the process's memory of what to copy next */
	__u64 left;  /* bytes of the current buffer */
	__u64 iov;   /* address of the next part's struct iovec */
	__u32 iovs;  /* number of parts left */
	__u32 bytes; /* of the message left to copy */
	__u64 header; /* address of recvmsg's struct msghdr, where the call left its flags */
	__u64 messages; /* address of the next struct mmsghdr of recvmmsg or sendmmsg */
	__u32 message_count;
	__u32 control_len; /* bytes of ancillary data, 0 if there is none */
	__u64 control;
};

/* A slot for each program, with the call that it is working on. On a cpu a program is not
 * interrupted by itself (the kernel skips such a run and counts it), so nobody else writes
 * to its slot.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct reading);
} readings SEC(".maps");

#define SLOT_RETURNED 0
#define SLOT_ENTERED 1
#define SLOT_AGAIN 2
#define SLOT_ENTERED_AGAIN 3

static __always_inline void count(__u64 *counter)
{
	__sync_fetch_and_add(counter, 1);
}

static __always_inline struct event_counters *counters(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&event_counts, &cpu);
}

static __always_inline struct reading *reading(__u32 slot)
{
	return bpf_map_lookup_elem(&readings, &slot);
}

static __always_inline void truncated(void)
{
	struct event_counters *c = counters();

	if (c)
		count(&c->truncated);
}

/* The wakeup flags: 0 lets the kernel wake a reader that has consumed all earlier events. */
static __always_inline __u64 wakeup(void)
{
	return wakes_reader ? 0 : BPF_RB_NO_WAKEUP;
}

/* Copies a piece of n bytes into the ring. */
static __always_inline void copy(struct reading *r, struct event_counters *c, __u32 n)
{
	__u32 class = class_for(n);
	__u64 room = class, length;
	struct event *rec;

	rec = bpf_ringbuf_reserve(&events, sizeof(*rec) + class, 0);
	if (!rec) {
		count(&c->ring_full);
		return;
	}
	/* After the reservation, so that a later place in the ring means a later time. All
	 * pieces of a message have the time of the first.
	 */
	if (!r->head.time)
		r->head.time = bpf_ktime_get_boot_ns();
	r->head.caplen = n;
	r->head.lost = c->ring_full + c->fault;
	*rec = r->head;
	if (n > 0) {
		length = bounded(n, class);
		if (length > room || bpf_probe_read_user(rec + 1, length, (void *)r->at)) {
			bpf_ringbuf_discard(rec, wakeup());
			count(&c->fault);
			return;
		}
	}
	bpf_ringbuf_submit(rec, wakeup());
	count(&c->recorded);
}

/* Records a piece of n bytes. A global function is verified once and not at each call, which
 * keeps the loop below cheap to verify; its arguments can only be scalars.
 */
__attribute__((noinline)) int piece(__u32 slot, __u32 n)
{
	struct event_counters *c = counters();
	struct reading *r = reading(slot);

	if (!c || !r)
		return 0;
	if (n > PIECE_MAX)
		return 0;
	count(&c->seen);
	copy(r, c, n);
	return 0;
}

/* Tells whether a call that returned 0 has done nothing. The kernel does not ask the socket
 * when read or readv want no bytes, or when writev, sendfile or splice have none. It does for
 * write, recv and the others. A stream has no empty messages to send.
 */
static __always_inline int without_effect(const struct reading *r)
{
	if (r->head.result)
		return 0;
	switch (r->head.call) {
	case CALL_READ:
	case CALL_READV:
	case CALL_PREADV2:
		return !r->head.room;
	case CALL_WRITEV:
	case CALL_PWRITEV2:
	case CALL_SENDFILE:
	case CALL_SPLICE_TO:
		return 1;
	}
	return r->head.call >= CALL_WRITE && r->head.type == SOCK_STREAM;
}

/* Begins a message of so many bytes. */
static __always_inline void begin_message(struct reading *r, __s64 result)
{
	__u64 wanted = result > 0 ? result : 0;

	r->head.result = result;
	r->head.time = 0;
	r->head.offset = 0;
	/* With MSG_TRUNC, the result may be more than the buffer holds: of a datagram its whole
	 * length, of a stream the bytes that were discarded.
	 */
	if (wanted > r->head.room)
		wanted = r->head.room;
	if (r->head.call == CALL_SPLICE)
		wanted = 0; /* it is in a pipe */
	if (wanted > message_snaplen) {
		wanted = message_snaplen;
		truncated();
	}
	r->head.wanted = wanted;
	r->bytes = wanted;
}

static __always_inline void copy_sender(struct reading *r, __u64 name, __u32 len)
{
	r->head.name_len = 0;
	if (!name || len < 2)
		return;
	if (len > NAME_MAX)
		len = NAME_MAX;
	/* The caller's room is almost always NAME_MAX or more. If that much cannot be read,
	 * because the page ends before, the length of an IPv4 address may be.
	 */
	if (!bpf_probe_read_user(r->head.name, NAME_MAX, (void *)name) ||
	    !bpf_probe_read_user(r->head.name, 16, (void *)name))
		r->head.name_len = len;
}

#define ROOM_PARTS 1024 /* most parts that a buffer can have (UIO_MAXIOV) */
#define ROOM_UNKNOWN 0x7fffffff /* no more than the call returned will be copied */

#define PARTS_AT_ONCE 32

/* The size of the first parts of a buffer. Global, so that its loop is verified once. */
__attribute__((noinline)) __u32 room_of_first(__u64 iov, __u32 parts)
{
	struct user_iovec part;
	__u64 room = 0;
	int i;

	for (i = 0; i < PARTS_AT_ONCE; i++) {
		if (i >= parts)
			break;
		if (bpf_probe_read_user(&part, sizeof(part), (void *)(iov + i * sizeof(part))))
			return ROOM_UNKNOWN;
		room += part.len;
		if (room > ROOM_UNKNOWN)
			return ROOM_UNKNOWN;
	}
	return room;
}

/* The size of a buffer, the sum of its parts. */
__attribute__((noinline)) __u32 room_of(__u64 iov, __u32 parts)
{
	__u64 room = 0;
	int i;

	for (i = 0; i < ROOM_PARTS; i += PARTS_AT_ONCE) {
		if (i >= parts)
			break;
		room += room_of_first(iov + i * sizeof(struct user_iovec), parts - i);
		if (room >= ROOM_UNKNOWN)
			return ROOM_UNKNOWN;
	}
	return room;
}

static __always_inline void take_parts(struct reading *r, __u64 iov, __u64 parts)
{
	r->iov = iov;
	r->iovs = parts > ROOM_PARTS ? ROOM_PARTS : parts;
	r->left = 0;
	r->head.room = room_of(iov, r->iovs);
}

/* Takes a message's flags and where its ancillary data is. */
static __always_inline void take_ancillary(struct reading *r, __u32 flags, __u64 control, __u64 len)
{
	r->head.msg_flags = flags;
	r->control = control;
	r->control_len = control && len <= 0x7fffffff ? len : 0;
	r->head.control = 0;
	r->head.known &= ~EVENT_CONTROL;
	if (r->control_len)
		r->head.known |= EVENT_CONTROL;
}

/* Takes a message's buffer and address from a struct msghdr. */
static __always_inline void take_buffer(struct reading *r, const struct user_msghdr *h)
{
	take_parts(r, h->iov, h->iovlen);
	copy_sender(r, h->name, h->namelen);
}

/* Takes the flags and the ancillary data as well: those of a message that was received. To send
 * one, only the caller has filled them in.
 */
static __always_inline void take_received(struct reading *r, const struct user_msghdr *h)
{
	take_buffer(r, h);
	take_ancillary(r, h->flags, h->control, h->controllen);
}

/* An event of CALL_CONTROL. */
struct control_event {
	struct event head;
	struct controls controls;
};

/* Records which ancillary data the current message has. It comes before the message, since
 * that ends with the last of its pieces. If there is no room, the message tells nevertheless
 * that it has some: nothing else is lost, so this is not counted as a loss.
 */
__attribute__((noinline)) int record_control(__u32 slot)
{
	struct event_counters *c = counters();
	struct reading *r = reading(slot);
	struct control_event *rec;

	if (!c || !r || !r->control_len)
		return 0;
	rec = bpf_ringbuf_reserve(&events, sizeof(*rec), 0);
	if (!rec)
		return 0;
	/* Whatever comes between two messages of a thread on one cpu, the piece of the first is. */
	r->head.control = c->seen + 1;
	rec->head = r->head;
	rec->head.call = CALL_CONTROL;
	rec->head.time = bpf_ktime_get_boot_ns();
	rec->head.lost = c->ring_full + c->fault;
	rec->head.offset = 0;
	rec->head.wanted = rec->head.caplen = sizeof(rec->controls);
	__builtin_memset(&rec->controls, 0, sizeof(rec->controls));
	read_controls(&rec->controls, r->control, r->control_len);
	bpf_ringbuf_submit(rec, wakeup());
	return 0;
}

/* Begins the next message of recvmmsg or sendmmsg. */
__attribute__((noinline)) int next_message(__u32 slot)
{
	struct reading *r = reading(slot);
	struct user_mmsghdr m;

	if (!r || !r->message_count || bpf_probe_read_user(&m, sizeof(m), (void *)r->messages))
		return 0;
	r->message_count--;
	r->messages += sizeof(m);
	if (r->head.call == CALL_SENDMMSG) {
		take_buffer(r, &m.hdr);
		r->head.seq += r->head.result; /* behind the message before */
	} else {
		take_received(r, &m.hdr);
	}
	begin_message(r, m.len);
	return 1;
}

/* Goes on to the next part of the buffer. */
__attribute__((noinline)) int next_part(__u32 slot)
{
	struct reading *r = reading(slot);
	struct user_iovec part;

	if (!r || !r->iovs || bpf_probe_read_user(&part, sizeof(part), (void *)r->iov))
		return 0;
	r->iovs--;
	r->iov += sizeof(part);
	r->at = part.base;
	r->left = part.len;
	return 1;
}

/* Records the current message, a piece at a time, and those that follow. Returns whether
 * there is more.
 */
__attribute__((noinline)) int record(__u32 slot)
{
	struct reading *r = reading(slot);
	__u32 n;
	int i;

	if (!r)
		return 0;
	for (i = 0; i < PIECES; i++) {
		if (!r->bytes) {
			if (!next_message(slot))
				return 0;
			record_control(slot);
			if (!r->bytes && !without_effect(r))
				piece(slot, 0);
			continue;
		}
		if (!r->left && !next_part(slot))
			return 0;
		n = PIECE_MAX;
		if (n > r->left)
			n = r->left;
		if (n > r->bytes)
			n = r->bytes;
		if (!n)
			continue;
		piece(slot, n);
		r->head.offset += n;
		r->at += n;
		r->left -= n;
		r->bytes -= n;
	}
	return 1;
}

/* Records all messages of a call. */
__attribute__((noinline)) int record_call(__u32 slot)
{
	struct reading *r = reading(slot);
	int i;

	if (!r)
		return 0;
	if (r->control_len)
		record_control(slot);
	if (!r->bytes && !without_effect(r))
		piece(slot, 0);
	for (i = 0; i < RUNS; i++) {
		if (!record(slot))
			break;
	}
	if (r->bytes || r->message_count)
		truncated();
	return 0;
}

/* Global, so that its loop is verified once. */
__attribute__((noinline)) __u32 nested_pid(__u64 task)
{
	return pid_here((void *)task);
}

static __always_inline struct reading *begin_event(__u32 slot, __u32 call, __s32 fd, __s64 result)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 process = bpf_get_current_pid_tgid();
	struct reading *r = reading(slot);

	if (!r)
		return 0;
	__builtin_memset((void *)r + sizeof(r->registers), 0, sizeof(*r) - sizeof(r->registers));
	r->head.call = call;
	r->head.cpu = bpf_get_smp_processor_id();
	r->head.pid = process >> 32;
	r->head.tid = process;
	if (namespace_inode) {
		r->head.pid = nested_pid((__u64)FIELD(task, group_leader));
		r->head.tid = nested_pid((__u64)task);
	}
	r->head.fd = fd;
	r->head.result = result;
	return r;
}

/* Reads a length that the kernel has stored in the process's memory. */
static __always_inline __u32 length_at(__u64 pointer)
{
	__u32 len = 0;

	if (pointer)
		bpf_probe_read_user(&len, sizeof(len), (void *)pointer);
	return len;
}

/* Takes the buffer, the flags and the sender from a call's arguments. */
static __always_inline void describe_buffer(struct reading *r, __u32 call)
{
	struct user_msghdr h;

	switch (call) {
	case CALL_READ:
	case CALL_RECVFROM:
		r->at = r->arguments[1];
		r->left = r->arguments[2];
		r->head.room = r->left > ROOM_UNKNOWN ? ROOM_UNKNOWN : r->left;
		if (call == CALL_RECVFROM) {
			r->head.flags = r->arguments[3];
			copy_sender(r, r->arguments[4], length_at(r->arguments[5]));
		}
		break;
	case CALL_READV:
	case CALL_PREADV2:
		take_parts(r, r->arguments[1], r->arguments[2]);
		break;
	case CALL_RECVMSG:
		r->head.flags = r->arguments[2];
		if (!bpf_probe_read_user(&h, sizeof(h), (void *)r->arguments[1]))
			take_received(r, &h);
		break;
	case CALL_RECVMMSG:
		r->head.flags = r->arguments[3];
		r->messages = r->arguments[1];
		break;
	case CALL_SPLICE:
		r->head.room = r->arguments[4] > ROOM_UNKNOWN ? ROOM_UNKNOWN : r->arguments[4];
		break;
	case CALL_ZEROCOPY:
		r->head.room = 0;
		break;
	}
}
