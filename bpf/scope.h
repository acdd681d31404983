/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * Which processes are followed, by their id in the initial pid namespace.
 */
#pragma once

#include <bpf/bpf_core_read.h>
#include "kernel.h"

#define FOLLOWED 1
#define FOLLOWED_NOT_SEEN 2 /* and nobody has looked at its sockets yet */

/* A byte for each possible process id, not 0 if the process is followed. An array and not
 * a hash, because it is created faster and a lookup is inlined.
 */
#define PROCESSES_MAX (4 << 20)
#define PROCESSES_ROW 64

struct process_row {
	__u8 followed[PROCESSES_ROW];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, PROCESSES_MAX / PROCESSES_ROW);
	__type(key, __u32);
	__type(value, struct process_row);
} processes SEC(".maps");

static __always_inline void follow(__u32 process, __u8 yes)
{
	__u32 at = process / PROCESSES_ROW;
	struct process_row *row = bpf_map_lookup_elem(&processes, &at);

	if (row)
		row->followed[process % PROCESSES_ROW] = yes;
}

/* Cleared at the end of the capture. */
__u32 following = 1;

static __always_inline int followed(__u32 process)
{
	__u32 at = process / PROCESSES_ROW;
	struct process_row *row;

	if (!*(volatile __u32 *)&following)
		return 0;
	row = bpf_map_lookup_elem(&processes, &at);
	return row && row->followed[process % PROCESSES_ROW];
}

/* Our pid namespace, 0 if it is the initial one. */
const volatile __u32 namespace_inode;

/* A task's id in our pid namespace; 0 if it is not visible there. */
static __always_inline __u32 pid_here(struct task_struct *task)
{
	struct pid *pid = FIELD(task, thread_pid);
	__u32 level = FIELD(pid, level), i;
	struct upid *numbers = __builtin_preserve_access_index(&pid->numbers[0]);
	struct upid *at;
	struct pid_namespace *ns;

	for (i = 0; i < 32; i++) {
		if (i > level)
			break;
		at = (void *)numbers + i * bpf_core_type_size(struct upid);
		ns = FIELD(at, ns);
		if (FIELD(ns, ns.inum) == namespace_inode)
			return FIELD(at, nr);
	}
	return 0;
}
