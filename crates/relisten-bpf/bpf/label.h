/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * Whose a connection is. The cheap way is a number, its label, that a listener's socket carries where the kernel keeps
 * something that means nothing to a socket that has its port already (IP_LOCAL_PORT_RANGE), and that its connections
 * inherit with all the rest of it. Nothing is allocated for a connection. Needs Linux 6.8, the kernel's type
 * information and CAP_PERFMON.
 *
 * The other way is storage kept with the socket, which the kernel makes and frees for each connection: two allocations
 * and frees, 3 to 4 % of what a short connection costs.
 */
#ifndef RELISTEN_LABEL_H
#define RELISTEN_LABEL_H

/* Only names count: the offset is put in when the program is loaded (CO-RE). Before 6.8 the field was of another type. */
struct inet_sock {
	__u32 local_port_range;
} __attribute__((preserve_access_index));

/* To the kernel the address is one of struct tcp_sock, which begins with a struct inet_sock. */
static struct inet_sock *(*const bpf_skc_to_tcp_sock)(void *sk) = (void *)137;

/* The listener whose label it carries, and its key; NULL for nobody's, and when the label is no longer in use. */
static __always_inline struct relisten_listener *by_label(struct bpf_sock *sk, __u32 *key)
{
	struct inet_sock *inet = bpf_skc_to_tcp_sock(sk);
	if (!inet)
		return NULL;
	__u32 label = inet->local_port_range;
	*key = label & (RELISTEN_LISTENERS - 1);
	struct relisten_listener *l = listener(*key);
	return label && l && READ_ONCE(l->label) == label ? l : NULL;
}

/* By the owner kept with it, unless its key has been given to another listener since. */
static __always_inline struct relisten_listener *by_storage(struct bpf_sock *sk, __u32 *key)
{
	struct relisten_owner *owner = bpf_sk_storage_get(&owners, sk, NULL, 0);
	if (!owner || !of_owner(owner))
		return NULL;
	*key = owner->key;
	return listener(owner->key);
}

static __always_inline struct relisten_listener *listener_of(struct bpf_sock *sk, bool labels, __u32 *key)
{
	return labels ? by_label(sk, key) : by_storage(sk, key);
}

#endif
