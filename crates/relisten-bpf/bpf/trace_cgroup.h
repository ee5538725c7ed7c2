/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * Packets as their socket sees them, after the lookup (cgroup_skb). These cost something for each packet, so they are
 * attached only while they are needed.
 */
#ifndef RELISTEN_TRACE_CGROUP_H
#define RELISTEN_TRACE_CGROUP_H

/* What is passed is the kernel's own packet; it is read as in the other programs. */
struct __sk_buff;

static __always_inline const struct sk_buff *kernel_packet(const struct __sk_buff *ctx)
{
	return (const void *)ctx;
}

/* A SYN at a listener that won't take it, or at any listener. */
SEC("cgroup_skb/ingress") int syn_at_listener(struct __sk_buff *ctx)
{
	const struct sk_buff *skb = kernel_packet(ctx);
	const struct trace_config *c = wanted();
	const struct sock *sk = get(skb->sk);
	if (!c || !sk || get(sk->__sk_common.skc_state) != TCP_LISTEN)
		return 1;
	struct headers h = {};
	if (!read_headers(skb, &h) || h.protocol != IPPROTO_TCP)
		return 1;
	if ((from_be16(h.transport.flags) & (SYN | ACK | RST)) != SYN || !wanted_socket(c, sk))
		return 1;
	__u32 limit = get(sk->sk_max_ack_backlog);
	__u32 half_open = get(((const struct inet_connection_sock *)sk)->icsk_accept_queue.qlen.counter);
	/* As in sk_acceptq_is_full and inet_csk_reqsk_queue_is_full. */
	if (!c->every_syn && get(sk->sk_ack_backlog) <= limit && half_open < limit)
		return 1;
	struct trace_event *e = begin(TRACE_SYN_AT_LISTENER);
	if (!e)
		return 1;
	fill_socket(e, sk);
	fill_group(e, sk);
	fill_packet(e, skb, &h);
	end(e);
	return 1;
}

struct flow {
	__u8 from[16];
	__u8 to[16];
	__u16 source;
	__u16 destination;
	__u32 netns;
};

struct flow_owner {
	__u64 socket;
	__u64 inode;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, TRACE_FLOWS);
	__type(key, struct flow);
	__type(value, struct flow_owner);
} flows SEC(".maps");

/* A datagram whose flow had another socket of the group before. */
SEC("cgroup_skb/ingress") int flow_moved(struct __sk_buff *ctx)
{
	const struct sk_buff *skb = kernel_packet(ctx);
	const struct trace_config *c = wanted();
	const struct sock *sk = get(skb->sk);
	if (!c || !sk || get(sk->sk_protocol) != IPPROTO_UDP || !get(sk->sk_reuseport_cb))
		return 1;
	struct headers h = {};
	if (!read_headers(skb, &h) || !wanted_socket(c, sk))
		return 1;
	struct flow flow = {
		.source = h.transport.source,
		.destination = h.transport.destination,
		.netns = netns_of(sk),
	};
	if (h.version == 4) {
		bpf_probe_read_kernel(flow.from, 4, h.network + offsetof(struct ipv4, from));
		bpf_probe_read_kernel(flow.to, 4, h.network + offsetof(struct ipv4, to));
	} else {
		bpf_probe_read_kernel(flow.from, 16, h.network + offsetof(struct ipv6, from));
		bpf_probe_read_kernel(flow.to, 16, h.network + offsetof(struct ipv6, to));
	}
	struct flow_owner now = { .socket = (__u64)sk, .inode = inode_of(sk) };
	struct flow_owner *before = bpf_map_lookup_elem(&flows, &flow);
	if (before && before->socket == now.socket && before->inode == now.inode)
		return 1;
	struct flow_owner old = {};
	if (before)
		old = *before;
	bpf_map_update_elem(&flows, &flow, &now, 0);
	if (!before)
		return 1;
	struct trace_event *e = begin(TRACE_FLOW_MOVED);
	if (!e)
		return 1;
	fill_socket(e, sk);
	fill_group(e, sk);
	fill_packet(e, skb, &h);
	e->other = old.socket;
	e->other_inode = old.inode;
	end(e);
	return 1;
}

#endif
