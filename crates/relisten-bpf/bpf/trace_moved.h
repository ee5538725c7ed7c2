/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * Who took over what waited in the queue of a listener that has closed. The kernel moves it between two moments that can be
 * seen: the change of the listener's state, and its end. These programs are called at the end of each connection as well,
 * so they are attached only while there are groups.
 */
#ifndef RELISTEN_TRACE_MOVED_H
#define RELISTEN_TRACE_MOVED_H

struct heirs {
	const struct sock_reuseport *group;
	const struct request_sock *next;
	__u64 listener;
	__u64 owner;
	__u64 inode;
	__u32 size;
};

static long tell_moved(__u32 i, struct heirs *m)
{
	(void)i;
	if (!m->next)
		return 1;
	const struct sock *sk = get(m->next->sk);
	m->next = get(m->next->dl_next);
	__u64 key = (__u64)sk;
	__u64 *before = bpf_map_lookup_elem(&waiting, &key);
	if (!before || *before != m->listener)
		return 0;
	bpf_map_delete_elem(&waiting, &key);
	struct trace_event *e = begin(TRACE_MIGRATED);
	if (!e)
		return 0;
	fill_common(e, sk);
	e->protocol = IPPROTO_TCP;
	e->other = m->owner;
	e->other_inode = m->inode;
	end(e);
	return 0;
}

static long look_into_member(__u32 i, struct heirs *m)
{
	if (i >= m->size)
		return 1;
	const struct sock *owner = get(m->group->socks[i]);
	m->owner = (__u64)owner;
	m->inode = inode_of(owner);
	m->next = get(((const struct inet_connection_sock *)owner)->icsk_accept_queue.rskq_accept_head);
	bpf_loop(TRACE_QUEUED, tell_moved, m, 0);
	return 0;
}

/* Only listeners are in a group, and in the list of those that had something in their queue only closed ones. */
static __always_inline int listener_ended(const struct sock *sk)
{
	struct heirs m = { .group = get(sk->sk_reuseport_cb), .listener = (__u64)sk };
	if (!m.group || !bpf_map_lookup_elem(&had_queue, &m.listener))
		return 0;
	bpf_map_delete_elem(&had_queue, &m.listener);
	m.size = get(m.group->num_socks);
	bpf_loop(TRACE_MEMBERS, look_into_member, &m, 0);
	return 0;
}

/* (const struct sock *sk): after close(2), and at the end of a process. */
SEC("raw_tp/tcp_destroy_sock") int listener_destroyed(struct bpf_raw_tracepoint_args *ctx)
{
	return listener_ended((void *)ctx->args[0]);
}

/* (const struct sock *sk): the last thing that shutdown(2) does to a listener (tcp_disconnect). */
SEC("raw_tp/inet_sk_error_report") int listener_shut_down(struct bpf_raw_tracepoint_args *ctx)
{
	return listener_ended((void *)ctx->args[0]);
}

#endif
