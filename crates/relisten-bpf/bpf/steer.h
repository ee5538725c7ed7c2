/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/* Who gets a new connection, and who gets one whose listener left. */
#ifndef RELISTEN_STEER_H
#define RELISTEN_STEER_H

/* Only when there is nobody else. A worker that leaves or is not there yet; nobody is thrown away for it. */
#define LEAVES (RELISTEN_OUT | RELISTEN_DRAINING)

/* Chooses `key` unless it is to be avoided for one of these reasons. Its state, or NULL. */
static __always_inline struct relisten_listener *give(struct sk_reuseport_md *ctx, __u32 key, __u32 reasons)
{
	struct relisten_listener *l = listener(key);
	if (!l || unlikely(READ_ONCE(l->state) & reasons))
		return NULL;
	/* Fails for a socket that does not listen now, or in another group. */
	if (unlikely(bpf_sk_select_reuseport(ctx, &sockets, &key, 0)))
		return NULL;
	return l;
}

struct walk {
	struct sk_reuseport_md *ctx;
	const struct relisten_table *table;
	__u32 from;
	__u32 count;
	__u32 reasons;
	__u32 key;
};

static long step(__u32 i, struct walk *w)
{
	__u32 place = w->from + i;
	if (place >= w->count)
		place -= w->count;
	w->key = key_at(w->table, place);
	return give(w->ctx, w->key, w->reasons) ? 1 : 0;
}

/* Of `count` places, beginning anywhere, the first key that can be chosen; NOBODY. */
__apart __u32 walk(struct sk_reuseport_md *ctx, __u32 group, __u32 active, __u32 count, __u32 reasons)
{
	struct walk w = { .ctx = ctx, .table = table(group, active), .count = count, .reasons = reasons };

	if (!w.table)
		return NOBODY;
	if (w.count > RELISTEN_MEMBERS)
		w.count = RELISTEN_MEMBERS;
	w.from = scale(ctx->hash, w.count);
	long looked = bpf_loop(w.count, step, &w, 0);
	/* It ended early, or with the last one. */
	if (looked < 1 || !give(ctx, w.key, reasons))
		return NOBODY;
	return w.key;
}

enum how { BY_POLICY, BY_FALLBACK, BY_LAST_RESORT, BY_NOBODY };

/* Chooses. The key goes to `chosen`. */
static __always_inline enum how decide(struct sk_reuseport_md *ctx, __u32 group, __u32 active,
				       struct relisten_group *g, const struct relisten_head *h, int expecting,
				       __u32 *chosen)
{
	__u32 live = h->live;

	if (unlikely(live > RELISTEN_LIVE))
		live = RELISTEN_LIVE;
	if (likely(live)) {
		*chosen = choose(ctx, group, active, g, h, live, expecting);
		if (likely(give(ctx, *chosen, ANY_REASON)))
			return BY_POLICY;
		/* The table is older than what is said of the listener itself. */
		*chosen = walk(ctx, group, active, live, ANY_REASON);
		if (*chosen != NOBODY)
			return BY_FALLBACK;
	}
	*chosen = walk(ctx, group, active, h->members, LEAVES);
	if (*chosen == NOBODY)
		*chosen = walk(ctx, group, active, h->members, 0);
	return *chosen == NOBODY ? BY_NOBODY : BY_LAST_RESORT;
}

enum { SYN = 0x02, ACK = 0x10 };

/* The flags of a packet's TCP header, with which the data begins. What is no TCP counts as new each time: a SYN. */
static __always_inline __u32 flags_of(struct sk_reuseport_md *ctx)
{
	__u8 *data = ctx->data, *end = ctx->data_end;

	if (unlikely(ctx->ip_protocol != IPPROTO_TCP || data + 14 > end))
		return SYN;
	return data[13];
}

/* SYN without ACK. */
static __always_inline bool is_new(__u32 flags)
{
	return (flags & (SYN | ACK)) == SYN;
}

/* Counts a new connection, once. */
static __always_inline void note_new(struct relisten_group *g, enum how how, __u32 key)
{
	struct relisten_listener *l = how == BY_NOBODY ? NULL : listener(key);

	if (unlikely(!l)) {
		add(&g->by_kernel, 1);
		return;
	}
	add(&l->chosen, 1);
	if (likely(how == BY_POLICY))
		return;
	struct relisten_counters *c = counters_of(key);
	if (c)
		add(how == BY_FALLBACK ? &c->by_fallback : &c->by_last_resort, 1);
}

