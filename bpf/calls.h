/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * What calls.c records, keeps and counts.
 */
#pragma once

#include "scope.h"

#define NAME_MAX 28	/* a struct sockaddr_in6 */
#define PIECE_MAX 65536 /* bytes of one event */
#define PIECES 48	/* events that one run of a loop makes */
#define RUNS 64		/* of that loop in one call */

#define MSG_OOB 0x01
#define MSG_PEEK 0x02
#define MSG_TRUNC 0x20
#define MSG_ERRQUEUE 0x2000

/* What an event is about. Those up to CALL_ZEROCOPY receive. */
enum call {
	CALL_READ = 1,
	CALL_READV,
	CALL_PREADV2,
	CALL_RECVFROM,
	CALL_RECVMSG,
	CALL_RECVMMSG,
	CALL_SPLICE,   /* its bytes cannot be seen */
	CALL_ZEROCOPY, /* getsockopt that may be TCP_ZEROCOPY_RECEIVE: likewise */
	CALL_SOCKET,   /* these are news of a socket that somebody may want to look at */
	CALL_ACCEPT,
	CALL_BIND,
	CALL_LISTEN,
	CALL_FOUND, /* a socket that nobody has heard of is about to be read */
	CALL_IO_URING, /* there are requests from now on */
};

#define EVENT_SEQ 1	/* seq is known */
#define EVENT_SHORT 2	/* the kernel said that the message was longer than the buffer */
#define EVENT_V6 4	/* local and peer are IPv6 addresses */
#define EVENT_RING 8	/* a request of io_uring did it, and not the system call */
#define EVENT_UNSEEN 16 /* where its bytes are cannot be told */

/* One piece of what one call did; caplen bytes follow, in room of a class. A message of several pieces has them one after the other, with the same tid and
 * time. Native byte order but for addresses.
 */
struct event {
	__u64 time;   /* CLOCK_BOOTTIME, nanoseconds, when the call ended */
	__u64 cookie; /* of the socket, 0 if it has none yet */
	__u64 lost;   /* events that this cpu has lost so far */
	__s64 result; /* of the call, or of one message of recvmmsg */
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
	__u32 seq;    /* TCP's sequence number of the message's first byte */
	__u16 family; /* of the socket: AF_INET, ... */
	__u16 type;
	__u16 protocol;
	__u16 local_port; /* host byte order */
	__u16 peer_port;  /* host byte order */
	__u8 state;	  /* TCP_LISTEN, ... */
	__u8 known;	  /* EVENT_... */
	__u8 local[16];	  /* the socket's own address; IPv4 in the first four bytes */
	__u8 peer[16];
	__u8 comm[16];	  /* news only: what the thread is called, ends with a zero */
	__u32 name_len;
	__u8 name[NAME_MAX]; /* sender's struct sockaddr, as the call returned it */
};

/* One set a cpu. seen == recorded + ring_full + fault, always. */
struct event_counters {
	__u64 seen;	 /* pieces to be recorded */
	__u64 recorded;
	__u64 ring_full;
	__u64 fault;	 /* the process's memory could not be read */
	__u64 truncated; /* messages of which not all was copied: snaplen, too many pieces */
	__u64 forgotten; /* calls whose arguments could not be kept */
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 32 << 20);
	__type(value, struct event); /* puts the layout into BTF for bpf2go */
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct event_counters);
} event_counts SEC(".maps");

/* Which call a system call's number means, 0 for those of no interest. */
#define NUMBERS 1024
const volatile __u8 call_of[NUMBERS];

/* Where struct pt_regs has the number and the arguments of a system call, in bytes. */
const volatile __u32 number_at, registers_size;
const volatile __u32 argument_at[6];

const volatile __u32 message_snaplen = 262144;

/* Whether the reader is woken by the first event after it has read all there were. From
 * Linux 7.0 on, who is woken runs in the middle of the program that wakes it, and the
 * kernel runs no such program for the calls that are made meanwhile.
 */
const volatile __u32 wakes_reader = 1;

/* Which sockets are chosen. */
#define CHOOSE_ALL 0   /* those that take a filter and run it, of a process's own traffic */
#define CHOOSE_PORTS 1 /* those with a port */
#define CHOOSE_KNOWN 2 /* those in known */
const volatile __u32 choose = CHOOSE_ALL;

/* Whether there is news of every new socket, and not of those alone that cannot be
 * marked when they are made.
 */
const volatile __u32 news_of_all = 0;

/* Set when somebody who is followed may have an io_uring. */
__u32 rings;

/* Loads from a context by an offset that is fixed, as the verifier wants it
 * and clang does not make it by itself. */
#define load_at(ctx, offset) \
	({ \
		__u64 value; \
		asm volatile("%0 = *(u64 *)(%1 + " #offset ")" : "=r"(value) : "r"(ctx)); \
		value; \
	})
