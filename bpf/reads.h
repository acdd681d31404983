/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * What reads.c records, keeps and counts.
 */
#pragma once

#define NAME_MAX 28	/* a struct sockaddr_in6 */
#define PIECE_MAX 65536 /* bytes of one record */
#define PIECES 48	/* records of one call */

#define PEEK 0x02 /* MSG_PEEK, which the kernel's headers do not show */

/* What a record is about. */
enum call {
	CALL_READ = 1,
	CALL_READV,
	CALL_RECVFROM,
	CALL_RECVMSG,
	CALL_RECVMMSG,
	CALL_SPLICE, /* its bytes cannot be seen */
	CALL_ACCEPT, /* result is the new descriptor, socket its id, position the listener's id */
	CALL_CLOSE,
	CALL_SOCKET, /* socket, bind, listen or connect: there is something new to look at */
	CALL_FORK,   /* result is the new process */
	CALL_EXEC,
	CALL_IO_URING, /* what comes by that cannot be seen */
	CALL_DUP,      /* dup or fcntl; result is the new descriptor */
};

/* One piece of what one call did; caplen bytes follow, in room for a power of
 * two. A message of several pieces has them one after the other, with the same
 * tid and time. Native byte order but for name[].
 */
struct read {
	__u64 time;	/* CLOCK_BOOTTIME, nanoseconds, when the call ended */
	__u64 socket;	/* id in the table of descriptors */
	__u64 position; /* bytes that earlier calls took from the socket */
	__u64 lost;	/* records that this cpu has lost so far */
	__s64 result;	/* of the call, or of one message of recvmmsg */
	__u32 call;
	__u32 cpu;
	__u32 pid;
	__u32 tid;
	__s32 fd;
	__u32 flags;  /* of the call */
	__u32 wanted; /* bytes of the message that were to be copied, over all its pieces */
	__u32 offset; /* of this piece in the message */
	__u32 caplen;
	__u32 room;   /* size of the buffer, all its parts together as far as they were looked at */
	__u32 name_len;
	__u8 name[NAME_MAX]; /* sender's or peer's struct sockaddr */
};

/* One set a cpu. seen == recorded + ring_full + fault, always. */
struct read_counters {
	__u64 seen;	 /* pieces to be recorded */
	__u64 recorded;
	__u64 ring_full;
	__u64 fault;	 /* the process's memory could not be read */
	__u64 truncated; /* messages of which not all was copied: snaplen, too many pieces */
	__u64 untracked; /* sockets for which the table had no room */
	__u64 forgotten; /* calls whose arguments could not be kept */
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 32 << 20);
	__type(value, struct read); /* puts the layout into BTF for bpf2go */
} read_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct read_counters);
} read_counts SEC(".maps");

/* Where struct pt_regs has the number and the arguments of a system call, in
 * bytes; and the numbers, where there is such a call.
 */
const volatile __u32 number_at, registers_size;
const volatile __u32 argument_at[6];
const volatile __s32 nr_read = -2, nr_readv = -2, nr_recvfrom = -2, nr_recvmsg = -2, nr_recvmmsg = -2, nr_splice = -2;
const volatile __s32 nr_accept = -2, nr_accept4 = -2, nr_close = -2;
const volatile __s32 nr_socket = -2, nr_bind = -2, nr_listen = -2, nr_connect = -2;
const volatile __s32 nr_clone = -2, nr_clone3 = -2, nr_fork = -2, nr_vfork = -2, nr_execve = -2, nr_execveat = -2;
const volatile __s32 nr_io_uring_setup = -2, nr_open = -2, nr_openat = -2;
const volatile __s32 nr_dup = -2, nr_dup2 = -2, nr_dup3 = -2, nr_fcntl = -2;

/* Where the tracepoint of a fork has the child's number. */
const volatile __u32 child_at;

/* The process id namespace that pids are given in; 0 for the first one. */
const volatile __u64 namespace_device, namespace_inode;

const volatile __u32 read_snaplen = 262144;

/* Cleared when nobody reads any more. */
__u32 following = 1;

/* A call in progress, of which a receiving or accepting one is all that matters. */
struct begun_call {
	__s32 nr; /* NOTHING_BEGUN when it is over */
	__u32 pad;
	__u64 arguments[6];
};

#define NOTHING_BEGUN -3

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32); /* thread */
	__type(value, struct begun_call);
} begun SEC(".maps");

/* What the tracepoints of a single system call get. */
struct begin_context {
	__u64 common;
	__s32 nr;
	__u32 pad;
	__u64 arguments[6]; /* as many as the call has */
};
struct end_context {
	__u64 common;
	__s32 nr;
	__u32 pad;
	__s64 result;
};

/* A system call that has ended. Its arguments are in the registers, or were kept
 * when it began.
 */
struct ended_call {
	__u32 slot;
	__s32 nr;
	__s64 result;
	__u64 process; /* and thread */
	__u64 registers;
	struct begun_call *begun;
};

/* From Linux 7.0 on, a process can be preempted in the middle of a tracepoint's
 * program. What runs on the cpu instead finds the program busy, and its call is
 * missed. Therefore a second copy runs after the first one there, and takes
 * what that has not: the first leaves a mark for each thread's call.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32); /* thread */
	__type(value, __u32);
} marks SEC(".maps");

const volatile __u32 twice = 0;
