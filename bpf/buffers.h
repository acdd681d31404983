/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * Finds the bytes of a completed request: in the buffer of the request itself, or in
 * provided buffers, of which the kernel picks one when data arrives.
 */
#pragma once

#include "messages.h"
#include "uring.h"

#define REQUEST_PARTS 8 /* a power of two */

struct request {
	__u64 req, ctx, user_data;
	__u64 sk, cookie;
	__u64 addr, len;
	__u32 call;
	__u32 flags; /* MSG_... */
	__u32 pid;
	__s32 fd;
	__u32 name_len, control_len; /* of recvmsg: room for each */
	__u32 inode;		     /* inode_of(sk) */
	__u32 own_inode;	     /* own_inode(sk) */
	__u16 group;
	__u8 opcode;
	__u8 part_count; /* more than REQUEST_PARTS if not all are here */
	__u8 select, bundle, multishot;
	__u8 fixed;  /* uses the ring's table of registered files */
	__u8 unseen; /* its buffer is not known */
	__u8 pad[7];
};

/* The buffer's parts, kept apart since few requests have any. */
struct request_parts {
	struct user_iovec parts[REQUEST_PARTS];
};

/* Where the bytes of a completion were found. */
struct found {
	struct user_iovec parts[REQUEST_PARTS];
	struct buffer_entry entry; /* the last one read */
	__u32 count;
	__u32 more; /* there are more parts than these */
	__u32 at;   /* index of the next part to copy */
	__u32 open; /* the buffer is larger than these parts, nobody knows how large */
};

struct room {
	struct request request;
	struct request_parts parts;
	struct found found;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, struct room);
} rooms SEC(".maps");

static __always_inline struct request *scratch(__u32 slot)
{
	struct room *r = bpf_map_lookup_elem(&rooms, &slot);

	return r ? &r->request : 0;
}

static __always_inline struct request_parts *parts_of(__u32 slot)
{
	struct room *r = bpf_map_lookup_elem(&rooms, &slot);

	return r ? &r->parts : 0;
}

static __always_inline struct found *found(__u32 slot)
{
	struct room *r = bpf_map_lookup_elem(&rooms, &slot);

	return r ? &r->found : 0;
}

/* Finds a buffer group in the ring's table, an XArray. */
static __always_inline struct io_buffer_list *group_of(struct io_ring_ctx *ctx, __u32 group)
{
	struct io_ring_ctx___array *array = (void *)ctx;
	__u64 entry;
	void *next;
	__u32 shift;
	int i;

	if (bpf_core_field_exists(array->io_bl) && group < 64) {
		entry = (__u64)FIELD(array, io_bl);
		if (entry)
			return (void *)(entry + group * bpf_core_type_size(struct io_buffer_list));
	}
	if (!bpf_core_field_exists(ctx->io_bl_xa))
		return 0;
	entry = (__u64)FIELD(ctx, io_bl_xa.xa_head);
#pragma unroll
	for (i = 0; i < 3; i++) {
		struct xa_node *node = (void *)(entry - 2);

		if ((entry & 3) != 2) /* not a node: the entry itself */
			break;
		shift = FIELD(node, shift);
		if (shift > 12 || (!i && group >> shift >= 64))
			return 0;
		next = __builtin_preserve_access_index(&node->slots);
		if (bpf_probe_read_kernel(&entry, sizeof(entry), next + (group >> shift & 63) * 8))
			return 0;
		if (!shift)
			return entry & 3 ? 0 : (void *)entry;
	}
	return group || entry & 3 ? 0 : (void *)entry;
}

/* Not inlined, so that clang cannot move the read before the check: on kernels without the
 * field, its relocation is poisoned.
 */
static __attribute__((noinline)) __u32 flags_of(struct io_buffer_list *list)
{
	if (!bpf_core_field_exists(list->flags))
		return 0;
	return FIELD(list, flags);
}

