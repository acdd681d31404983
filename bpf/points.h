/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * What the programs at system calls find where they run: contexts of tracepoints, registers,
 * arguments.
 */
#pragma once

#include "messages.h"

/* The contexts of the tracepoints of a single system call. */
struct begin_context {
	__u64 common;
	__s32 nr;
	__u32 pad; /* the arguments follow */
};
struct end_context {
	__u64 common;
	__s32 nr;
	__u32 pad;
	__s64 result;
};

/* Copies the arguments at the tracepoint of a call's beginning. The kernel refuses to attach a
 * program that reads more of the context than this system call has arguments, although there
 * is memory for all six. So they are copied with a helper, whose reads are not checked at
 * that time.
 */
static __always_inline int copy_arguments(__u64 arguments[6], struct begin_context *ctx)
{
	return bpf_probe_read_kernel(arguments, 6 * sizeof(arguments[0]), (void *)ctx + sizeof(*ctx));
}

static __always_inline __u64 register_at(__u64 regs, __u32 offset)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)(regs + offset));
	return value;
}

static __always_inline __u32 call_number(__s32 nr)
{
	__u32 n = nr;

	if (n >= NUMBERS)
		return 0;
	asm volatile("" : "+r"(n)); /* otherwise clang may check one register and use another */
	return call_of[n & (NUMBERS - 1)];
}

static __always_inline int load_arguments(__u32 slot, __u64 arguments[6], __u64 regs)
{
	struct reading *r = reading(slot);
	__u32 size = registers_size;
	int i;

	if (!r)
		return -1;
	/* All at once, because each call of the helper costs. */
	if (size > sizeof(r->registers))
		size = sizeof(r->registers);
	if (bpf_probe_read_kernel(r->registers, size, (void *)regs))
		return -1;
#pragma unroll
	for (i = 0; i < 6; i++)
		arguments[i] = r->registers[argument_at[i] / 8 & (REGISTERS_MAX - 1)];
	return 0;
}

/* A kfunc, which tells whether a probed function returns. Go puts in its number: before Linux
 * 7.0 it has no argument, and does not look at this one.
 */
extern _Bool bpf_session_is_return(void *ctx) __weak __ksym;

/* Where the context of a probe, a struct pt_regs, has a function's first argument, and what
 * it returned.
 */
const volatile __u32 parameter_at, returned_at;
