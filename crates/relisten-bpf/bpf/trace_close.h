/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/* Listeners that come and go, with what waits in them; and connections that got no port. */
#ifndef RELISTEN_TRACE_CLOSE_H
#define RELISTEN_TRACE_CLOSE_H

/* Listeners that will be moved from, and whose queue was not empty as they closed. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, __u64);
	__type(value, __u64);
} had_queue SEC(".maps");

/* What waited there, with the listener. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, TRACE_WAITING);
	__type(key, __u64);
	__type(value, __u64);
} waiting SEC(".maps");

struct queue {
	const struct request_sock *next;
	__u64 listener;
	__u64 inode;
	__u32 told;
	bool migrates;
};

static long tell_queued(__u32 i, struct queue *q)
{
	(void)i;
	if (!q->next)
		return 1;
	const struct sock *sk = get(q->next->sk);
	q->next = get(q->next->dl_next);
	q->told++;
	__u64 key = (__u64)sk;
	if (q->migrates)
		bpf_map_update_elem(&waiting, &key, &q->listener, 0);
	struct trace_event *e = begin(TRACE_QUEUED_AT_CLOSE);
	if (!e)
		return 0;
	fill_common(e, sk);
	e->protocol = IPPROTO_TCP;
	e->other = q->listener;
	e->other_inode = q->inode;
	end(e);
	return 0;
}

/*
 * The state changes before the queue is emptied (__tcp_close, tcp_disconnect), in the process that closes: now is the
 * moment to see who waits in it. It has left its group already, unless requests are to be moved by the sysctl or by a
 * program (reuseport_stop_listen_sock): then it is still tied to the group, though no member.
 */
static __always_inline int listener_closed(void *ctx, const struct sock *sk)
{
	const struct trace_config *c = wanted();
	if (!c || !wanted_socket(c, sk))
		return 0;
	struct trace_event *e = begin(TRACE_LISTENER_CLOSED);
	if (!e)
		return 0;
	fill_socket(e, sk);
	e->state = TCP_LISTEN;
	e->new_state = TCP_CLOSE;
	fill_group(e, sk);
	e->migrates = get(sk->sk_reuseport_cb) != NULL;
	fill_stack(e, ctx);
	const struct inet_connection_sock *listener = (void *)sk;
	struct queue q = {
		.next = get(listener->icsk_accept_queue.rskq_accept_head),
		.listener = (__u64)sk,
		.inode = e->inode,
		.migrates = e->migrates,
	};
	__u32 waits = e->queue;
	end(e);
	if (!waits)
		return 0;
	if (q.migrates)
		bpf_map_update_elem(&had_queue, &q.listener, &q.listener, 0);
	bpf_loop(TRACE_QUEUED, tell_queued, &q, 0);
	if (waits > q.told)
		count_lost(false, waits - q.told);
	return 0;
}

static __always_inline int listener_opened(const struct sock *sk, int before)
{
	const struct trace_config *c = wanted();
	if (!c || !wanted_socket(c, sk))
		return 0;
	struct trace_event *e = begin(TRACE_LISTENER_OPENED);
	if (!e)
		return 0;
	fill_socket(e, sk);
	e->state = before;
	e->new_state = TCP_LISTEN;
	end(e);
	return 0;
}

/*
 * connect(2) failed before a SYN was sent, and the socket never had a local port: there was none left
 * (inet_hash_connect sets it last). No counter tells that.
 */
static __always_inline int connect_failed(const struct sock *sk)
{
	if (local_port(sk))
		return 0;
	const struct trace_config *c = wanted();
	if (!c || !wanted_socket(c, sk))
		return 0;
	struct trace_event *e = begin(TRACE_CONNECT_FAILED);
	if (!e)
		return 0;
	fill_socket(e, sk);
	end(e);
	return 0;
}

#endif
