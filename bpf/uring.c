//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Records what other processes receive by io_uring. A request is read when the kernel takes
// it from the submission queue, because the process may reuse the entry afterwards, and what
// it brought is recorded when its completion is posted.

#include "news.h"
#include "places.h"
#include "buffers.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The index of each argument of this kernel's tracepoints; NOWHERE if there is none. */
#define NOWHERE 12
const volatile __u32 submit_req = NOWHERE;
const volatile __u32 complete_ctx = NOWHERE, complete_req = NOWHERE, complete_cqe = NOWHERE;
const volatile __u32 complete_user_data = NOWHERE, complete_res = NOWHERE, complete_cflags = NOWHERE;

/* An argument of the tracepoint. Contexts are read at constant offsets: the verifier removes
 * all cases but one.
 */
static __always_inline __u64 argument(struct bpf_raw_tracepoint_args *ctx, const __u32 at)
{
	switch (at) {
	case 0:
		return load_at(ctx, 0);
	case 1:
		return load_at(ctx, 8);
	case 2:
		return load_at(ctx, 16);
	case 3:
		return load_at(ctx, 24);
	case 4:
		return load_at(ctx, 32);
	}
	return 0;
}

/* A request is found by its address, or where the tracepoint has no address, by ring and
 * user_data.
 */
struct request_key {
	__u64 object, tag;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384); /* two for each request in progress */
	__type(key, struct request_key);
	__type(value, struct request);
} requests SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct request_key);
	__type(value, struct request_parts);
} vectors SEC(".maps");

static __always_inline int has_parts(const struct request *q)
{
	return (q->opcode == OP_READV || q->opcode == OP_READV_FIXED || q->opcode == OP_RECVMSG) && !q->select;
}

static __always_inline int multishot(const struct sqe *s)
{
	return s->opcode == OP_READ_MULTISHOT || s->opcode == OP_RECV_ZC ||
	       (s->opcode == OP_ACCEPT && s->ioprio & 1) ||
	       ((s->opcode == OP_RECV || s->opcode == OP_RECVMSG) && s->ioprio & RECV_MULTISHOT);
}

/* The system call that a request corresponds to; 0 if it is not followed. */
static __always_inline __u32 call_of_request(__u8 opcode)
{
	switch (opcode) {
	case OP_READ:
	case OP_READ_FIXED:
	case OP_READ_MULTISHOT:
		return CALL_READ;
	case OP_READV:
	case OP_READV_FIXED:
		return CALL_READV;
	case OP_RECV:
		return CALL_RECVFROM;
	case OP_RECVMSG:
		return CALL_RECVMSG;
	case OP_SPLICE:
		return CALL_SPLICE;
	case OP_RECV_ZC:
		return CALL_ZEROCOPY;
	case OP_ACCEPT:
		return CALL_ACCEPT;
	case OP_SOCKET:
		return CALL_SOCKET;
	case OP_BIND:
		return CALL_BIND;
	case OP_LISTEN:
		return CALL_LISTEN;
	}
	return 0;
}

static __always_inline __u64 user_data_of(struct io_kiocb *req)
{
	struct io_kiocb___before *before = (void *)req;

	if (bpf_core_field_exists(before->user_data))
		return FIELD(before, user_data);
	return FIELD(req, cqe.user_data);
}

/* Reads the submission queue entry of a request, if it is still there. */
static __always_inline int read_sqe(struct io_ring_ctx *ctx, struct io_kiocb *req, struct sqe *s)
{
	__u32 head = FIELD(ctx, cached_sq_head) - 1, *order = FIELD(ctx, sq_array);
	void *all = FIELD(ctx, sq_sqes);
	__u32 at = head & (FIELD(ctx, sq_entries) - 1);

	if (order && bpf_probe_read_kernel(&at, sizeof(at), order + at))
		return 0;
	if (FIELD(ctx, flags) & SETUP_SQE128)
		at *= 2;
	return !bpf_probe_read_kernel(s, sizeof(*s), all + (__u64)at * SQE_SIZE) && s->opcode == FIELD(req, opcode) &&
	       s->user_data == user_data_of(req);
}

