/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/* Filling in an event: who ran, which socket, which packet. */
#ifndef RELISTEN_TRACE_FILL_H
#define RELISTEN_TRACE_FILL_H

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, TRACE_RING);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace_config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace_lost);
} lost SEC(".maps");

static __always_inline struct trace_config *wanted(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&config, &zero);
}

static __always_inline void count_lost(bool ring, __u64 number)
{
	__u32 zero = 0;
	struct trace_lost *l = bpf_map_lookup_elem(&lost, &zero);
	if (l)
		__sync_fetch_and_add(ring ? &l->ring : &l->queued, number);
}

static __always_inline __u32 netns_of(const struct sock *sk)
{
	return get(get(sk->__sk_common.skc_net.net)->ns.inum);
}

static __always_inline bool wanted_port(const struct trace_config *c, __u16 a, __u16 b)
{
	return !c->port || c->port == a || c->port == b;
}

/* A port that the kernel had chosen is given back before the state changes; where it is sent from stays. */
static __always_inline __u16 local_port(const struct sock *sk)
{
	__u16 port = get(sk->__sk_common.skc_num);
	return port ? port : from_be16(get(((const struct inet_sock *)sk)->inet_sport));
}

/* Is this socket's network namespace, and one of its ports, asked for? */
static __always_inline bool wanted_socket(const struct trace_config *c, const struct sock *sk)
{
	if (c->port && !wanted_port(c, local_port(sk), from_be16(get(sk->__sk_common.skc_dport))))
		return false;
	return !c->netns || c->netns == netns_of(sk);
}

/* A process has a number in its own namespace and in each one above. 0: it can't be seen from there. */
static __always_inline __u32 number_in(const struct pid *pid, __u32 namespace)
{
	__u32 level = get(pid->level);
#pragma unroll
	for (int i = 0; i < 8; i++) {
		if (i <= level && get(get(pid->numbers[i].ns)->ns.inum) == namespace)
			return get(pid->numbers[i].nr);
	}
	return 0;
}

static __always_inline void fill_process(struct trace_event *e)
{
	const struct task_struct *task = (void *)bpf_get_current_task();
	const struct trace_config *c = wanted();
	/* Read from the task, because not every kind of program may call the helpers that tell the same: those of a cgroup's
	 * packets may not before Linux 6.12 and later. */
	e->pid = get(task->tgid);
	e->tid = get(task->pid);
	if (c && c->pidns) {
		const struct task_struct *leader = get(task->group_leader);
		e->pid = number_in(get(leader->thread_pid), c->pidns);
		e->tid = number_in(get(task->thread_pid), c->pidns);
	}
	copy(e->comm, task->comm);
	e->task_flags = get(task->flags);
	e->exit_code = get(task->exit_code);
	if (!e->exit_code)
		e->exit_code = get(get(task->signal)->group_exit_code);
}

static __always_inline struct trace_event *begin(enum trace_kind kind)
{
	struct trace_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count_lost(true, 1);
		return NULL;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->kind = kind;
	e->reason = -1;
	e->count = 1;
	e->group_index = 0xffff;
	e->time = bpf_ktime_get_ns();
	fill_process(e);
	return e;
}

