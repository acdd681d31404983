/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * What receiving calls returned: a message's bytes, copied in pieces, and its
 * sender.
 */
#pragma once

#include "reads.h"

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
	struct read head;
	__u64 at;    /* in the process's memory: what to copy next */
	__u64 left;  /* bytes of the current buffer */
	__u64 iov;   /* the next part of the buffer */
	__u32 iovs;  /* parts that are left */
	__u32 bytes; /* of the message that are left to copy */
	__u64 taken; /* bytes of the current message, but for peeks */
	__u64 messages; /* the next message of recvmmsg */
	__u32 message_count;
	__u32 pad;
};

/* The call that each program is at. A program does not interrupt itself on a
 * cpu (the kernel counts such a run as missed), so it has the slot to itself.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, struct reading);
} readings SEC(".maps");

#define SLOT_RETURNED 0
#define SLOT_ENTERED 1
#define SLOT_AGAIN 2

static __always_inline void count(__u64 *counter)
{
	__sync_fetch_and_add(counter, 1);
}

static __always_inline struct read_counters *counters(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&read_counts, &zero);
}

static __always_inline struct reading *reading(__u32 slot)
{
	return bpf_map_lookup_elem(&readings, &slot);
}

/* Copies a piece of n bytes, at most class, into the ring. */
static __always_inline void copy(struct reading *r, struct read_counters *c, __u32 n, const __u32 class)
{
	struct read *rec;

	rec = bpf_ringbuf_reserve(&read_ring, sizeof(*rec) + class, 0);
	if (!rec) {
		count(&c->ring_full);
		return;
	}
	r->head.caplen = n;
	r->head.lost = c->ring_full + c->fault;
	*rec = r->head;
	if (n > 0) {
		asm volatile("" : "+r"(n));
		n = ((n - 1) & (class - 1)) + 1;
		if (bpf_probe_read_user(rec + 1, n, (void *)r->at)) {
			bpf_ringbuf_discard(rec, BPF_RB_NO_WAKEUP);
			count(&c->fault);
			return;
		}
	}
	bpf_ringbuf_submit(rec, BPF_RB_NO_WAKEUP);
	count(&c->recorded);
}

/* A function that is not static is verified once and not at each call, which
 * keeps the loop below small; its arguments can be numbers only.
 */
__attribute__((noinline)) int piece(__u32 slot, __u32 n)
{
	struct read_counters *c = counters();
	struct reading *r = reading(slot);

	if (!c || !r)
		return 0;
	if (n > PIECE_MAX)
		return 0;
	count(&c->seen);
	if (n <= 64)
		copy(r, c, n, 64);
	else if (n <= 128)
		copy(r, c, n, 128);
	else if (n <= 256)
		copy(r, c, n, 256);
	else if (n <= 512)
		copy(r, c, n, 512);
	else if (n <= 1024)
		copy(r, c, n, 1024);
	else if (n <= 2048)
		copy(r, c, n, 2048);
	else if (n <= 4096)
		copy(r, c, n, 4096);
	else if (n <= 8192)
		copy(r, c, n, 8192);
	else if (n <= 16384)
		copy(r, c, n, 16384);
	else if (n <= 32768)
		copy(r, c, n, 32768);
	else
		copy(r, c, n, 65536);
	return 0;
}

static __always_inline void truncated(void)
{
	struct read_counters *c = counters();

	if (c)
		count(&c->truncated);
}

/* Begins a message of so many bytes. */
static __always_inline void begin_message(struct reading *r, __s64 result)
{
	r->head.result = result;
	r->head.position += r->taken;
	r->taken = r->head.flags & PEEK ? 0 : result;
	r->head.offset = 0;
	r->head.wanted = 0;
	if (result > 0)
		r->head.wanted = result > read_snaplen ? read_snaplen : result;
	r->bytes = r->head.wanted;
	r->left = 0;
}

