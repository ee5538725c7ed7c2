/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/* The policies: each gives a place in the table's keys. */
#ifndef RELISTEN_CHOOSE_H
#define RELISTEN_CHOOSE_H

/* Up to so many listeners all are looked at, above that two by chance. */
#define SCAN 8
#define NOBODY 0xffffffff

/* hash * n / 2^32, as the kernel's reciprocal_scale. */
static __always_inline __u32 scale(__u32 hash, __u32 n)
{
	return ((__u64)hash * n) >> 32;
}

/* The key at a place; an empty place gives a key that is no listener's. */
static __always_inline __u32 key_at(const struct relisten_table *t, __u32 place)
{
	/* The verifier knows less than the compiler of what a place can be. */
	opaque(place);
	if (unlikely(place >= RELISTEN_MEMBERS))
		return RELISTEN_LISTENERS;
	return t->keys[place];
}

/* All reasons to avoid a listener. */
#define ANY_REASON (RELISTEN_OUT | RELISTEN_DRAINING | RELISTEN_SUSPECTED | RELISTEN_HUNG | RELISTEN_FULL)

#define MOST (1LL << 40)

/*
 * How much a listener has to do, with what is expected of it (mask -1) or without (0). Not fit: the most. No jumps and
 * no constants where values will do, or the verifier follows each of them through all that comes after.
 */
static __always_inline __s64 score(__u32 key, int expecting)
{
	struct relisten_listener *l = listener(key);
	if (!l)
		return MOST;
	__u32 state = READ_ONCE(l->state);
	if (unlikely(state & ANY_REASON))
		return MOST | state;
	int coming = expected(l) & expecting;
	if (unlikely(state & RELISTEN_PUBLISHES)) {
		struct relisten_load *published = bpf_map_lookup_elem(&loads, &key);
		__u64 load = published ? READ_ONCE(published->load) : 0;
		return (load < MOST ? load : MOST - 1) + coming;
	}
	return (__s64)READ_ONCE(l->open) + coming;
}

/*
 * Fewest connections: a key, which was looked up anyhow. Of few, the fewest of all, and among equals any. Of many, the
 * better one of two: nearly as even, costs the same however many there are, and a listener that is new and empty is not
 * sent everything at once. Chance comes from the packet's hash: a random number costs more than all the rest. Which is
 * the lowest can't be foreseen, so it is found without a jump.
 */
static __always_inline __u32 least(const struct relisten_table *t, __u32 live, __u32 hash, int expecting)
{
	__s64 lowest = MOST << 19;
	__u64 twice = (__u64)hash << 32 | hash;

	if (unlikely(live > SCAN)) {
		__u32 a = ((hash & 0xffff) * live) >> 16;
		__u32 b = ((hash >> 16) * (live - 1)) >> 16;
		if (b >= a)
			b++;
		a = key_at(t, a);
		b = key_at(t, b);
		return score(b, expecting) < score(a, expecting) ? b : a;
	}
	for (__u32 i = 0; i < SCAN; i++) {
		if (i >= live)
			break;
		/* Which of equals: other bits of the hash for each place. */
		__u64 chance = twice >> 4 * i & 0xff;
		__u32 key = key_at(t, i);
		__s64 less = score(key, expecting) * (1 << 18) + (__s64)(chance << 10 | key) - lowest;
		lowest += less & less >> 63;
	}
	return lowest & (RELISTEN_LISTENERS - 1);
}

__apart __u32 by_weight(__u32 group, __u32 active, __u32 live, __u32 at)
{
	const struct relisten_table *t = table(group, active);
	__u32 low = 0, high = live;

	if (!t)
		return 0;
	/* The first place whose sum is above. */
	for (int i = 0; i < 9; i++) {
		if (low >= high)
			break;
		__u32 middle = (low + high) / 2;
		if (middle >= RELISTEN_LIVE)
			break;
		if (t->below[middle] > at)
			high = middle;
		else
			low = middle + 1;
	}
	return low < live ? low : 0;
}

static __always_inline __u32 absorb(__u32 a, __u32 word)
{
	a = (a ^ word) * 0x9e3779b1;
	return a ^ a >> 15;
}

/*
 * A hash of the client's address, or false. The classic program computes the same, so clients stay with their
 * slots whatever carries the policy out.
 */
