/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * Programs of `relisten trace`: what became of connections, told as it happens. They change nothing. `cargo xtask bpf`
 * builds the object. Licence as of relisten.bpf.c.
 *
 * Needs Linux 5.17 (bpf_loop) and the kernel's type information (/sys/kernel/btf/vmlinux).
 */
#include "kernel.h"
#include "trace_abi.h"
#include "trace_kernel.h"
#include "trace_fill.h"
#include "trace_close.h"
#include "trace_drop.h"
#include "trace_cgroup.h"
#include "trace_wait.h"
#include "trace_moved.h"

char _license[] SEC("license") = "Dual MIT/GPL";

static __always_inline int reset_sent(void *ctx, const struct sock *sk, const struct sk_buff *skb, int reason)
{
	const struct trace_config *c = wanted();
	struct headers h = {};
	bool packet = skb && read_headers(skb, &h);
	if (!c || (!sk && !packet))
		return 0;
	if (packet ? !wanted_packet(c, &h) : !wanted_socket(c, sk))
		return 0;
	if (c->netns && c->netns != (sk ? netns_of(sk) : netns_of_packet(skb)))
		return 0;
	struct trace_event *e = begin(TRACE_RESET_SENT);
	if (!e)
		return 0;
	e->reason = reason;
	if (sk)
		fill_socket(e, sk);
	if (packet)
		fill_packet(e, skb, &h);
	fill_stack(e, ctx);
	end(e);
	return 0;
}

/* (const struct sock *sk, const struct sk_buff *skb, const enum sk_rst_reason reason) since 6.10. */
SEC("raw_tp/tcp_send_reset") int reset_with_reason(struct bpf_raw_tracepoint_args *ctx)
{
	return reset_sent(ctx, (void *)ctx->args[0], (void *)ctx->args[1], (int)ctx->args[2]);
}

/* Before, without the reason, and never without a socket. */
SEC("raw_tp/tcp_send_reset") int reset_without_reason(struct bpf_raw_tracepoint_args *ctx)
{
	return reset_sent(ctx, (void *)ctx->args[0], (void *)ctx->args[1], -1);
}

SEC("raw_tp/tcp_receive_reset") int reset_received(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sock *sk = (void *)ctx->args[0];
	const struct trace_config *c = wanted();
	if (!c || !wanted_socket(c, sk))
		return 0;
	struct trace_event *e = begin(TRACE_RESET_RECEIVED);
	if (!e)
		return 0;
	fill_socket(e, sk);
	end(e);
	return 0;
}

/* (const struct sock *sk, const int oldstate, const int newstate): several times for each connection, so what is not
 * wanted must leave at once. */
SEC("raw_tp/inet_sock_set_state") int state_changed(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sock *sk = (void *)ctx->args[0];
	int before = ctx->args[1], after = ctx->args[2];
	/* A new connection begins as a copy of its listener: LISTEN to SYN_RECV is none that closes. */
	if (before == TCP_LISTEN && after == TCP_CLOSE)
		return listener_closed(ctx, sk);
	if (after == TCP_LISTEN)
		return listener_opened(sk, before);
	if (before == TCP_SYN_SENT && after == TCP_CLOSE)
		return connect_failed(sk);
	return 0;
}