static __always_inline void sender(struct reading *r, __u64 name, __u32 len)
{
	r->head.name_len = 0;
	if (!name || len < 2)
		return;
	if (len > NAME_MAX)
		len = NAME_MAX;
	/* A whole one fits into what the caller had room for almost always; if the
	 * page ends behind a shorter one, the shorter one it is.
	 */
	if (!bpf_probe_read_user(r->head.name, NAME_MAX, (void *)name) ||
	    !bpf_probe_read_user(r->head.name, 16, (void *)name))
		r->head.name_len = len;
}

/* Where a message's bytes and its sender are, of a struct msghdr. */
static __always_inline void take_header(struct reading *r, const struct user_msghdr *h)
{
	r->iov = h->iov;
	r->iovs = h->iovlen > 1024 ? 1024 : h->iovlen;
	r->head.room = 0;
	sender(r, h->name, h->namelen);
}

/* Finds the next message of recvmmsg. */
static __always_inline int next_message(struct reading *r)
{
	struct user_mmsghdr m;

	if (!r->message_count || bpf_probe_read_user(&m, sizeof(m), (void *)r->messages))
		return 0;
	r->message_count--;
	r->messages += sizeof(m);
	take_header(r, &m.hdr);
	begin_message(r, m.len);
	return 1;
}

/* Finds the next part of the buffer. */
static __always_inline int next_part(struct reading *r)
{
	struct user_iovec part;

	if (!r->iovs || bpf_probe_read_user(&part, sizeof(part), (void *)r->iov))
		return 0;
	r->iovs--;
	r->iov += sizeof(part);
	r->at = part.base;
	r->left = part.len;
	r->head.room += part.len;
	return 1;
}

/* Records the message that was begun, a piece at a time, and those that follow. */
__attribute__((noinline)) int record(__u32 slot)
{
	struct reading *r = reading(slot);
	__u32 n;
	int i;

	if (!r)
		return 0;
	if (!r->bytes)
		piece(slot, 0);
	for (i = 0; i < PIECES; i++) {
		if (!r->bytes) {
			if (!next_message(r))
				return 0;
			if (!r->bytes)
				piece(slot, 0);
			continue;
		}
		if (!r->left && !next_part(r))
			break;
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
	if (r->bytes || r->message_count)
		truncated();
	return 0;
}

static __always_inline struct reading *begin_call(__u32 slot, __u32 call, __u64 process, __s32 fd, __s64 result)
{
	struct reading *r = reading(slot);

	if (!r)
		return 0;
	__builtin_memset((void *)r + sizeof(r->registers), 0, sizeof(*r) - sizeof(r->registers));
	r->head.time = bpf_ktime_get_boot_ns();
	r->head.call = call;
	r->head.cpu = bpf_get_smp_processor_id();
	r->head.pid = process >> 32;
	r->head.tid = process;
	r->head.fd = fd;
	r->head.result = result;
	return r;
}

/* The length that the kernel wrote to where an argument points. */
static __always_inline __u32 length_at(__u64 pointer)
{
	__u32 len = 0;

	if (pointer)
		bpf_probe_read_user(&len, sizeof(len), (void *)pointer);
	return len;
}

static __always_inline void describe_buffer(struct reading *r, __u32 call)
{
	struct user_msghdr h;

	switch (call) {
	case CALL_READ:
	case CALL_RECVFROM:
		r->at = r->arguments[1];
		r->left = r->arguments[2];
		r->head.room = r->left;
		if (call == CALL_RECVFROM) {
			r->head.flags = r->arguments[3];
			sender(r, r->arguments[4], length_at(r->arguments[5]));
		}
		break;
	case CALL_READV:
		r->iov = r->arguments[1];
		r->iovs = r->arguments[2];
		break;
	case CALL_RECVMSG:
		r->head.flags = r->arguments[2];
		if (!bpf_probe_read_user(&h, sizeof(h), (void *)r->arguments[1]))
			take_header(r, &h);
		break;
	case CALL_RECVMMSG:
		r->head.flags = r->arguments[3];
		r->messages = r->arguments[1];
		break;
	}
}
