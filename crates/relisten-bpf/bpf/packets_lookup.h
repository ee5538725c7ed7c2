/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * What the lookup of a listener had to choose from. By the time a program sees the packet, the lookup is over; so its
 * steps are gone through once more, on the same processor, in the same moment. compute_score and inet_lhash2_lookup of
 * https://github.com/torvalds/linux/blob/v6.12/net/ipv4/inet_hashtables.c, inet6_hashtables.c alike.
 */
#ifndef RELISTEN_PACKETS_LOOKUP_H
#define RELISTEN_PACKETS_LOOKUP_H

enum {
	/* Listeners in one chain of the kernel's table that are looked at. */
	PACKET_CHAIN = 4096,
};

struct candidate {
	const struct hlist_nulls_node *node;
	/* The listener that was found. */
	const struct sock *found;
	const struct net *net;
	__u64 address[2];
	__u32 cpu;
	int device;
	__u32 matches;
	__u16 port;
	__u8 version;
	bool met;
};

static __always_inline bool ends_here(const struct hlist_nulls_node *node)
{
	return !node || (__u64)node & 1;
}

static long to_the_end(__u32 i, struct candidate *c)
{
	(void)i;
	if (ends_here(c->node))
		return 1;
	c->node = get(c->node->next);
	return 0;
}

/* 0: it does not fit. */
static __always_inline __u32 score_of(const struct sock *sk, const struct candidate *c)
{
	const struct sock___lookup *more = (const void *)sk;
	if (get(sk->__sk_common.skc_net.net) != c->net || get(sk->__sk_common.skc_num) != c->port)
		return 0;
	__u16 family = get(sk->__sk_common.skc_family);
	if (c->version == 4) {
		if (get(sk->__sk_common.skc_rcv_saddr) != (__u32)c->address[0])
			return 0;
		if (family == AF_INET6 && get_bits(more->__sk_common.skc_ipv6only))
			return 0;
	} else {
		__u64 own[2] = {};
		copy(own, sk->__sk_common.skc_v6_rcv_saddr);
		if (family != AF_INET6 || own[0] != c->address[0] || own[1] != c->address[1])
			return 0;
	}
	int device = get(more->__sk_common.skc_bound_dev_if);
	if (device && device != c->device)
		return 0;
	__u32 score = device ? 2 : 1;
	if (c->version == 4 && family == AF_INET)
		score++;
	if (get(more->__sk_common.skc_incoming_cpu) == (int)c->cpu)
		score++;
	return score;
}

static long look_at_candidate(__u32 i, struct candidate *c)
{
	(void)i;
	if (ends_here(c->node))
		return 1;
	const struct sock *sk = (const void *)c->node -
				__builtin_preserve_field_info(((struct sock___lookup *)0)->__sk_common.skc_nulls_node, 0);
	if (sk == c->found)
		c->met = true;
	if (score_of(sk, c))
		c->matches++;
	c->node = get(c->node->next);
	return 0;
}

/* How many listeners of the table's chain fit, and the score of the one that was found. */
static __always_inline void fill_candidates(struct packet_event *e, const struct sock *sk, const struct sk_buff *skb,
					    const struct headers *h)
{
	const struct sock___lookup *more = (const void *)sk;
	struct candidate c = {
		.found = sk,
		.net = get(sk->__sk_common.skc_net.net),
		.cpu = e->cpu,
		.device = get(((const struct sk_buff___device *)skb)->skb_iif),
		.port = get(sk->__sk_common.skc_num),
		.version = h->version,
	};
	if (h->version == 4)
		bpf_probe_read_kernel(c.address, 4, &sk->__sk_common.skc_rcv_saddr);
	else
		bpf_probe_read_kernel(c.address, 16, &sk->__sk_common.skc_v6_rcv_saddr);
	e->score = score_of(sk, &c);
	/* The mark at the end of the chain tells which one it is, behind a bit for all chains of listeners. */
	c.node = get(more->__sk_common.skc_nulls_node.next);
	bpf_loop(PACKET_CHAIN, to_the_end, &c, 0);
	const struct inet_hashinfo *table = get(((const struct net___tables *)c.net)->ipv4.tcp_death_row.hashinfo);
	if (!((__u64)c.node & 1) || !table)
		return;
	__u64 number = (__u64)c.node >> 1 & get(table->lhash2_mask);
	__u64 size = __builtin_preserve_type_info(*(struct inet_listen_hashbucket *)0, 1);
	const struct inet_listen_hashbucket *chain = (const void *)get(table->lhash2) + number * size;
	c.node = get(chain->nulls_head.first);
	bpf_loop(PACKET_CHAIN, look_at_candidate, &c, 0);
	/* Else it was another table, or one that changes. */
	if (c.met && ends_here(c.node))
		e->matches = c.matches;
}

static __always_inline void fill_program(struct packet_event *e, const struct sock *sk)
{
	const struct sock_reuseport *group = get(sk->sk_reuseport_cb);
	const struct bpf_prog___kind *program = group ? (const void *)get(group->prog) : NULL;
	if (!program)
		return;
	e->program_type = get(program->type);
	const struct bpf_prog_aux *aux = get(program->aux);
	if (!aux)
		return;
	e->program_id = get(aux->id);
	copy(e->program_name, aux->name);
}

/*
 * Asks the kernel's tables for the connection once more, without the packet. That runs no program of a group: so it tells
 * the half-open request, or what the hash alone picks.
 */
static __always_inline void fill_again(struct packet_event *e, void *ctx, const struct headers *h, bool answer)
{
	struct tuple6 six = {};
	struct tuple4 four = {};
	void *found;
	__u16 client = answer ? h->transport.destination : h->transport.source;
	__u16 server = answer ? h->transport.source : h->transport.destination;
	if (h->version == 4) {
		__u32 from = answer ? offsetof(struct ipv4, to) : offsetof(struct ipv4, from);
		__u32 to = answer ? offsetof(struct ipv4, from) : offsetof(struct ipv4, to);
		bpf_probe_read_kernel(&four.from, 4, h->network + from);
		bpf_probe_read_kernel(&four.to, 4, h->network + to);
		four.source = client;
		four.destination = server;
		found = bpf_skc_lookup_tcp(ctx, &four, sizeof(four), BPF_F_CURRENT_NETNS, 0);
	} else {
		__u32 from = answer ? offsetof(struct ipv6, to) : offsetof(struct ipv6, from);
		__u32 to = answer ? offsetof(struct ipv6, from) : offsetof(struct ipv6, to);
		bpf_probe_read_kernel(six.from, 16, h->network + from);
		bpf_probe_read_kernel(six.to, 16, h->network + to);
		six.source = client;
		six.destination = server;
		found = bpf_skc_lookup_tcp(ctx, &six, sizeof(six), BPF_F_CURRENT_NETNS, 0);
	}
	if (!found)
		return;
	/* Only as a number it can be read from as the other programs do it. */
	void *place = found;
	const struct sock *sk = NULL;
	bpf_probe_read_kernel(&sk, sizeof(sk), &place);
	__u8 state = get(sk->__sk_common.skc_state);
	if (state == TCP_LISTEN) {
		e->by_hash = (__u64)sk;
		e->by_hash_inode = inode_of(sk);
		e->by_hash_index = index_of(sk);
	} else {
		e->hash = get(sk->__sk_common.skc_hash);
		e->hashed = true;
		if (state == TCP_NEW_SYN_RECV) {
			e->request = (__u64)sk;
			/* One of them is ours. */
			e->request_references = get(sk->__sk_common.skc_refcnt.refs.counter) - 1;
		}
	}
	bpf_sk_release(found);
}

#endif
