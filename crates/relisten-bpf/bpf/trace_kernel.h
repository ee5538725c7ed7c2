/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * The kernel's own structures, as far as they are read here. Only names count: where a field lies is put in when the
 * programs are loaded, from the type information of the running kernel (CO-RE).
 */
#ifndef RELISTEN_TRACE_KERNEL_H
#define RELISTEN_TRACE_KERNEL_H

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct in6_addr {
	__u8 bytes[16];
};

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	__s64 counter;
} atomic64_t;

typedef struct {
	atomic_t refs;
} refcount_t;

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	unsigned int skc_hash;
	__u16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
	refcount_t skc_refcnt;
};

struct bpf_prog;

struct sock_reuseport {
	__u16 num_socks;
	struct bpf_prog *prog;
	struct sock *socks[0];
};

struct socket {
	int state;
};

struct inode {
	unsigned long long i_ino;
};

struct socket_alloc {
	struct socket socket;
	struct inode vfs_inode;
};

struct sock {
	struct sock_common __sk_common;
	struct socket *sk_socket;
	struct sock_reuseport *sk_reuseport_cb;
	__u16 sk_protocol;
	__u32 sk_ack_backlog;
	__u32 sk_max_ack_backlog;
};

struct inet_sock {
	__u16 inet_sport;
};

struct request_sock {
	struct request_sock *dl_next;
	struct sock *sk;
};

struct request_sock_queue {
	atomic_t qlen;
	struct request_sock *rskq_accept_head;
};

struct inet_connection_sock {
	struct request_sock_queue icsk_accept_queue;
};

struct net_device {
	possible_net_t nd_net;
};

struct dst_entry {
	struct net_device *dev;
};

struct sk_buff {
	struct sock *sk;
	unsigned long _skb_refdst;
	struct net_device *dev;
	unsigned int len;
	__u16 transport_header;
	__u16 network_header;
	unsigned char *head;
};

struct signal_struct {
	int group_exit_code;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[0];
};

struct task_struct {
	int pid;
	int tgid;
	char comm[16];
	struct task_struct *group_leader;
	struct pid *thread_pid;
	unsigned int flags;
	int exit_code;
	struct signal_struct *signal;
};

#pragma clang attribute pop

struct bpf_raw_tracepoint_args {
	__u64 args[0];
};

enum { BPF_MAP_TYPE_PERCPU_ARRAY = 6, BPF_MAP_TYPE_LRU_HASH = 9, BPF_MAP_TYPE_RINGBUF = 27 };
enum { TCP_SYN_SENT = 2, TCP_TIME_WAIT = 6, TCP_CLOSE = 7, TCP_LISTEN = 10 };
enum { IPPROTO_UDP = 17 };
/* What a route of a packet is marked with. */
#define SKB_DST_NOREF 1ul
/* User space looks at the ring by itself, so a busy moment costs no wake-ups. */
enum { BPF_RB_NO_WAKEUP = 1 << 0 };

/* __builtin_preserve_field_info's question whether a field is there. */
#define exists(field) __builtin_preserve_field_info(field, 2)

static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static __u64 (*const bpf_get_current_task)(void) = (void *)35;
static long (*const bpf_get_stack)(void *ctx, void *to, __u32 size, __u64 flags) = (void *)67;
static long (*const bpf_probe_read_kernel)(void *to, __u32 size, const void *from) = (void *)113;
static void *(*const bpf_ringbuf_reserve)(void *ring, __u64 size, __u64 flags) = (void *)131;
static void (*const bpf_ringbuf_submit)(void *data, __u64 flags) = (void *)132;
static long (*const bpf_get_func_ret)(void *ctx, __u64 *to) = (void *)184;

#define copy(to, from) bpf_probe_read_kernel(&(to), sizeof(to), &(from))
/* The value of a field behind a pointer that is no more than a number here. Zero where it can't be read. */
#define get(field)                                                                                                     \
	({                                                                                                             \
		__typeof_unqual__(field) got = 0;                                                                           \
		copy(got, field);                                                                                      \
		got;                                                                                                   \
	})

/* An argument of a traced function, as a number. */
static __always_inline void *argument(const __u64 *args, int number)
{
	void *value = NULL;
	bpf_probe_read_kernel(&value, sizeof(value), &args[number]);
	return value;
}

#endif
