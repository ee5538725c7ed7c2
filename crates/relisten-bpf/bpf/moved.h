/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * To whom a moved connection belongs now. What is kept with its socket can't be changed by a program that moves it. An
 * array by the lower bits of the connection's cookie, because rescuing a thousand connections must not take a thousand
 * allocations; the kernel numbers cookies, so neighbours rarely meet. All calls for one connection hold its lock.
 */
#ifndef RELISTEN_MOVED_H
#define RELISTEN_MOVED_H

/* What stands in a place that is being filled. No cookie is that. */
#define TAKEN 0xffffffffffffffffULL

static __always_inline struct relisten_moved *moved_at(__u64 cookie, __u32 i)
{
	__u32 at = (cookie + i) & (RELISTEN_MOVED - 1);
	return bpf_map_lookup_elem(&moved, &at);
}

static __always_inline struct relisten_moved *moved_find(__u64 cookie)
{
	for (__u32 i = 0; i < RELISTEN_MOVED_PLACES; i++) {
		struct relisten_moved *m = moved_at(cookie, i);
		if (m && READ_ONCE(m->cookie) == cookie)
			return m;
	}
	return NULL;
}

/* False: all its places are taken. */
static __always_inline bool moved_add(__u64 cookie, const struct relisten_owner *owner)
{
	for (__u32 i = 0; i < RELISTEN_MOVED_PLACES; i++) {
		struct relisten_moved *m = moved_at(cookie, i);
		if (!m || __sync_val_compare_and_swap(&m->cookie, 0, TAKEN))
			continue;
		m->owner = *owner;
		*(volatile __u64 *)&m->cookie = cookie;
		return true;
	}
	return false;
}

static __always_inline void moved_remove(struct relisten_moved *m)
{
	*(volatile __u64 *)&m->cookie = 0;
}

#endif