/* The socket at an index of the ring's table of registered files; 0 if it is none. */
static __always_inline struct sock *registered(struct io_ring_ctx *ctx, __u32 at)
{
	struct io_ring_ctx___before *before = (void *)ctx;
	struct io_fixed_file___before *files;
	struct io_rsrc_node **nodes, *node = 0;
	__u64 file = 0;

	if (bpf_core_field_exists(before->file_table.files)) {
		if (at >= FIELD(before, nr_user_files))
			return 0;
		files = FIELD(before, file_table.files);
		bpf_probe_read_kernel(&file, sizeof(file), (void *)files + at * bpf_core_type_size(struct io_fixed_file___before));
	} else {
		if (at >= FIELD(ctx, file_table.data.nr))
			return 0;
		nodes = FIELD(ctx, file_table.data.nodes);
		if (bpf_probe_read_kernel(&node, sizeof(node), nodes + at) || !node)
			return 0;
		file = FIELD(node, file_ptr);
	}
	return socket_of_file((void *)(file & ~7ULL)); /* the low bits are flags */
}

static __always_inline struct sock *socket_of_request(struct io_ring_ctx *ctx, const struct sqe *s)
{
	if (s->opcode == OP_SPLICE)
		return s->op_flags & SPLICE_FD_IN_FIXED ? registered(ctx, s->other_fd) : socket_of(s->other_fd);
	return s->flags & SQE_FIXED_FILE ? registered(ctx, s->fd) : socket_of(s->fd);
}

/* Copies the struct msghdr or iovecs of a request, which the process may reuse as soon as
 * the request is submitted.
 */
static __always_inline void keep_parts(__u32 slot, struct request *q)
{
	struct request_key key = {q->ctx, q->user_data};
	struct request_parts *p = parts_of(slot);
	struct user_msghdr h;
	__u64 iov = q->addr, n = q->len;

	if (q->opcode == OP_RECVMSG) {
		if (bpf_probe_read_user(&h, sizeof(h), (void *)q->addr))
			return;
		q->name_len = h.namelen;
		q->control_len = h.controllen;
		iov = h.iov;
		n = h.iovlen;
	}
	if (!has_parts(q))
		return;
	q->part_count = n > REQUEST_PARTS ? REQUEST_PARTS + 1 : n;
	if (n > REQUEST_PARTS)
		n = REQUEST_PARTS;
	if (complete_req != NOWHERE) {
		key.object = q->req;
		key.tag = 0;
	}
	if (p && n && !bpf_probe_read_user(p->parts, n * sizeof(p->parts[0]), (void *)iov))
		bpf_map_update_elem(&vectors, &key, p, BPF_ANY);
}

static __always_inline void keep(struct request *q)
{
	struct request_key key = {q->ctx, q->user_data};
	struct event_counters *c;
	int failed;

	failed = bpf_map_update_elem(&requests, &key, q, BPF_ANY);
	if (complete_req != NOWHERE) {
		key.object = q->req;
		key.tag = 0;
		failed |= bpf_map_update_elem(&requests, &key, q, BPF_ANY);
	}
	c = failed ? counters() : 0;
	if (c)
		count(&c->missed);
}

