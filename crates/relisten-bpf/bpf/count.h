/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/* Open connections per listener, whatever the server is. A connection knows by label.h whose it is. */
#ifndef RELISTEN_COUNT_H
#define RELISTEN_COUNT_H

static __always_inline bool is_open(__u32 state)
{
	return state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT;
}

static __always_inline void opened(struct bpf_sock_ops *ops, bool labels)
{
	struct bpf_sock *sk = ops->sk;
	__u32 key = 0;
	struct relisten_listener *l = sk ? listener_of(sk, labels, &key) : NULL;

	if (!l)
		return;
	struct relisten_counters *c = counters_of(key);
	/* From now on this program is told of its end, as another may be that asked for it. */
	if (!c || bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG))
		return;
	__sync_fetch_and_add(&l->open, 1);
	add(&c->established, 1);
	arrived(l);
}

static __always_inline void changed(struct bpf_sock_ops *ops, bool labels)
{
	__u32 from = ops->args[0], to = ops->args[1];
	struct bpf_sock *sk = ops->sk;
	__u32 key = 0;

	/* A Fast Open connection is counted while it is still in SYN_RECV. */
	if (!sk || is_open(to) || !(is_open(from) || from == TCP_SYN_RECV))
		return;
	/* It may be counted elsewhere by now. */
	struct relisten_instance *i = the_instance();
	if (unlikely(i && READ_ONCE(i->moved) > 0)) {
		struct relisten_moved *now = moved_find(bpf_get_socket_cookie(ops));
		if (now) {
			struct relisten_owner whose = now->owner;
			moved_remove(now);
			add(&i->moved, -1);
			if (of_owner(&whose))
				add_open(whose.key, -1);
			return;
		}
	}
	struct relisten_listener *l = listener_of(sk, labels, &key);
	if (l)
		__sync_fetch_and_add(&l->open, -1);
}

#endif
