/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * The mark that a followed socket carries.
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* What a marked socket carries. */
struct mark {
	__u64 origin; /* cookie of the socket that was marked itself; others have inherited the mark */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct mark);
} marks SEC(".maps");
