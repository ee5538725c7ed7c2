/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/* Dropped packets, by the kernel's own reason. */
#ifndef RELISTEN_TRACE_DROP_H
#define RELISTEN_TRACE_DROP_H

enum { SYN = 1 << 1, RST = 1 << 2, ACK = 1 << 4 };

static __always_inline int dropped(struct bpf_raw_tracepoint_args *ctx, int reason, const struct sock *sk)
{
	const struct trace_config *c = wanted();
	if (!c || reason < 0 || reason >= TRACE_REASONS || !c->reasons[reason & (TRACE_REASONS - 1)])
		return 0;
	const struct sk_buff *skb = (void *)ctx->args[0];
	struct headers h = {};
	if (!read_headers(skb, &h) || !wanted_packet(c, &h))
		return 0;
	__u16 flags = from_be16(h.transport.flags);
	/* Where the kernel gives no reason, only new connections matter. */
	if (reason == c->unspecified && (h.protocol != IPPROTO_TCP || (flags & (SYN | ACK | RST)) != SYN))
		return 0;
	/* What comes for a connection that is gone already is not worth an answer, nor a line. */
	if (h.protocol == IPPROTO_TCP && flags & RST)
		return 0;
	__u32 netns = sk ? netns_of(sk) : netns_of_packet(skb);
	if (c->netns && netns && c->netns != netns)
		return 0;
	struct trace_event *e = begin(TRACE_DROPPED);
	if (!e)
		return 0;
	e->reason = reason;
	e->location = ctx->args[1];
	if (sk)
		fill_socket(e, sk);
	fill_packet(e, skb, &h);
	end(e);
	return 0;
}

/* (struct sk_buff *skb, void *location, enum skb_drop_reason reason, struct sock *rx_sk) since 6.11. */
SEC("raw_tp/kfree_skb") int dropped_at_socket(struct bpf_raw_tracepoint_args *ctx)
{
	return dropped(ctx, (int)ctx->args[2], (void *)ctx->args[3]);
}

/* Without the socket, since 5.17. */
SEC("raw_tp/kfree_skb") int dropped_somewhere(struct bpf_raw_tracepoint_args *ctx)
{
	return dropped(ctx, (int)ctx->args[2], NULL);
}

struct datagrams {
	__u64 told;
	__u32 untold;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct datagrams);
} full_sockets SEC(".maps");

/* A flood of datagrams must not become a flood of events. */
#define TELL_EVERY_NS 100000000ull

/* (int rc, struct sock *sk, ...): a datagram that its socket could not take. */
SEC("raw_tp/udp_fail_queue_rcv_skb") int datagram_dropped(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sock *sk = (void *)ctx->args[1];
	const struct trace_config *c = wanted();
	if (!c || !wanted_socket(c, sk))
		return 0;
	__u64 key = (__u64)sk, now = bpf_ktime_get_ns();
	struct datagrams fresh = {};
	struct datagrams *d = bpf_map_lookup_elem(&full_sockets, &key);
	if (!d) {
		bpf_map_update_elem(&full_sockets, &key, &fresh, BPF_NOEXIST);
		d = bpf_map_lookup_elem(&full_sockets, &key);
	}
	if (!d)
		return 0;
	__sync_fetch_and_add(&d->untold, 1);
	if (now - d->told < TELL_EVERY_NS)
		return 0;
	d->told = now;
	struct trace_event *e = begin(TRACE_DATAGRAM_DROPPED);
	if (!e)
		return 0;
	e->count = __sync_lock_test_and_set(&d->untold, 0);
	e->reason = -(int)ctx->args[0];
	fill_socket(e, sk);
	e->protocol = IPPROTO_UDP;
	fill_group(e, sk);
	end(e);
	return 0;
}

#endif
