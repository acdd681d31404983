/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * Which ports are chosen.
 */
#pragma once

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define PORTS_MAX 64

/* Only sockets and packets of these ports are recorded. Without any, all are. */
const volatile __u16 ports[PORTS_MAX];
const volatile __u32 port_count;

/* Tells whether one of two ports, in host byte order, is chosen. A global function, which is
 * verified by itself: otherwise the verifier goes through the rest of the caller once for
 * each iteration in which the loop can end (200,000 instructions instead of 9,000).
 */
__attribute__((noinline)) int wanted_port(__u16 local, __u16 peer)
{
	int i;

	if (!port_count)
		return 1;
	for (i = 0; i < PORTS_MAX; i++) {
		if (i >= port_count)
			break;
		if (ports[i] == local || ports[i] == peer)
			return 1;
	}
	return 0;
}