static __always_inline int is_ring(struct io_buffer_list *list)
{
	struct io_buffer_list___mapped *mapped = (void *)list;

	if (!bpf_core_field_exists(list->buf_ring))
		return 0;
	if (bpf_core_field_exists(list->flags))
		return flags_of(list) & BUFFERS_RING;
	if (bpf_core_field_exists(mapped->is_buf_ring))
		return FIELD(mapped, is_buf_ring);
	return FIELD(list, buf_nr_pages) != 0;
}

static __always_inline int entry_of(struct io_buffer_list *list, __u32 at, struct buffer_entry *e)
{
	struct buffer_entry *ring = (void *)FIELD(list, buf_ring);

	/* Before Linux 6.10, the pages of a ring are not contiguous. */
	if (!bpf_core_field_exists(list->flags) && at >= 256)
		return 0;
	return !bpf_probe_read_kernel(e, sizeof(*e), ring + at);
}

#define SEARCHED 64 /* most buffers that are taken and not completed yet */
#define SEARCHED_AT_ONCE 8

/* Looks for a buffer among some entries before the head, from that one on. Returns how far its
 * entry is before the head, SEARCHED if it is none of them.
 */
__attribute__((noinline)) int taken_among(__u32 slot, __u64 address, __u32 from, __u32 bid)
{
	struct io_buffer_list *list = (void *)address;
	struct found *f = found(slot);
	__u32 head, mask, back, i;

	if (!f || !bpf_core_field_exists(list->buf_ring))
		return SEARCHED;
	head = FIELD(list, head);
	mask = FIELD(list, mask);
	for (i = 0; i < SEARCHED_AT_ONCE; i++) {
		back = from + i;
		if (back > mask + 1 || !entry_of(list, (head - back) & mask, &f->entry))
			break;
		if (f->entry.bid == bid)
			return back;
	}
	return SEARCHED;
}

/* Finds the entry of a provided buffer: the process has not reused it yet, so it is still
 * where the kernel took it from. Returns how far that is before the head. A buffer that is
 * not full stays at the head, and its entry has become the unused rest.
 */
__attribute__((noinline)) int taken_before(__u32 slot, __u64 address, __u32 cflags)
{
	struct io_buffer_list *list = (void *)address;
	struct found *f = found(slot);
	__u32 from, back;

	if (!f || !bpf_core_field_exists(list->buf_ring))
		return SEARCHED;
	if (cflags & CQE_BUFFER_MORE)
		return entry_of(list, FIELD(list, head) & FIELD(list, mask), &f->entry) && f->entry.bid == cflags >> 16 ? 0 : SEARCHED;
	for (from = 1; from < SEARCHED; from += SEARCHED_AT_ONCE) {
		back = taken_among(slot, address, from, cflags >> 16);
		if (back < SEARCHED)
			return back;
	}
	return SEARCHED;
}

/* The buffer of a request from a list: the kernel unlinks it from there when it takes it. */
static __always_inline void find_listed(struct found *f, const struct request *q, __u32 bid)
{
	struct io_ring_ctx___cache *ctx = (void *)q->ctx;
	struct io_kiocb *req = (void *)q->req;
	struct io_buffer *b;

	if (!bpf_core_field_exists(ctx->io_buffers_cache) || !bpf_core_field_exists(req->kbuf))
		return;
	b = FIELD(req, kbuf);
	if (FIELD(b, bid) != bid || FIELD(b, bgid) != q->group)
		return;
	f->parts[0].base = FIELD(b, addr);
	f->parts[0].len = FIELD(b, len);
	f->count = 1;
}

/* Finds the provided buffers that hold n bytes. Global like taken_before, so that their
 * loops are verified once.
 */