/* A connection that was counted for one listener is from now on counted for another. */
static __always_inline void move_count(struct relisten_group *g, __u64 cookie, __u64 listener_cookie, __u32 key)
{
	struct relisten_instance *i = the_instance();
	struct relisten_counters *to = counters_of(key), *from = NULL;
	struct relisten_owner owner = { .key = key }, *before;
	struct relisten_moved *m;
	__u32 from_key = 0;

	if (!to || !i || !READ_ONCE(i->counting))
		return;
	owner.incarnation = READ_ONCE(to->incarnation);
	/* Of the first that moves there is none to look for. */
	m = READ_ONCE(i->moved) > 0 ? moved_find(cookie) : NULL;
	if (m) {
		from_key = m->owner.key;
		from = of_owner(&m->owner);
		m->owner = owner;
	} else {
		if (!moved_add(cookie, &owner)) {
			add(&g->move_uncounted, 1);
			return;
		}
		add(&i->moved, 1);
		before = bpf_map_lookup_elem(&cookies, &listener_cookie);
		if (before) {
			from_key = before->key;
			from = of_owner(before);
		}
	}
	if (from) {
		add_open(from_key, -1);
		add(&from->moved_out, 1);
	}
	add_open(key, 1);
	add(&to->moved_in, 1);
}

/* The listener of a connection in its queue, or of a half-open request, has left. */
static __always_inline void note_moving(struct sk_reuseport_md *ctx, struct relisten_group *g, enum how how, __u32 key)
{
	__u32 state = ctx->migrating_sk->state;

	if (how == BY_NOBODY)
		add(&g->move_failed, 1);
	else if (state == TCP_NEW_SYN_RECV)
		add(&g->moved_requests, 1);
	else if (state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT || state == TCP_SYN_RECV)
		move_count(g, bpf_get_socket_cookie(ctx->migrating_sk), bpf_get_socket_cookie(ctx->sk), key);
}

/*
 * A new connection from this machine to itself, from a port that leads to one certain listener: how the supervisor asks
 * one worker whether it is well, in service or not. A connection from elsewhere can't be meant: it has another source
 * address. The key, or NOBODY.
 */
__apart __u32 exception(struct sk_reuseport_md *ctx, __u32 group)
{
	struct relisten_group *g = bpf_map_lookup_elem(&groups, &group);
	__u8 *data = ctx->data, *end = ctx->data_end;
	__u32 words[8] = {};

	if (!g || ctx->migrating_sk || data + 14 > end)
		return NOBODY;
	if (ctx->eth_protocol == from_be16(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes_relative(ctx, 8, words, 32, BPF_HDR_START_NET))
			return NOBODY;
		if (words[0] != words[4] || words[1] != words[5] || words[2] != words[6] || words[3] != words[7])
			return NOBODY;
	} else {
		if (bpf_skb_load_bytes_relative(ctx, 12, words, 8, BPF_HDR_START_NET) || words[0] != words[1])
			return NOBODY;
	}
	__u32 port = data[0] << 8 | data[1];
	for (__u32 i = 0; i < RELISTEN_EXCEPTIONS; i++) {
		if (i >= READ_ONCE(g->excepted))
			break;
		if (g->exceptions[i].port == port)
			return g->exceptions[i].key;
	}
	return NOBODY;
}

/*
 * Whoever can't leave somebody else to look after a group when he is killed says again and again until when he does
 * so. Nobody does any more: counts stand still, and who came to the group since is in no table.
 */
static __always_inline bool is_tended(const struct relisten_group *g)
{
	__u64 until = READ_ONCE(g->tended_until);

	return !until || bpf_ktime_get_coarse_ns() < until;
}

/* Always SK_PASS: without a choice it means the kernel's own hash over the group, so nobody is refused. */
__apart int steer(struct sk_reuseport_md *ctx, __u32 group)
{
	struct relisten_group *g = bpf_map_lookup_elem(&groups, &group);

	if (!g)
		return SK_PASS;
	if (unlikely(!is_tended(g))) {
		if (!ctx->migrating_sk && is_new(flags_of(ctx)))
			add(&g->by_kernel, 1);
		return SK_PASS;
	}
	__u32 active = READ_ONCE(g->active), key = 0;
	const struct relisten_head *h = &g->heads[active & 1];
	if (unlikely(READ_ONCE(g->excepted))) {
		key = exception(ctx, group);
		if (key != NOBODY && give(ctx, key, 0)) {
			if (is_new(flags_of(ctx)))
				add(&g->by_exception, 1);
			return SK_PASS;
		}
		key = 0;
	}
	if (h->policy == RELISTEN_LEAST_CONNECTIONS)
		keep_time(group, active, g, h->live);
	/*
	 * The ACK of a SYN cookie opens its connection here and now. Where its SYN went nobody knows any more: what is
	 * expected there would only lead it astray. What moves is counted as open already.
	 */
	__u32 flags = unlikely(ctx->migrating_sk) ? SYN : flags_of(ctx);
	int expecting = ((int)((flags ^ SYN) & (SYN | ACK)) - 1) >> 31;
	enum how how = decide(ctx, group, active, g, h, expecting, &key);

	if (unlikely(ctx->migrating_sk)) {
		note_moving(ctx, g, how, key);
	} else if (likely(is_new(flags))) {
		note_new(g, how, key);
	} else {
		add(&g->acks, 1);
	}
	return SK_PASS;
}

#endif