static __always_inline void end(struct trace_event *e)
{
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/* An IPv4 address as IPv6 knows it (::ffff:a.b.c.d). */
static __always_inline void mapped(__u8 *to, __u32 address)
{
	to[10] = to[11] = 0xff;
	__builtin_memcpy(to + 12, &address, 4);
}

static __always_inline __u64 inode_of(const struct sock *sk)
{
	const struct socket_alloc *s = (void *)get(sk->sk_socket);
	return s ? get(s->vfs_inode.i_ino) : 0;
}

static __always_inline void fill_addresses(struct trace_event *e, const struct sock *sk)
{
	e->family = get(sk->__sk_common.skc_family);
	if (e->family == AF_INET6) {
		copy(e->local, sk->__sk_common.skc_v6_rcv_saddr);
		copy(e->remote, sk->__sk_common.skc_v6_daddr);
	} else {
		mapped(e->local, get(sk->__sk_common.skc_rcv_saddr));
		mapped(e->remote, get(sk->__sk_common.skc_daddr));
	}
	e->local_port = get(sk->__sk_common.skc_num);
	e->remote_port = from_be16(get(sk->__sk_common.skc_dport));
}

/* Of any socket, those in TIME_WAIT and half-open ones included: they have the common part only. */
static __always_inline void fill_common(struct trace_event *e, const struct sock *sk)
{
	e->socket = (__u64)sk;
	e->state = get(sk->__sk_common.skc_state);
	e->cookie = get(sk->__sk_common.skc_cookie.counter);
	e->references = get(sk->__sk_common.skc_refcnt.refs.counter);
	e->hash = get(sk->__sk_common.skc_hash);
	e->netns = netns_of(sk);
	fill_addresses(e, sk);
}

static __always_inline void fill_socket(struct trace_event *e, const struct sock *sk)
{
	fill_common(e, sk);
	if (e->state == TCP_TIME_WAIT || e->state == TCP_NEW_SYN_RECV)
		return;
	e->local_port = local_port(sk);
	e->inode = inode_of(sk);
	e->protocol = get(sk->sk_protocol);
	if (e->protocol != IPPROTO_TCP)
		return;
	e->queue = get(sk->sk_ack_backlog);
	e->queue_limit = get(sk->sk_max_ack_backlog);
	e->half_open = get(((const struct inet_connection_sock *)sk)->icsk_accept_queue.qlen.counter);
}

struct member {
	const struct sock_reuseport *group;
	const struct sock *socket;
	__u32 size;
	__u32 found;
};

static long look_for_member(__u32 i, struct member *m)
{
	if (i >= m->size)
		return 1;
	if (get(m->group->socks[i]) != m->socket)
		return 0;
	m->found = i;
	return 1;
}

static __always_inline void fill_group(struct trace_event *e, const struct sock *sk)
{
	struct member m = { .group = get(sk->sk_reuseport_cb), .socket = sk, .found = 0xffff };
	if (!m.group)
		return;
	m.size = get(m.group->num_socks);
	e->group_size = m.size;
	e->group_program = get(m.group->prog) != NULL;
	bpf_loop(TRACE_MEMBERS, look_for_member, &m, 0);
	e->group_index = m.found;
}

struct ipv4 {
	__u8 version_length;
	__u8 tos;
	__u16 length;
	__u16 id;
	__u16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__u32 from;
	__u32 to;
};

struct ipv6 {
	__u8 version;
	__u8 class;
	__u16 flow;
	__u16 length;
	__u8 next;
	__u8 hops;
	__u8 from[16];
	__u8 to[16];
};

struct transport {
	__u16 source;
	__u16 destination;
	__u32 seq;
	__u32 ack;
	__u16 flags;
	__u16 window;
	__u16 checksum;
	__u16 urgent;
};

struct headers {
	struct transport transport;
	__u8 protocol;
	__u8 version;
	/* Where the headers begin. */
	const __u8 *network;
};

/* False: no packet of TCP or UDP. */
static __always_inline bool read_headers(const struct sk_buff *skb, struct headers *h)
{
	h->network = get(skb->head) + get(skb->network_header);
	__u8 first = 0;
	bpf_probe_read_kernel(&first, 1, h->network);
	h->version = first >> 4;
	__u32 length;
	if (h->version == 4) {
		bpf_probe_read_kernel(&h->protocol, 1, h->network + offsetof(struct ipv4, protocol));
		length = (first & 15) * 4;
	} else if (h->version == 6) {
		bpf_probe_read_kernel(&h->protocol, 1, h->network + offsetof(struct ipv6, next));
		length = sizeof(struct ipv6);
	} else {
		return false;
	}
	if (h->protocol != IPPROTO_TCP && h->protocol != IPPROTO_UDP)
		return false;
	/* A datagram's header is shorter; what stands behind it is not used. */
	return bpf_probe_read_kernel(&h->transport, h->protocol == IPPROTO_TCP ? sizeof(h->transport) : 8,
				     h->network + length) == 0;
}

/* TCP takes the device off, but its route stays. 0: it is not known. */
static __always_inline __u32 netns_of_packet(const struct sk_buff *skb)
{
	const struct net_device *dev = get(skb->dev);
	if (!dev) {
		const struct dst_entry *dst = (void *)(get(skb->_skb_refdst) & ~SKB_DST_NOREF);
		dev = dst ? get(dst->dev) : NULL;
	}
	return dev ? get(get(dev->nd_net.net)->ns.inum) : 0;
}

static __always_inline bool wanted_packet(const struct trace_config *c, const struct headers *h)
{
	return wanted_port(c, from_be16(h->transport.source), from_be16(h->transport.destination));
}

static __always_inline void fill_packet(struct trace_event *e, const struct sk_buff *skb, const struct headers *h)
{
	e->packet_protocol = h->protocol;
	e->packet_source = from_be16(h->transport.source);
	e->packet_destination = from_be16(h->transport.destination);
	if (h->protocol == IPPROTO_TCP) {
		e->packet_seq = from_be32(h->transport.seq);
		e->packet_ack = from_be32(h->transport.ack);
		e->packet_flags = from_be16(h->transport.flags);
		e->packet_window = from_be16(h->transport.window);
		e->packet_checksum = from_be16(h->transport.checksum);
		e->packet_urgent = from_be16(h->transport.urgent);
	}
	e->packet_length = get(skb->len);
	if (!e->netns)
		e->netns = netns_of_packet(skb);
	if (h->version == 4) {
		struct ipv4 ip = {};
		bpf_probe_read_kernel(&ip, sizeof(ip), h->network);
		e->packet_family = AF_INET;
		e->packet_ttl = ip.ttl;
		e->packet_tos = ip.tos;
		e->packet_id = from_be16(ip.id);
		mapped(e->packet_from, ip.from);
		mapped(e->packet_to, ip.to);
	} else {
		struct ipv6 ip = {};
		bpf_probe_read_kernel(&ip, sizeof(ip), h->network);
		e->packet_family = AF_INET6;
		e->packet_ttl = ip.hops;
		e->packet_tos = (ip.version << 4) | (ip.class >> 4);
		__builtin_memcpy(e->packet_from, ip.from, 16);
		__builtin_memcpy(e->packet_to, ip.to, 16);
	}
}

static __always_inline void fill_stack(struct trace_event *e, void *ctx)
{
	long length = bpf_get_stack(ctx, e->stack, sizeof(e->stack), 0);
	e->stack_length = length > 0 ? length / 8 : 0;
}

#endif