__attribute__((noinline)) int find_buffers(__u32 slot, __u32 n, __u32 cflags)
{
	struct request *q = scratch(slot);
	struct found *f = found(slot);
	struct io_buffer_list *list;
	__u32 back, head, i;

	if (!q || !f)
		return 0;
	list = group_of((void *)q->ctx, q->group);
	if (!list || !is_ring(list)) {
		find_listed(f, q, cflags >> 16);
		return 0;
	}
	back = taken_before(slot, (__u64)list, cflags);
	if (back >= SEARCHED)
		return 0;
	f->count = 1;
	f->parts[0].base = f->entry.addr;
	f->parts[0].len = f->entry.len ? f->entry.len : n;
	if (cflags & CQE_BUFFER_MORE) {
		/* The entry is the unused rest of the buffer, so the bytes are just before it,
		 * unless another completion has used more of it meanwhile. Only a multishot
		 * request posts each completion at once.
		 */
		f->count = q->multishot && !q->bundle;
		f->open = 1;
		f->parts[0].base = f->entry.addr - n;
		f->parts[0].len = n;
		return 0;
	}
	if (!q->bundle)
		return 0;
	head = FIELD(list, head) - back;
	for (i = 1; i < REQUEST_PARTS; i++) {
		if (f->entry.len >= n)
			return 0;
		n -= f->entry.len;
		if (!entry_of(list, (head + i) & FIELD(list, mask), &f->entry))
			break;
		f->parts[i].base = f->entry.addr;
		f->parts[i].len = f->entry.len;
		f->count = i + 1;
	}
	f->more = 1;
	return 0;
}

/* Goes on to the next part that was found. Global like room_found: old verifiers would
 * follow every path through both in each iteration of the loop.
 */
__attribute__((noinline)) int take_found(__u32 slot)
{
	struct reading *r = reading(slot);
	struct found *f = found(slot);
	__u32 at;

	if (!r || !f)
		return 0;
	at = f->at;
	if (at >= REQUEST_PARTS || at >= f->count)
		return 0;
	asm volatile("" : "+r"(at)); /* as in call_number */
	r->at = f->parts[at & (REQUEST_PARTS - 1)].base;
	r->left = f->parts[at & (REQUEST_PARTS - 1)].len;
	f->at = at + 1;
	return 1;
}

/* The size of all parts that were found. */
__attribute__((noinline)) __u32 room_found(__u32 slot)
{
	struct found *f = found(slot);
	__u64 room = 0;
	__u32 i;

	if (!f)
		return 0;
	for (i = 0; i < REQUEST_PARTS; i++) {
		if (i >= f->count)
			break;
		room += f->parts[i].len;
	}
	return room > 0x7fffffff ? 0x7fffffff : room;
}

/* Begins a message of n bytes in the parts that were found. */
static __always_inline void begin_found(struct reading *r, struct found *f, __u32 room, __u32 n)
{
	__s64 size = r->head.result; /* of recvmsg, the length of a message that did not fit */

	if (!f->count && n)
		r->head.known |= EVENT_UNSEEN;
	if (f->more && n > room) {
		n = room;
		truncated();
	}
	r->head.room = room;
	if (r->head.flags & MSG_TRUNC && r->head.type == SOCK_STREAM) {
		r->head.room = 0; /* the bytes were discarded */
		r->head.known &= ~EVENT_UNSEEN;
	}
	begin_message(r, n);
	if (f->open || f->more)
		r->head.room = ROOM_UNKNOWN;
	r->head.result = size;
	f->at = 0;
}

/* Records the bytes of the current message, a piece at a time. */
__attribute__((noinline)) int record_pieces(__u32 slot)
{
	struct reading *r = reading(slot);
	__u32 n;
	int i;

	if (!r)
		return 0;
	for (i = 0; i < PIECES; i++) {
		/* Values that registers hold from the iteration before would make each path
		 * through it a state of its own for old verifiers.
		 */
		asm volatile("" : : : "memory");
		if (!r->bytes || (!r->left && !take_found(slot)))
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
	return 0;
}

/* Records a message of n bytes in the parts that were found. */
__attribute__((noinline)) int record_found(__u32 slot, __u32 n)
{
	struct reading *r = reading(slot);
	struct found *f = found(slot);

	if (!r || !f)
		return 0;
	begin_found(r, f, room_found(slot), n);
	if (r->bytes)
		record_pieces(slot);
	else if (!without_effect(r))
		piece(slot, 0);
	if (r->bytes)
		truncated();
	return 0;
}