SEC("raw_tp/io_uring_submit")
int submitted(struct bpf_raw_tracepoint_args *args)
{
	struct io_kiocb *req = (void *)argument(args, submit_req);
	__u32 process = bpf_get_current_pid_tgid() >> 32;
	struct io_ring_ctx *ctx;
	struct request *q;
	struct sock *sk = 0;
	struct sqe s = {};
	__u32 call;

	if (!followed(process))
		return 0;
	call = call_of_request(FIELD(req, opcode));
	q = scratch(SLOT_ENTERED);
	if (!call || !q)
		return 0;
	ctx = FIELD(req, ctx);
	if (!read_sqe(ctx, req, &s))
		return 0;
	if (call != CALL_SOCKET) {
		sk = socket_of_request(ctx, &s);
		if (!sk || (call <= CALL_ZEROCOPY && !chosen(sk)))
			return 0;
	}
	if (call <= CALL_ZEROCOPY && !records_received) {
		announce_unknown(SLOT_ENTERED, sk, cookie_of(sk), s.opcode == OP_SPLICE ? s.other_fd : s.fd);
		return 0;
	}
	__builtin_memset(q, 0, sizeof(*q));
	q->req = (__u64)req;
	q->ctx = (__u64)ctx;
	q->user_data = s.user_data;
	q->opcode = s.opcode;
	q->call = call;
	q->pid = namespace_inode ? nested_pid((__u64)FIELD((struct task_struct *)bpf_get_current_task(), group_leader)) : process;
	q->fd = s.opcode == OP_SPLICE ? s.other_fd : s.fd;
	q->sk = (__u64)sk;
	q->multishot = multishot(&s);
	q->fixed = s.flags & SQE_FIXED_FILE || (call > CALL_ZEROCOPY && s.other_fd);
	if (call <= CALL_ZEROCOPY) {
		q->cookie = cookie_of(sk);
		q->inode = inode_of(sk);
		q->own_inode = own_inode(sk);
		q->select = !!(s.flags & SQE_BUFFER_SELECT);
		q->bundle = s.opcode == OP_RECV && s.ioprio & RECV_BUNDLE;
		q->group = s.buf_group;
		q->flags = s.opcode == OP_RECV || s.opcode == OP_RECVMSG ? s.op_flags : 0;
		q->addr = s.addr;
		q->len = s.len;
		keep_parts(SLOT_ENTERED, q);
		begin_place(sk, q->own_inode);
		announce_unknown(SLOT_ENTERED, sk, q->cookie, q->fd);
	}
	if (call == CALL_ACCEPT)
		begins_to_accept(SLOT_ENTERED, sk, q->fd);
	keep(q);
	return 0;
}

/* The steps of a completion are global functions, each verified once: inlined, they would
 * have too many paths for old verifiers.
 */

/* Finds where a completion's bytes are. */
__attribute__((noinline)) int find_bytes(__u32 slot, __u32 n, __u32 cflags)
{
	struct request *q = scratch(slot);
	struct found *f = found(slot);
	struct request_parts *p;
	struct request_key key;

	if (!q || !f)
		return 0;
	f->count = 0;
	f->more = 0;
	f->open = 0;
	if (q->select) {
		if (cflags & CQE_BUFFER)
			find_buffers(slot, n, cflags);
		else
			f->open = 1; /* the kernel took none: there was nothing to put in it */
		return 0;
	}
	if (has_parts(q)) {
		key.object = complete_req != NOWHERE ? q->req : q->ctx;
		key.tag = complete_req != NOWHERE ? 0 : q->user_data;
		if (!q->part_count && !q->unseen)
			return 0; /* it has no parts */
		p = bpf_map_lookup_elem(&vectors, &key);
		if (!p) {
			f->open = 1;
			return 0;
		}
		__builtin_memcpy(f->parts, p->parts, sizeof(f->parts));
		f->more = q->part_count > REQUEST_PARTS;
		f->count = f->more ? REQUEST_PARTS : q->part_count;
		return 0;
	}
	if (q->call >= CALL_SPLICE || q->unseen) {
		f->open = 1;
		return 0;
	}
	f->parts[0].base = q->addr;
	f->parts[0].len = q->len;
	f->count = 1;
	return 0;
}

/* What a multishot recvmsg writes in front of the bytes in a provided buffer. */
struct message_out {
	__u32 namelen, controllen, payloadlen, flags;
};

