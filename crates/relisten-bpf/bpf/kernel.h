/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * What these programs use of the kernel's interface to BPF programs, declared here so that the object does not
 * depend on the headers of the machine that builds it. Names, numbers and offsets are the kernel's UAPI
 * (include/uapi/linux/bpf.h, https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/bpf.h).
 */
#ifndef RELISTEN_KERNEL_H
#define RELISTEN_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef _Bool bool;

#define true 1
#define false 0

#define NULL ((void *)0)
#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
/*
 * A function that the verifier looks at once, by itself, not anew for each place that it is called from. It must be
 * good for any arguments. Those with loops are such.
 */
#define __apart __attribute__((noinline))
/* What the compiler is not to know, lest it makes of it a variable that the verifier follows through a loop. */
#define opaque(x) __asm__ volatile("" : "+r"(x))
/* Which way goes straight on: between two packets the caches have been used by others, and each line that a jump leads
 * to is waited for. */
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))
#define offsetof(type, member) __builtin_offsetof(type, member)
/* Of a big-endian value in a packet. The object is for little-endian machines. */
#define from_be16(x) __builtin_bswap16(x)
#define from_be32(x) __builtin_bswap32(x)

/* Definitions of maps as the loader reads them from the object's type information. */
#define __uint(name, value) int(*name)[value]
#define __type(name, value) __typeof__(value) *name

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_REUSEPORT_SOCKARRAY = 20,
	BPF_MAP_TYPE_SK_STORAGE = 24,
};

enum { BPF_NOEXIST = 1 };
enum { BPF_F_NO_PREALLOC = 1 << 0, BPF_F_CLONE = 1 << 9, BPF_F_MMAPABLE = 1 << 10 };

enum { SK_DROP = 0, SK_PASS = 1 };
enum { BPF_HDR_START_NET = 1 };

enum { IPPROTO_TCP = 6 };
enum { AF_INET = 2, AF_INET6 = 10 };
enum { ETH_P_IP = 0x0800, ETH_P_IPV6 = 0x86dd };

/* enum in include/net/tcp_states.h; BPF programs are promised these by BPF_TCP_*. */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_RECV = 3,
	TCP_CLOSE_WAIT = 8,
	TCP_NEW_SYN_RECV = 12,
};

enum {
	BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB = 5,
	BPF_SOCK_OPS_STATE_CB = 10,
};
enum { BPF_SOCK_OPS_STATE_CB_FLAG = 1 << 2 };

struct bpf_sock {
	__u32 bound_dev_if;
	__u32 family;
	__u32 type;
	__u32 protocol;
	__u32 mark;
	__u32 priority;
	__u32 src_ip4;
	__u32 src_ip6[4];
	__u32 src_port;
	__u16 dst_port;
	__u16 : 16;
	__u32 dst_ip4;
	__u32 dst_ip6[4];
	__u32 state;
	int rx_queue_mapping;
};

struct sk_reuseport_md {
	void *data __attribute__((aligned(8)));
	void *data_end __attribute__((aligned(8)));
	__u32 len;
	__u32 eth_protocol;
	__u32 ip_protocol;
	__u32 bind_inany;
	__u32 hash;
	struct bpf_sock *sk __attribute__((aligned(8)));
	struct bpf_sock *migrating_sk __attribute__((aligned(8)));
};

struct bpf_sock_ops {
	__u32 op;
	__u32 args[4];
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 is_fullsock;
	__u32 snd_cwnd;
	__u32 srtt_us;
	__u32 bpf_sock_ops_cb_flags;
	__u32 state;
	__u32 rtt_min;
	__u32 snd_ssthresh;
	__u32 rcv_nxt;
	__u32 snd_nxt;
	__u32 snd_una;
	__u32 mss_cache;
	__u32 ecn_flags;
	__u32 rate_delivered;
	__u32 rate_interval_us;
	__u32 packets_out;
	__u32 retrans_out;
	__u32 total_retrans;
	__u32 segs_in;
	__u32 data_segs_in;
	__u32 segs_out;
	__u32 data_segs_out;
	__u32 lost_out;
	__u32 sacked_out;
	__u32 sk_txhash;
	__u64 bytes_received;
	__u64 bytes_acked;
	struct bpf_sock *sk __attribute__((aligned(8)));
};

_Static_assert(offsetof(struct sk_reuseport_md, sk) == 40, "as in the kernel");
_Static_assert(offsetof(struct sk_reuseport_md, migrating_sk) == 48, "as in the kernel");
_Static_assert(offsetof(struct bpf_sock, state) == 72, "as in the kernel");
_Static_assert(offsetof(struct bpf_sock_ops, bpf_sock_ops_cb_flags) == 84, "as in the kernel");
_Static_assert(offsetof(struct bpf_sock_ops, sk) == 184, "as in the kernel");

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u32 (*const bpf_get_prandom_u32)(void) = (void *)7;
static __u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static __u64 (*const bpf_get_socket_cookie)(void *ctx) = (void *)46;
static long (*const bpf_sock_ops_cb_flags_set)(struct bpf_sock_ops *ctx, int flags) = (void *)59;
static long (*const bpf_skb_load_bytes_relative)(const void *ctx, __u32 offset, void *to, __u32 len,
						 __u32 start_header) = (void *)68;
static long (*const bpf_sk_select_reuseport)(struct sk_reuseport_md *ctx, void *map, void *key,
					     __u64 flags) = (void *)82;
static void *(*const bpf_sk_storage_get)(void *map, void *sk, void *value, __u64 flags) = (void *)107;
static __u64 (*const bpf_jiffies64)(void) = (void *)118;
static __u64 (*const bpf_ktime_get_coarse_ns)(void) = (void *)160;
static long (*const bpf_loop)(__u32 count, void *callback, void *context, __u64 flags) = (void *)181;

#endif
