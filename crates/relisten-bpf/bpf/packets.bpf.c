/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * Programs of `relisten trace --packets`: the packets of handshakes of one port, as its listeners see them, and who they
 * were looked up to. They change nothing. `cargo xtask bpf` builds the object. Licence as of relisten.bpf.c.
 *
 * Needs Linux 5.17 (bpf_loop) and the kernel's type information (/sys/kernel/btf/vmlinux).
 */
#include "kernel.h"
#include "trace_abi.h"
#include "trace_kernel.h"
#include "trace_fill.h"
#include "packets_abi.h"
#include "packets_kernel.h"

enum { SYN = 1 << 1, RST = 1 << 2, ACK = 1 << 4 };

char _license[] SEC("license") = "Dual MIT/GPL";

static __always_inline struct packet_event *begin_packet(enum packet_what what)
{
	struct packet_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count_lost(true, 1);
		return NULL;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->base.kind = TRACE_PACKET;
	e->base.reason = -1;
	e->base.count = 1;
	e->base.group_index = PACKET_NO_INDEX;
	e->base.time = bpf_ktime_get_ns();
	e->what = what;
	e->cpu = bpf_get_smp_processor_id();
	e->matches = PACKET_NO_MATCHES;
	e->by_hash_index = PACKET_NO_INDEX;
	fill_process(&e->base);
	return e;
}

/* The place of a listener in its group. */
static __always_inline __u16 index_of(const struct sock *sk)
{
	struct member m = { .group = get(sk->sk_reuseport_cb), .socket = sk, .found = PACKET_NO_INDEX };
	if (!m.group)
		return PACKET_NO_INDEX;
	m.size = get(m.group->num_socks);
	bpf_loop(TRACE_MEMBERS, look_for_member, &m, 0);
	return m.found;
}

#include "packets_lookup.h"

/* What is passed to a program of a cgroup is the kernel's own packet; it is read as in the other programs. */
struct __sk_buff;

static __always_inline int packet(struct __sk_buff *ctx, enum trace_way way)
{
	const struct sk_buff *skb = (const void *)ctx;
	const struct trace_config *c = wanted();
	struct headers h = {};
	if (!c || !read_headers(skb, &h) || h.protocol != IPPROTO_TCP)
		return 1;
	/* From the side of those who listen. */
	if (c->port != from_be16(way == TRACE_IN ? h.transport.destination : h.transport.source))
		return 1;
	const struct sock *sk = get(skb->sk);
	if (c->netns && c->netns != (sk ? netns_of(sk) : netns_of_packet(skb)))
		return 1;
	__u8 state = sk ? get(sk->__sk_common.skc_state) : 0;
	__u16 flags = from_be16(h.transport.flags);
	/* The handshake, as the listener sees it, and all that ends one. */
	if (state != TCP_LISTEN && state != TCP_NEW_SYN_RECV && !(flags & (SYN | RST)))
		return 1;
	struct packet_event *e = begin_packet(PACKET_SEEN);
	if (!e)
		return 1;
	e->base.way = way;
	if (sk)
		fill_socket(&e->base, sk);
	if (state == TCP_LISTEN) {
		fill_group(&e->base, sk);
		fill_program(e, sk);
		if (way == TRACE_IN)
			fill_candidates(e, sk, skb, &h);
		fill_again(e, ctx, &h, way == TRACE_OUT);
	}
	fill_packet(&e->base, skb, &h);
	end(&e->base);
	return 1;
}

SEC("cgroup_skb/ingress") int packet_in(struct __sk_buff *ctx)
{
	return packet(ctx, TRACE_IN);
}

SEC("cgroup_skb/egress") int packet_out(struct __sk_buff *ctx)
{
	return packet(ctx, TRACE_OUT);
}

static __always_inline int with_stack(void *ctx, enum packet_what what, const struct sock *sk, const struct sk_buff *skb,
				      const struct headers *h, const struct sock *request)
{
	struct packet_event *e = begin_packet(what);
	if (!e)
		return 0;
	if (sk)
		fill_socket(&e->base, sk);
	if (request) {
		e->request = (__u64)request;
		e->request_references = get(request->__sk_common.skc_refcnt.refs.counter);
		e->hash = get(request->__sk_common.skc_hash);
		e->hashed = true;
	}
	fill_packet(&e->base, skb, h);
	fill_stack(&e->base, ctx);
	end(&e->base);
	return 0;
}