/* Parses that, and returns how many bytes of the message follow. */
__attribute__((noinline)) __u32 take_message_out(__u32 slot, __u32 n)
{
	struct request *q = scratch(slot);
	struct reading *r = reading(slot);
	struct found *f = found(slot);
	struct message_out out;
	__u32 before, len;
	__u64 base;

	if (!q || !r || !f)
		return 0;
	before = sizeof(out) + q->name_len + q->control_len;
	base = f->parts[0].base;
	if (!f->count || n < before || bpf_probe_read_user(&out, sizeof(out), (void *)base)) {
		f->count = 0;
		return n;
	}
	len = out.namelen;
	if (len > q->name_len)
		len = q->name_len;
	copy_sender(r, base + sizeof(out), len);
	len = out.controllen;
	if (len > q->control_len)
		len = q->control_len;
	take_ancillary(r, out.flags, base + sizeof(out) + q->name_len, len);
	r->head.result = out.payloadlen;
	f->parts[0].base = base + before;
	if (f->parts[0].len >= n)
		f->parts[0].len -= before;
	else
		f->parts[0].len = n - before;
	return n - before;
}

/* Reads the struct msghdr that recvmsg has filled in. */
__attribute__((noinline)) int take_message(__u32 slot)
{
	struct request *q = scratch(slot);
	struct reading *r = reading(slot);
	struct user_msghdr h;

	if (!q || !r || bpf_probe_read_user(&h, sizeof(h), (void *)q->addr))
		return 0;
	copy_sender(r, h.name, h.namelen);
	take_ancillary(r, h.flags, h.control, h.controllen);
	return 0;
}

/* Describes the socket of a completion, and sets its sequence number. */
__attribute__((noinline)) int place_completion(__u32 slot, __s32 res)
{
	struct request *q = scratch(slot);
	struct reading *r = reading(slot);
	struct sock *sk;

	if (!q || !r)
		return 0;
	sk = (void *)q->sk;
	describe_socket(&r->head, sk);
	if (forget_other(&r->head, q->cookie, q->inode, EVENT_RING))
		return 0;
	if (res >= 0 && find_place(sk, q->own_inode, res, q->flags & (MSG_PEEK | MSG_OOB), &r->head.seq))
		r->head.known |= EVENT_SEQ;
	return 0;
}

/* Records what a request brought, or how it failed. */
__attribute__((noinline)) int done(__u32 slot, __s32 res, __u32 cflags)
{
	struct request *q = scratch(slot);
	struct reading *r;
	__u32 n = res;

	if (!q)
		return 0;
	r = begin_event(slot, q->call, q->fd, res);
	if (!r)
		return 0;
	r->head.pid = q->pid;
	r->head.flags = q->flags;
	r->head.known |= EVENT_RING;
	if (q->flags & MSG_ERRQUEUE)
		return 0; /* an error message, no data */
	place_completion(slot, res);
	if (res < 0) {
		piece(slot, 0);
		return 0;
	}
	find_bytes(slot, n, cflags);
	if (q->opcode == OP_RECVMSG && q->multishot)
		n = take_message_out(slot, n);
	else if (q->opcode == OP_RECVMSG)
		take_message(slot);
	record_control(slot);
	record_found(slot, n);
	return 0;
}

static __always_inline int completed(__u32 slot, struct request_key *key, __u64 user_data, __s32 res, __u32 cflags)
{
	struct request *q, *all;

	all = bpf_map_lookup_elem(&requests, key);
	if (!all || all->user_data != user_data)
		return 0;
	q = scratch(slot);
	if (!q)
		return 0;
	*q = *all;
	if (!(cflags & CQE_MORE)) {
		key->object = q->req;
		key->tag = 0;
		bpf_map_delete_elem(&requests, key);
		key->object = q->ctx;
		key->tag = q->user_data;
		bpf_map_delete_elem(&requests, key);
	}
	if (ignored(res) || res == -ECANCELED || res == -ENOBUFS)
		return 0;
	if (q->opcode == OP_SPLICE && !q->len)
		return 0; /* as without_effect */
	if (q->call <= CALL_ZEROCOPY)
		return done(slot, res, cflags);
	if (res < 0 || q->fixed)
		return 0;
	if (q->call == CALL_ACCEPT)
		return accepted(slot, (void *)q->sk, res);
	return announce_chosen(slot, q->call, q->call == CALL_SOCKET ? res : q->fd);
}

