/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * Which ports are chosen.
 */
#pragma once

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define PORTS_MAX 64

/* Sockets and packets of other ports are of no interest, if there are any here. */
const volatile __u16 ports[PORTS_MAX];
const volatile __u32 port_count;

/* Tells whether the port of one end is chosen, in host byte order. Global, so that the
 * verifier looks at its loop once, and not at all that comes after it once for each way
 * out of it (9,000 instructions, and not 200,000).
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
