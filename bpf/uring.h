/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * Requests of io_uring: the submission queue entry, which is the same on all kernels,
 * and the kernel's own structures, which its BTF describes.
 */
#pragma once

#include "kernel.h"

/* The beginning of a submission queue entry. */
#define SQE_SIZE 64
struct sqe {
	__u8 opcode;
	__u8 flags;
	__u16 ioprio; /* flags of receiving requests */
	__s32 fd;
	__u64 off;
	__u64 addr;
	__u32 len;
	__u32 op_flags;
	__u64 user_data;
	__u16 buf_group;
	__u16 personality;
	__s32 other_fd; /* of splice: the descriptor to read; of others: index for the new one in the table */
};

/* A completion queue entry, for kernels whose tracepoint has its address. */
struct cqe {
	__u64 user_data;
	__s32 res;
	__u32 flags;
};

enum {
	OP_READV = 1,
	OP_READ_FIXED = 4,
	OP_RECVMSG = 10,
	OP_ACCEPT = 13,
	OP_READ = 22,
	OP_RECV = 27,
	OP_SPLICE = 30,
	OP_SOCKET = 45,
	OP_READ_MULTISHOT = 49,
	OP_BIND = 56,
	OP_LISTEN = 57,
	OP_RECV_ZC = 58,
	OP_READV_FIXED = 60,
};

#define SQE_FIXED_FILE 0x01
#define SQE_BUFFER_SELECT 0x20
#define RECV_MULTISHOT 0x02 /* ioprio */
#define RECV_BUNDLE 0x10
#define SPLICE_FD_IN_FIXED 0x80000000
#define SETUP_SQE128 0x400

#define CQE_BUFFER 0x01	     /* a provided buffer was used; its id is in the upper 16 bits */
#define CQE_MORE 0x02	     /* the request will post more completions */
#define CQE_BUFFER_MORE 0x10 /* the provided buffer has an unused rest */

struct buffer_entry {
	__u64 addr;
	__u32 len;
	__u16 bid;
	__u16 tail; /* of the ring, in the first entry */
};

struct xa_node {
	__u8 shift;
	void *slots[64];
} KERNEL;
struct xarray {
	void *xa_head;
} KERNEL;

/* A group of provided buffers: a ring, or a list. */
struct io_uring_buf_ring;
struct io_buffer_list {
	struct io_uring_buf_ring *buf_ring;
	__u16 buf_nr_pages; /* not 0 for a ring, on kernels without flags */
	__u16 head, mask;
	__u16 flags;
} KERNEL;
struct io_buffer_list___mapped { /* Linux 6.4 to 6.11 */
	__u8 is_buf_ring;
} KERNEL;
#define BUFFERS_RING 1 /* flags */
struct io_buffer {
	__u64 addr;
	__u32 len;
	__u16 bid, bgid;
} KERNEL;

struct io_rsrc_node {
	__u64 file_ptr;
} KERNEL;
struct io_rsrc_data {
	__u32 nr;
	struct io_rsrc_node **nodes;
} KERNEL;
struct io_file_table {
	struct io_rsrc_data data;
} KERNEL;
struct io_fixed_file___before {
	__u64 file_ptr;
} KERNEL;
struct io_file_table___before { /* up to Linux 6.12 */
	struct io_fixed_file___before *files;
} KERNEL;

struct io_ring_ctx {
	__u32 flags;
	__u32 *sq_array;
	struct sqe *sq_sqes;
	__u32 cached_sq_head, sq_entries;
	struct io_file_table file_table;
	struct xarray io_bl_xa;
} KERNEL;
struct io_ring_ctx___before { /* up to Linux 6.12 */
	struct io_file_table___before file_table;
	__u32 nr_user_files;
} KERNEL;
struct io_ring_ctx___array { /* before Linux 6.9, for the first 64 groups */
	struct io_buffer_list *io_bl;
} KERNEL;
struct io_ring_ctx___cache { /* kernels where a buffer taken from a list stays intact */
	struct {
		void *next;
	} io_buffers_cache;
} KERNEL;

struct io_cqe {
	__u64 user_data;
} KERNEL;
struct io_uring_task {
	struct task_struct *task;
} KERNEL;
struct io_kiocb {
	struct file *file;
	__u8 opcode;
	__u16 buf_index;
	__u64 flags;
	struct io_ring_ctx *ctx;
	struct io_cqe cqe;
	struct io_uring_task *tctx;
	struct io_buffer *kbuf;
} KERNEL;
struct io_kiocb___before { /* up to Linux 5.18 */
	__u64 user_data;
} KERNEL;
struct io_kiocb___task { /* up to Linux 6.12 */
	struct task_struct *task;
} KERNEL;
struct io_sr_msg {
	void *buf;
	__u32 len, done_io;
	__u32 msg_flags;
	__u16 flags, buf_group;
} KERNEL;
struct io_sr_msg___before { /* kernels where only multishot requests set buf_group, such as 6.12 */
	__u16 addr_len;
} KERNEL;