SEC("raw_tp/io_uring_complete")
int completes(struct bpf_raw_tracepoint_args *args)
{
	struct request_key key = {argument(args, complete_req), 0};
	struct cqe c = {};

	if (!*(volatile __u32 *)&following)
		return 0;
	if (complete_cqe != NOWHERE) {
		if (bpf_probe_read_kernel(&c, sizeof(c), (void *)argument(args, complete_cqe)))
			return 0;
	} else {
		c.user_data = argument(args, complete_user_data);
		c.res = argument(args, complete_res);
		c.flags = argument(args, complete_cflags);
	}
	if (!key.object) {
		key.object = argument(args, complete_ctx);
		key.tag = c.user_data;
	}
	return completed(SLOT_RETURNED, &key, c.user_data, c.res, c.flags);
}

/* A completion that finds the completion queue full goes to an overflow list, and is not
 * reported by the other tracepoint.
 */
SEC("raw_tp/io_uring_cqe_overflow")
int overflows(struct bpf_raw_tracepoint_args *args)
{
	struct request_key key = {args->args[0], args->args[1]};

	if (!*(volatile __u32 *)&following)
		return 0;
	return completed(SLOT_AGAIN, &key, args->args[1], args->args[2], args->args[3]);
}

static __always_inline __u32 process_of(struct io_kiocb *req)
{
	struct io_kiocb___task *old = (void *)req;
	struct io_uring_task *tctx;
	struct task_struct *task;

	if (bpf_core_field_exists(old->task)) {
		task = FIELD(old, task);
	} else {
		tctx = FIELD(req, tctx);
		task = FIELD(tctx, task);
	}
	return FIELD(task, tgid);
}

/* A request that is older than the capture is noted when it is woken. That can happen in any
 * context, so the process's memory cannot be read here.
 */
SEC("raw_tp/io_uring_task_add")
int woken(struct bpf_raw_tracepoint_args *args)
{
	struct io_kiocb *req = (void *)args->args[0];
	struct io_sr_msg___before *before = (void *)req;
	struct io_sr_msg *m = (void *)req;
	struct request_key key = {(__u64)req, 0};
	struct request fresh = {}, *old;
	struct sock *sk;
	__u32 flags;

	if (!records_received || !*(volatile __u32 *)&following)
		return 0;
	fresh.opcode = FIELD(req, opcode);
	if (fresh.opcode != OP_RECV && fresh.opcode != OP_RECVMSG)
		return 0;
	fresh.pid = process_of(req);
	if (!followed(fresh.pid))
		return 0;
	fresh.user_data = user_data_of(req);
	old = bpf_map_lookup_elem(&requests, &key);
	if (old && old->user_data == fresh.user_data)
		return 0;
	sk = socket_of_file(FIELD(req, file));
	if (!sk || !chosen(sk))
		return 0;
	if (namespace_inode)
		fresh.pid = 0;
	fresh.req = (__u64)req;
	fresh.ctx = (__u64)FIELD(req, ctx);
	fresh.call = call_of_request(fresh.opcode);
	fresh.fd = -1;
	fresh.sk = (__u64)sk;
	fresh.cookie = cookie_of(sk);
	fresh.inode = inode_of(sk);
	fresh.own_inode = own_inode(sk);
	fresh.select = !!(FIELD(req, flags) & SQE_BUFFER_SELECT);
	flags = FIELD(m, flags);
	fresh.multishot = !!(flags & RECV_MULTISHOT);
	if (!fresh.multishot && bpf_core_field_exists(before->addr_len))
		fresh.group = FIELD(req, buf_index);
	else
		fresh.group = FIELD(m, buf_group);
	fresh.bundle = !!(flags & RECV_BUNDLE);
	fresh.flags = FIELD(m, msg_flags);
	fresh.addr = (__u64)FIELD(m, buf) - FIELD(m, done_io);
	fresh.len = FIELD(m, len) + FIELD(m, done_io);
	fresh.unseen = fresh.opcode == OP_RECVMSG;
	keep(&fresh);
	return 0;
}
