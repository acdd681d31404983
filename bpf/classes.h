/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * How much room there is for the bytes behind a record. When the verifier looks at a
 * reservation, its size must be a constant. So there are classes of room: the verifier
 * goes through what comes after once for each of them, and the code is there once.
 */
#pragma once

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

/* Powers of two, and half as much again where packets are frequent. */
static const __u32 classes[] = {
	64, 96, 128, 192, 256, 512, 1024, 1536, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144,
};

#define CLASSES (sizeof(classes) / sizeof(classes[0]))

/* The smallest class with room for n bytes, or the largest of all. */
static __always_inline __u32 class_for(__u32 n)
{
	__u32 class = classes[CLASSES - 1];

#pragma unroll
	for (int i = 0; i < CLASSES; i++) {
		if (n <= classes[i]) {
			class = classes[i];
			break;
		}
	}
	return class;
}

/* n, which is not 0, for a copy into a record of that class. The verifiers of 5.10 and 6.1
 * accept a bound only if they see it computed, in 64 bits, and clang would leave out what
 * it can infer. The caller compares the result with the class: a mask of an odd class is
 * that of the next power of two.
 */
static __always_inline __u64 bounded(__u64 n, __u64 class)
{
	__u64 mask = class - 1;

	mask |= mask >> 1;
	asm volatile("" : "+r"(n));
	return ((n - 1) & mask) + 1;
}
