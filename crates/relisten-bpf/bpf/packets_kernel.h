/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * More of the kernel's own structures than trace_kernel.h has. What stands behind three underscores is no part of a
 * name: these are other views of the same structures.
 */
#ifndef RELISTEN_PACKETS_KERNEL_H
#define RELISTEN_PACKETS_KERNEL_H

enum bpf_prog_type { BPF_PROG_TYPE_UNSPEC = 0 };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* The end of such a list is marked by an odd number in place of an address: twice the list's own number, plus one. */
struct hlist_nulls_node {
	struct hlist_nulls_node *next;
};

struct hlist_nulls_head {
	struct hlist_nulls_node *first;
};

struct inet_listen_hashbucket {
	struct hlist_nulls_head nulls_head;
};

struct inet_hashinfo {
	unsigned int lhash2_mask;
	struct inet_listen_hashbucket *lhash2;
};

struct inet_timewait_death_row {
	struct inet_hashinfo *hashinfo;
};

struct netns_ipv4 {
	struct inet_timewait_death_row tcp_death_row;
};

struct net___tables {
	struct netns_ipv4 ipv4;
};

struct sock_common___lookup {
	unsigned char skc_ipv6only : 1;
	int skc_bound_dev_if;
	int skc_incoming_cpu;
	struct hlist_nulls_node skc_nulls_node;
};

struct sock___lookup {
	struct sock_common___lookup __sk_common;
};

struct sk_buff___device {
	int skb_iif;
};

struct bpf_prog_aux {
	__u32 id;
	char name[16];
};

struct bpf_prog___kind {
	enum bpf_prog_type type;
	struct bpf_prog_aux *aux;
};

#pragma clang attribute pop

/* For bpf_skc_lookup_tcp. */
struct tuple4 {
	__u32 from;
	__u32 to;
	__u16 source;
	__u16 destination;
};

struct tuple6 {
	__u8 from[16];
	__u8 to[16];
	__u16 source;
	__u16 destination;
};

#define BPF_F_CURRENT_NETNS (-1ull)

static long (*const bpf_sk_release)(void *sk) = (void *)86;
static void *(*const bpf_skc_lookup_tcp)(void *ctx, void *tuple, __u32 size, __u64 netns, __u64 flags) = (void *)99;

/* __builtin_preserve_field_info's questions about a field of some bits. */
#define get_bits(field)                                                                                                \
	({                                                                                                             \
		__u64 got = 0;                                                                                         \
		bpf_probe_read_kernel(&got, __builtin_preserve_field_info(field, 1),                                   \
				      (const void *)sk + __builtin_preserve_field_info(field, 0));                     \
		got << __builtin_preserve_field_info(field, 4) >> __builtin_preserve_field_info(field, 5);             \
	})

#endif
