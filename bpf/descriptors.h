/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * Which descriptor of which process is which socket, and how far each socket is
 * read.
 */
#pragma once

struct descriptor {
	__u32 pid;
	__s32 fd;
};

struct watched_socket {
	__u64 id;
	__u32 closed;	/* in a child: not inherited, or something else by now */
	__u32 since;	/* forks of the process before it had this descriptor */
};

struct watched_process {
	__u32 parent; /* whose descriptors it began with, 0 for none */
	__u32 born;   /* the how manieth child of its parent it is */
	__u32 forks;  /* children so far */
};

/* A descriptor that a process has closed, and children of it may have. */
struct left_descriptor {
	__u32 pid;
	__s32 fd;
	__u32 forks; /* of the process before it closed the descriptor */
};

#define LEFT_TRIES 32 /* younger siblings that may come before a child is looked at */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32); /* process */
	__type(value, struct watched_process);
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct descriptor);
	__type(value, struct watched_socket);
} descriptors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct left_descriptor);
	__type(value, struct watched_socket);
} left_descriptors SEC(".maps");

/* Bytes taken from each socket, by its id, since its first call: whoever has a
 * descriptor of it goes on where the others are.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u64);
} positions SEC(".maps");

/* Set when a watched process forks, or becomes another program: until then each
 * descriptor is what it was said to be.
 */
__u32 inheriting = 0;

/* Finds what a child has of its parent's: what the parent had when it forked. It
 * may have closed it since, and have another socket under the same number.
 */
static __attribute__((noinline)) struct watched_socket *inherited(const struct watched_process *w, __s32 fd)
{
	struct left_descriptor left = {.pid = w->parent, .fd = fd, .forks = w->born};
	struct descriptor key = {.pid = w->parent, .fd = fd};
	struct watched_socket *s;
	__u32 born = w->born;
	int i;

	s = bpf_map_lookup_elem(&descriptors, &key);
	if (s && !s->closed && s->since < born)
		return s;
	for (i = 0; i < LEFT_TRIES; i++) {
		s = bpf_map_lookup_elem(&left_descriptors, &left);
		if (s)
			return s->since < born ? s : 0;
		left.forks++;
	}
	return 0;
}

/* Finds a descriptor's socket, also one that was inherited a moment ago. */
static __always_inline struct watched_socket *find(__u32 pid, __s32 fd, const struct watched_process *w)
{
	struct descriptor key = {.pid = pid, .fd = fd};
	struct watched_socket *s;

	s = bpf_map_lookup_elem(&descriptors, &key);
	if (s)
		return s->closed ? 0 : s;
	return w->parent ? inherited(w, fd) : 0;
}

/* Forgets a descriptor that means nothing any more, or something else, but for the
 * children that have it still.
 */
static __always_inline void leave(const struct descriptor *key, const struct watched_process *w)
{
	struct left_descriptor left = {.pid = key->pid, .fd = key->fd, .forks = w->forks};
	struct watched_socket none = {.closed = 1};
	struct watched_socket *s;

	s = bpf_map_lookup_elem(&descriptors, key);
	if (s && !s->closed && s->since < w->forks)
		bpf_map_update_elem(&left_descriptors, &left, s, BPF_ANY);
	if (w->parent)
		bpf_map_update_elem(&descriptors, key, &none, BPF_ANY);
	else if (s)
		bpf_map_delete_elem(&descriptors, key);
}

/* How far a socket is read. */
static __always_inline __u64 *position_of(__u64 id)
{
	__u64 *known, none = 0;

	known = bpf_map_lookup_elem(&positions, &id);
	if (known)
		return known;
	bpf_map_update_elem(&positions, &id, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&positions, &id);
}
