/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * Open connections per listener, whatever the server is. A listener's owner is kept with its socket and inherited by
 * its connections, so each knows whose it is.
 */
#ifndef RELISTEN_COUNT_H
#define RELISTEN_COUNT_H

static __always_inline bool is_open(__u32 state)
{
	return state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT;
}

enum counted { TOLD_FOR_US = 1, TOLD_ANYHOW = 2 };

static __always_inline void opened(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	if (!sk)
		return;
	struct relisten_owner *owner = bpf_sk_storage_get(&owners, sk, NULL, 0);
	/* Twice for one that was opened by TCP Fast Open. */
	if (!owner || owner->counted)
		return;
	struct relisten_counters *c = of_owner(owner);
	struct relisten_listener *l = listener(owner->key);
	if (!c || !l)
		return;
	/* From now on this program is told of its end, as another may be that asked for it. */
	__u32 flags = ops->bpf_sock_ops_cb_flags;
	if (bpf_sock_ops_cb_flags_set(ops, flags | BPF_SOCK_OPS_STATE_CB_FLAG))
		return;
	owner->counted = flags & BPF_SOCK_OPS_STATE_CB_FLAG ? TOLD_ANYHOW : TOLD_FOR_US;
	__sync_fetch_and_add(&l->open, 1);
	add(&c->established, 1);
	arrived(l);
}

static __always_inline void changed(struct bpf_sock_ops *ops)
{
	__u32 from = ops->args[0], to = ops->args[1];
	struct bpf_sock *sk = ops->sk;

	/* A Fast Open connection is counted while it is still in SYN_RECV. */
	if (!sk || is_open(to) || !(is_open(from) || from == TCP_SYN_RECV))
		return;
	struct relisten_owner *owner = bpf_sk_storage_get(&owners, sk, NULL, 0);
	if (!owner || !owner->counted)
		return;
	/* What comes after the end is of no interest: two calls less for each connection. */
	if (owner->counted == TOLD_FOR_US)
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags & ~BPF_SOCK_OPS_STATE_CB_FLAG);
	owner->counted = 0;

	struct relisten_owner whose = *owner;
	struct relisten_instance *i = the_instance();
	if (i && READ_ONCE(i->moved) > 0) {
		__u64 cookie = bpf_get_socket_cookie(ops);
		struct relisten_moved *now = moved_find(cookie);
		if (now) {
			whose = now->owner;
			moved_remove(now);
			add(&i->moved, -1);
		}
	}
	if (of_owner(&whose))
		add_open(whose.key, -1);
}

#endif