/* (struct sk_buff *skb, ...): a SYN that was handled is given back, still under the callers of the lookup. Which network
 * namespace it came to is not known any more; who it was is. */
SEC("raw_tp/consume_skb") int packet_handled(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sk_buff *skb = (void *)ctx->args[0];
	const struct trace_config *c = wanted();
	struct headers h = {};
	if (!c || !read_headers(skb, &h) || h.protocol != IPPROTO_TCP || c->port != from_be16(h.transport.destination))
		return 0;
	if ((from_be16(h.transport.flags) & (SYN | ACK | RST)) != SYN)
		return 0;
	return with_stack(ctx, PACKET_HANDLED, NULL, skb, &h, NULL);
}

/* (const struct sock *sk, const int oldstate, const int newstate) */
SEC("raw_tp/inet_sock_set_state") int packet_established(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sock *sk = (void *)ctx->args[0];
	const struct trace_config *c = wanted();
	if (ctx->args[1] != TCP_SYN_RECV || ctx->args[2] != TCP_ESTABLISHED)
		return 0;
	if (!c || c->port != local_port(sk) || !wanted_socket(c, sk))
		return 0;
	struct packet_event *e = begin_packet(PACKET_ESTABLISHED);
	if (!e)
		return 0;
	fill_socket(&e->base, sk);
	e->hash = e->base.hash;
	e->hashed = true;
	fill_stack(&e->base, ctx);
	end(&e->base);
	return 0;
}

static __always_inline int packet_reset(void *ctx, const struct sock *sk, const struct sk_buff *skb, int reason)
{
	const struct trace_config *c = wanted();
	struct headers h = {};
	bool answers = skb && read_headers(skb, &h);
	if (!c || (!sk && !answers))
		return 0;
	if (c->port != (answers ? from_be16(h.transport.destination) : local_port(sk)))
		return 0;
	if (c->netns && c->netns != (sk ? netns_of(sk) : netns_of_packet(skb)))
		return 0;
	struct packet_event *e = begin_packet(PACKET_RESET);
	if (!e)
		return 0;
	e->base.reason = reason;
	if (sk)
		fill_socket(&e->base, sk);
	if (answers)
		fill_packet(&e->base, skb, &h);
	fill_stack(&e->base, ctx);
	end(&e->base);
	return 0;
}

/* (const struct sock *sk, const struct sk_buff *skb, const enum sk_rst_reason reason) since 6.10. */
SEC("raw_tp/tcp_send_reset") int packet_reset_with_reason(struct bpf_raw_tracepoint_args *ctx)
{
	return packet_reset(ctx, (void *)ctx->args[0], (void *)ctx->args[1], (int)ctx->args[2]);
}

/* Before, without the reason, and never without a socket. */
SEC("raw_tp/tcp_send_reset") int packet_reset_without_reason(struct bpf_raw_tracepoint_args *ctx)
{
	return packet_reset(ctx, (void *)ctx->args[0], (void *)ctx->args[1], -1);
}

/* int tcp_conn_request(rsk_ops, af_ops, struct sock *sk, struct sk_buff *skb) */
SEC("fentry/tcp_conn_request") int packet_requested(const __u64 *args)
{
	const struct sock *sk = argument(args, 2);
	const struct sk_buff *skb = argument(args, 3);
	const struct trace_config *c = wanted();
	struct headers h = {};
	if (!c || c->port != local_port(sk) || !wanted_socket(c, sk) || !read_headers(skb, &h))
		return 0;
	return with_stack((void *)args, PACKET_REQUESTED, sk, skb, &h, NULL);
}

/* struct sock *tcp_check_req(struct sock *sk, struct sk_buff *skb, struct request_sock *req, ...) */
SEC("fentry/tcp_check_req") int packet_checked(const __u64 *args)
{
	const struct sock *sk = argument(args, 0);
	const struct sk_buff *skb = argument(args, 1);
	const struct trace_config *c = wanted();
	struct headers h = {};
	if (!c || c->port != local_port(sk) || !wanted_socket(c, sk) || !read_headers(skb, &h))
		return 0;
	return with_stack((void *)args, PACKET_CHECKED, sk, skb, &h, argument(args, 2));
}
