/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * Ancillary data, as recvmsg leaves it in the process's control buffer: what kind of data
 * there is and how much, but not the data.
 */
#pragma once

#include "calls.h"

#define SOL_UDP 17
#define UDP_GRO 104

/* struct cmsghdr on 64-bit architectures. */
struct user_cmsghdr {
	__u64 len;
	__s32 level;
	__s32 type;
};

/* Reads the headers in a control buffer, as many as there is room for, and from one of
 * UDP_GRO the size of the segments.
 */
static __attribute__((noinline)) void read_controls(struct controls *to, __u64 at, __u64 left)
{
	struct user_cmsghdr h;
	__u64 step;
	int i;

	for (i = 0; i < CONTROLS; i++) {
		if (left < sizeof(h) || bpf_probe_read_user(&h, sizeof(h), (void *)at))
			break;
		if (h.len < sizeof(h) || h.len > left)
			break;
		to->all[i].len = h.len;
		to->all[i].level = h.level;
		to->all[i].type = h.type;
		if (h.level == SOL_UDP && h.type == UDP_GRO && h.len >= sizeof(h) + 4)
			bpf_probe_read_user(&to->segment, 4, (void *)(at + sizeof(h)));
		step = (h.len + 7) & ~7ULL;
		if (step > left)
			step = left; /* the last one is not padded */
		at += step;
		left -= step;
	}
	to->rest = left > 0xffffffff ? 0xffffffff : left;
}
