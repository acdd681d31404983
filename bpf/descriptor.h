/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * Finds the socket of a descriptor in the kernel's own tables, at the time of the call.
 * So it does not matter how the process obtained it.
 */
#pragma once

#include "kernel.h"

#define S_IFMT 0170000
#define S_IFSOCK 0140000

/* The socket of a file; 0 if the file is none. */
static __always_inline struct sock *socket_of_file(struct file *file)
{
	struct inode *inode = FIELD(file, f_inode);
	struct socket *socket;

	if ((FIELD(inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = FIELD(file, private_data);
	return FIELD(socket, sk);
}

/* The socket of a descriptor of the current process; 0 if it is none. */
static __always_inline struct sock *socket_of(__s32 fd)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct files_struct *files = FIELD(task, files);
	struct fdtable *table = FIELD(files, fdt);
	struct file **all, *file = 0;

	if ((__u32)fd >= FIELD(table, max_fds))
		return 0;
	all = FIELD(table, fd);
	if (bpf_probe_read_kernel(&file, sizeof(file), all + (__u32)fd) || !file)
		return 0;
	return socket_of_file(file);
}