static __always_inline bool client(struct sk_reuseport_md *ctx, __u32 *hash)
{
	__u32 words[4] = {};
	bool v4 = true;

	if (unlikely(ctx->migrating_sk)) {
		struct bpf_sock *sk = ctx->migrating_sk;
		if (sk->family == AF_INET) {
			words[0] = sk->dst_ip4;
		} else {
			words[0] = sk->dst_ip6[0];
			words[1] = sk->dst_ip6[1];
			words[2] = sk->dst_ip6[2];
			words[3] = sk->dst_ip6[3];
			/* An IPv4 client of a dual-stack listener: ::ffff:a.b.c.d. */
			v4 = !words[0] && !words[1] && words[2] == from_be32(0xffff);
			if (v4)
				words[0] = words[3];
		}
	} else if (unlikely(ctx->eth_protocol == from_be16(ETH_P_IPV6))) {
		v4 = false;
		if (bpf_skb_load_bytes_relative(ctx, 8, words, 16, BPF_HDR_START_NET))
			return false;
	} else if (bpf_skb_load_bytes_relative(ctx, 12, words, 4, BPF_HDR_START_NET)) {
		return false;
	}

	__u32 a = absorb(0x2545f491, from_be32(words[0]));
	if (unlikely(!v4)) {
		a = absorb(a, from_be32(words[1]));
		a = absorb(a, from_be32(words[2]));
		a = absorb(a, from_be32(words[3]));
	}
	a ^= a >> 16;
	a *= 0x7feb352d;
	a ^= a >> 15;
	a *= 0x846ca68b;
	*hash = a ^ a >> 16;
	return true;
}

/* Highest random weight: a listener that goes moves only its own clients, one that comes takes its share of all. */
static __always_inline __u32 highest_of(const struct relisten_table *t, __u32 live, __u32 most, __u32 client)
{
	__s64 top = 0;

	for (__u32 i = 0; i < most; i++) {
		if (i >= live)
			break;
		__u32 number = (client ^ t->draws[i].seed) * t->draws[i].factor;
		__s64 more = ((__s64)number << 8 | (RELISTEN_LIVE - 1 - i)) - top;
		top += more & ~(more >> 63);
	}
	return RELISTEN_LIVE - 1 - (top & 0xff);
}

__apart __u32 highest_of_many(__u32 group, __u32 active, __u32 live, __u32 client)
{
	const struct relisten_table *t = table(group, active);

	return t ? highest_of(t, live, RELISTEN_LIVE, client) : 0;
}

/* Of few it is found on the way: a call costs as much as the search. */
static __always_inline __u32 highest(__u32 group, __u32 active, const struct relisten_table *t, __u32 live,
				     __u32 client)
{
	if (unlikely(live > SCAN))
		return highest_of_many(group, active, live, client);
	return highest_of(t, live, SCAN, client);
}

static __always_inline __u32 by_cpu(const struct relisten_table *t, __u32 live)
{
	__u32 cpu = bpf_get_smp_processor_id();
	if (cpu < RELISTEN_CPUS) {
		__u32 place = t->cpus[cpu];
		if (place)
			return place - 1;
	}
	return cpu % live;
}

/* The place that the policy gives, if it is one that gives places; live is not 0. */
static __always_inline __u32 place_by(struct sk_reuseport_md *ctx, __u32 group, __u32 active,
				      struct relisten_group *g, const struct relisten_head *h, __u32 live)
{
	__u32 hash = ctx->hash;

	switch (h->policy) {
	case RELISTEN_RANDOM:
		return scale(bpf_get_prandom_u32(), live);
	case RELISTEN_ROUND_ROBIN:
		return (__u32)__sync_fetch_and_add(&g->turn, 1) % live;
	case RELISTEN_CPU:
		return by_cpu(&g->tables[active & 1], live);
	case RELISTEN_CLIENT_IP:
		/* Without an address, which can't be: the hash. */
		return client(ctx, &hash) ? highest(group, active, &g->tables[active & 1], live, hash) : scale(hash, live);
	case RELISTEN_WEIGHTED:
		return by_weight(group, active, live, scale(hash, h->total));
	default:
		return scale(hash, live);
	}
}

/* The key that the policy gives; live is not 0. */
static __always_inline __u32 choose(struct sk_reuseport_md *ctx, __u32 group, __u32 active,
				    struct relisten_group *g, const struct relisten_head *h, __u32 live,
				    int expecting)
{
	const struct relisten_table *t = &g->tables[active & 1];

	if (h->policy == RELISTEN_LEAST_CONNECTIONS)
		return least(t, live, ctx->hash, expecting);
	return key_at(t, place_by(ctx, group, active, g, h, live));
}

#endif
