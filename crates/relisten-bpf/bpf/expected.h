/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * Connections chosen but not yet open. Without them a burst within one round trip, or handshakes that wait for data
 * (TCP_DEFER_ACCEPT), would all go to the one listener that had the fewest before. A handshake may never be finished,
 * so what is not open within one or two epochs of half a second is not waited for any more: the first packet of an epoch
 * settles, for all listeners of the group, what was chosen before the last one began. Choosing then costs no look at a
 * clock for each listener.
 *
 * Two CPUs may meet here and a count be off by a few until the next epoch.
 */
#ifndef RELISTEN_EXPECTED_H
#define RELISTEN_EXPECTED_H

/* Until user space says better: half a second at 250 ticks. */
#define DEFAULT_TICKS 128

static __always_inline int expected(const struct relisten_listener *l)
{
	return (int)((__u32)READ_ONCE(l->chosen) - READ_ONCE(l->settled));
}

static __always_inline void arrived(struct relisten_listener *l)
{
	if (expected(l) > 0)
		__sync_fetch_and_add(&l->settled, 1);
}

struct roll {
	const struct relisten_table *table;
	/* Nobody was chosen for longer than an epoch: nothing is left. */
	bool long_ago;
};

static long roll_one(__u32 i, struct roll *r)
{
	if (i >= RELISTEN_LIVE)
		return 1;
	struct relisten_listener *l = listener(r->table->keys[i]);
	if (l) {
		__u32 chosen = READ_ONCE(l->chosen), until = r->long_ago ? chosen : l->begun;
		/* More have come than were waited for: two CPUs met. */
		if (expected(l) < 0)
			until = chosen;
		if ((int)(until - READ_ONCE(l->settled)) > 0 || expected(l) < 0)
			*(volatile __u32 *)&l->settled = until;
		l->begun = chosen;
	}
	return 0;
}

/* A new epoch. */
__apart __u32 roll(__u32 group, __u32 active, __u32 live, __u32 long_ago)
{
	struct roll r = { .table = table(group, active), .long_ago = long_ago };

	if (r.table)
		bpf_loop(live, roll_one, &r, 0);
	return 0;
}

static __always_inline void keep_time(__u32 group, __u32 active, struct relisten_group *g, __u32 live)
{
	__u64 now = bpf_jiffies64(), then = READ_ONCE(g->epoch);
	__u32 ticks = g->epoch_ticks ? g->epoch_ticks : DEFAULT_TICKS;

	if (likely(now - then < ticks))
		return;
	/* One of all CPUs does it. */
	if (__sync_val_compare_and_swap(&g->epoch, then, now) == then)
		roll(group, active, live, now - then >= 2 * (__u64)ticks);
}

#endif
