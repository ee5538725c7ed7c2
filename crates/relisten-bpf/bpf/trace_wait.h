/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * Packets for connections in TIME_WAIT, on kernels whose tracepoints don't tell them: before 6.10 a reset is told of whole
 * sockets only, and before 6.11 a drop without its socket.
 */
#ifndef RELISTEN_TRACE_WAIT_H
#define RELISTEN_TRACE_WAIT_H

/* enum tcp_tw_status */
enum { TCP_TW_RST = 1, TCP_TW_SYN = 3 };

/* tcp_timewait_state_process(struct inet_timewait_sock *tw, struct sk_buff *skb, ...) has decided. Once or twice for a
 * connection that this side closed first, so what is of no interest must leave at once. */
SEC("fexit/tcp_timewait_state_process") int time_wait_met(__u64 *args)
{
	__u64 verdict = 0;
	const struct trace_config *c = wanted();
	if (!c || bpf_get_func_ret(args, &verdict) || (int)verdict == TCP_TW_SYN)
		return 0;
	const struct sock *tw = argument(args, 0);
	const struct sk_buff *skb = argument(args, 1);
	struct headers h = {};
	if (!read_headers(skb, &h) || !wanted_packet(c, &h) || (c->netns && c->netns != netns_of(tw)))
		return 0;
	bool reset = (int)verdict == TCP_TW_RST;
	if (!reset && (from_be16(h.transport.flags) & (SYN | ACK | RST)) != SYN)
		return 0;
	struct trace_event *e = begin(reset ? TRACE_RESET_SENT : TRACE_DROPPED);
	if (!e)
		return 0;
	if (!reset)
		e->reason = c->unspecified;
	fill_common(e, tw);
	fill_packet(e, skb, &h);
	end(e);
	return 0;
}

#endif
