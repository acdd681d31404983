/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * What calls.c records, keeps and counts.
 */
#pragma once

#include "scope.h"

#define NAME_MAX 28	/* a struct sockaddr_in6 */
#define PIECE_MAX 65536 /* bytes of one event */
#define PIECES 12	/* events that one run of a loop makes: short loops in long ones are verified sooner */
#define RUNS 256	/* of that loop in one call */

#define MSG_OOB 0x01
#define MSG_PEEK 0x02
#define MSG_TRUNC 0x20
#define MSG_ERRQUEUE 0x2000

/* What an event is about. Up to CALL_ZEROCOPY, calls that receive. */
enum call {
	CALL_READ = 1,
	CALL_READV,
	CALL_PREADV2,
	CALL_RECVFROM,
	CALL_RECVMSG,
	CALL_RECVMMSG,
	CALL_SPLICE,   /* only the length of what it moved is known */
	CALL_ZEROCOPY, /* getsockopt that may be TCP_ZEROCOPY_RECEIVE: likewise */
	CALL_SOCKET,   /* from here on: news of a socket, for userspace to look at */
	CALL_ACCEPT,
	CALL_BIND,
	CALL_LISTEN,
	CALL_FOUND, /* a socket of which there was no news yet is about to be read */
	CALL_IO_URING, /* the process has set up an io_uring */
	CALL_CONTROL, /* not a call: the ancillary data of the message whose event comes next */
	CALL_WRITE, /* from here on: calls that send */
	CALL_WRITEV,
	CALL_PWRITEV2,
	CALL_SENDTO,
	CALL_SENDMSG,
	CALL_SENDMMSG,
	CALL_SENDFILE,	/* only the length of what it moved is known */
	CALL_SPLICE_TO, /* likewise */
};

#define EVENT_SEQ 1	/* seq is known */
#define EVENT_CONTROL 2 /* the message has ancillary data */
#define EVENT_V6 4	/* local and peer are IPv6 addresses */
#define EVENT_RING 8	/* of a request of io_uring, not of a system call */
#define EVENT_UNSEEN 16 /* the bytes could not be located */

/* One piece of what one call did; caplen bytes follow, in room of a class. A message of several pieces has them one after the other, with the same tid and
 * time. Native byte order but for addresses.
 */
struct event {
	__u64 time;   /* CLOCK_BOOTTIME, nanoseconds, when the call ended */
	__u64 began;  /* and when it began, of calls that send */
	__u64 cookie; /* of the socket, 0 if it has none yet */
	__u64 lost;   /* events that this cpu has lost so far */
	__s64 result; /* return value of the call; of recvmmsg and sendmmsg, the length of one message */
	__u16 call;
	__u16 name_len; /* of name */
	__u32 cpu;
	__u32 pid;
	__u32 tid;
	__s32 fd;
	__u32 flags;  /* of the call */
	__u32 wanted; /* bytes of the message to be copied, in all its pieces */
	__u32 offset; /* of this piece in the message */
	__u32 caplen;
	__u32 room;   /* size of the buffer, the sum of its parts; of splice, what it was asked for */
	__u32 seq;    /* TCP's sequence number of the message's first byte */
	__u32 ack;    /* and of the next byte in the other direction */
	__u16 family; /* of the socket: AF_INET, ... */
	__u16 type;
	__u16 protocol;
	__u16 local_port; /* host byte order */
	__u16 peer_port;  /* host byte order */
	__u8 state;	  /* TCP_LISTEN, ... */
	__u8 known;	  /* EVENT_... */
	__u8 local[16];	  /* the socket's own address; IPv4 in the first four bytes, as is a unix stream's inode_of, in native byte order */
	__u8 peer[16];
	__u8 comm[16];	  /* news only: the thread's name, terminated by a zero */
	__u32 msg_flags;  /* as recvmsg and recvmmsg returned them, otherwise 0 */
	__u32 control;	  /* number of the message's CALL_CONTROL, 0 if there is none; see struct controls */
	__u8 name[NAME_MAX]; /* struct sockaddr of the sender, as the call returned it, or of the destination */
};

#define CONTROLS 6 /* that are recorded of one message */

/* What follows an event of CALL_CONTROL. The message's own event comes next of its thread, and
 * has the same number in control, which two messages of a thread on one cpu never have.
 */
struct control {
	__u32 len; /* as in struct cmsghdr, so never 0 */
	__s32 level, type;
};
struct controls {
	__u32 segment; /* size of the segments that UDP_GRO tells of, otherwise 0 */
	__u32 rest;    /* bytes of the control buffer behind those that are here */
	struct control all[CONTROLS];
};

/* One set for each cpu. seen == recorded + ring_full + fault, always. */
struct event_counters {
	__u64 seen;	 /* pieces to be recorded */
	__u64 recorded;
	__u64 ring_full;
	__u64 fault;	 /* the process's memory could not be read */
	__u64 truncated; /* messages that were not copied in full: snaplen, too many pieces */
	__u64 missed;	 /* calls whose arguments could not be stored until their end */
} __attribute__((aligned(64)));

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 32 << 20);
	__type(value, struct event); /* puts the layout into BTF for bpf2go */
} events SEC(".maps");

/* An element for each cpu, mapped like the tap's counts. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* set by Go */
	__type(key, __u32);     /* cpu */
	__type(value, struct event_counters);
} event_counts SEC(".maps");

/* The enum call of each system call by its number, 0 for those that are not followed. */
#define NUMBERS 1024
const volatile __u8 call_of[NUMBERS];

/* Offsets in struct pt_regs of a system call's number and arguments, and its size. */
const volatile __u32 number_at, registers_size;
const volatile __u32 argument_at[6];

const volatile __u32 message_snaplen = 262144;

/* Whether the reader is woken by the first event after it has emptied the ring. From
 * Linux 7.0 on, the reader may preempt the very program that wakes it, and the kernel skips
 * that program for the calls that are made meanwhile.
 */
const volatile __u32 wakes_reader = 1;

/* Which sockets are followed. */
#define CHOOSE_ALL 0   /* internet sockets, and unix ones except streams, which run no filter */
#define CHOOSE_PORTS 1 /* internet sockets with one of ports */
#define CHOOSE_KNOWN 2 /* those in known */
const volatile __u32 choose = CHOOSE_ALL;

/* Whether CHOOSE_ALL has unix streams, too. */
const volatile __u32 unix_streams = 0;

/* Whether there is news of every new socket, or only of those that cannot be marked when
 * they are created.
 */
const volatile __u32 news_of_all = 0;

/* Whether what is received is recorded, or only news of sockets. */
const volatile __u32 records_received = 1;

/* Set when a followed process may use io_uring. */
__u32 rings;

/* Loads from a context at a constant offset. The verifier accepts no other, and clang may
 * compute one otherwise.
 */
#define load_at(ctx, offset) \
	({ \
		__u64 value; \
		asm volatile("%0 = *(u64 *)(%1 + " #offset ")" : "=r"(value) : "r"(ctx)); \
		value; \
	})
