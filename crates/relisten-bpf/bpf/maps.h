/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/* The maps, and how to get at what is in them. */
#ifndef RELISTEN_MAPS_H
#define RELISTEN_MAPS_H

/* Names are cut off at 15 characters in the kernel. */

struct {
	__uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
	__uint(max_entries, RELISTEN_LISTENERS);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, RELISTEN_LISTENERS);
	__type(key, __u32);
	__type(value, struct relisten_listener);
} listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, RELISTEN_LISTENERS);
	__type(key, __u32);
	__type(value, struct relisten_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, RELISTEN_GROUPS);
	__type(key, __u32);
	__type(value, struct relisten_group);
} groups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct relisten_instance);
} instance SEC(".maps");

/* Apart from the rest, because workers may write it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, RELISTEN_LISTENERS);
	__type(key, __u32);
	__type(value, struct relisten_load);
} loads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct relisten_owner);
} owners SEC(".maps");

/* A listener's cookie to its owner: a program that moves connections sees whose they were only by this. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, RELISTEN_LISTENERS);
	__type(key, __u64);
	__type(value, struct relisten_owner);
} cookies SEC(".maps");

/* See moved.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RELISTEN_MOVED);
	__type(key, __u32);
	__type(value, struct relisten_moved);
} moved SEC(".maps");

static __always_inline void add(void *counter, __s64 n)
{
	__sync_fetch_and_add((__s64 *)counter, n);
}

static __always_inline struct relisten_listener *listener(__u32 key)
{
	return bpf_map_lookup_elem(&listeners, &key);
}

static __always_inline struct relisten_counters *counters_of(__u32 key)
{
	return bpf_map_lookup_elem(&counters, &key);
}

/* The table in force, or NULL. `active` is read once for each packet, so that one packet sees one table. */
static __always_inline struct relisten_table *table(__u32 group, __u32 active)
{
	struct relisten_group *g = bpf_map_lookup_elem(&groups, &group);
	if (!g)
		return NULL;
	/* Or the compiler reckons with the address before it knows that there is one. */
	opaque(active);
	return &g->tables[active & 1];
}

static __always_inline struct relisten_instance *the_instance(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&instance, &zero);
}

/* The counters, unless their key has been given to another listener since. */
static __always_inline struct relisten_counters *of_owner(const struct relisten_owner *owner)
{
	struct relisten_counters *c = counters_of(owner->key);
	if (!c || READ_ONCE(c->incarnation) != owner->incarnation)
		return NULL;
	return c;
}

static __always_inline void add_open(__u32 key, int n)
{
	struct relisten_listener *l = listener(key);
	if (l)
		__sync_fetch_and_add(&l->open, n);
}

#endif
