/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * The few fields of the kernel's structures that are read. Their offsets in the running
 * kernel are filled in when the program is loaded (CO-RE relocations against its BTF).
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define KERNEL __attribute__((preserve_access_index))

struct in6_bytes {
	__u8 bytes[16];
};

struct ns_common {
	__u32 inum;
} KERNEL;
struct pid_namespace {
	struct ns_common ns;
} KERNEL;
struct upid {
	int nr;
	struct pid_namespace *ns;
} KERNEL;
struct pid {
	__u32 level;
	struct upid numbers[1];
} KERNEL;
typedef struct {
	int counter;
} counter_t;
struct signal_struct {
	counter_t live; /* threads that have not ended */
} KERNEL;

struct inode {
	__u16 i_mode;
	unsigned long i_ino; /* of a socket at most 32 bits */
} KERNEL;
struct file {
	struct inode *f_inode;
	void *private_data;
} KERNEL;
struct fdtable {
	__u32 max_fds;
	struct file **fd;
} KERNEL;
struct files_struct {
	struct fdtable *fdt;
} KERNEL;
struct task_struct {
	int pid, tgid;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct signal_struct *signal;
	struct files_struct *files;
} KERNEL;

struct net {
	struct ns_common ns;
} KERNEL;
typedef struct {
	struct net *net;
} net_pointer;
struct sock_common {
	net_pointer skc_net;
	__u16 skc_family;
	__u8 skc_state;
	__u16 skc_dport; /* peer's port, network byte order */
	__u32 skc_rcv_saddr, skc_daddr;
	struct in6_bytes skc_v6_rcv_saddr, skc_v6_daddr;
	struct {
		__s64 counter;
	} skc_cookie;
} KERNEL;
struct sock_fprog_kern {
	__u16 len;
	struct sock_filter *filter;
} KERNEL;
struct bpf_prog_aux {
	__u32 id;
} KERNEL;
struct bpf_prog {
	struct bpf_prog_aux *aux;
	struct sock_fprog_kern *orig_prog; /* the instructions of a classic one */
} KERNEL;
struct sk_filter {
	struct bpf_prog *prog;
} KERNEL;
struct sock {
	struct sock_common __sk_common;
	struct sk_filter *sk_filter;
	struct socket *sk_socket; /* 0 once it is released */
	__u16 sk_type, sk_protocol;
} KERNEL;
struct inet_sock {
	struct sock sk;
	__u16 inet_sport; /* own port, network byte order: unlike skc_num, not cleared when the connection ends */
} KERNEL;
struct socket {
	struct file *file;
	struct sock *sk;
} KERNEL;
struct inet_connection_sock {
	struct inet_sock icsk_inet;
	void *icsk_ulp_ops; /* of the protocol above TCP, such as TLS in the kernel */
} KERNEL;
struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 copied_seq; /* the next byte to be read */
	__u32 rcv_nxt;	  /* the next byte expected from the peer */
	__u32 urg_seq;	  /* the last urgent byte */
	__u32 write_seq;  /* the next byte to be written */
} KERNEL;

/* Reads a field; zero if it cannot be read. */
#define FIELD(from, field) \
	({ \
		typeof((from)->field) value; \
		__builtin_memset(&value, 0, sizeof(value)); \
		bpf_probe_read_kernel(&value, sizeof(value), __builtin_preserve_access_index(&(from)->field)); \
		value; \
	})
