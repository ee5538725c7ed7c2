/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * Programs of relisten: steering of a reuseport group's new connections and of those whose listener leaves
 * (sk_reuseport), and counting of open connections (sock_ops). `cargo xtask bpf` builds the object.
 *
 * The source is MIT OR Apache-2.0 like the rest of relisten. The loaded program also says GPL to the kernel, because
 * some helpers are only for programs that do; so these files may be used under GPL-2.0 as well.
 *
 * Needs Linux 5.17: ctx->migrating_sk is there since 5.14, bpf_loop since 5.17.
 */
#include "kernel.h"
#include "abi.h"
#include "maps.h"
#include "moved.h"
#include "expected.h"
#include "choose.h"
#include "steer.h"
#include "label.h"
#include "count.h"

char _license[] SEC("license") = "Dual MIT/GPL";

/* One program for each group: which group it is for can't be told cheaply from what the kernel passes. */
#define GROUP(n)                                                                                                       \
	SEC("sk_reuseport/migrate") int group_##n(struct sk_reuseport_md *ctx)                                         \
	{                                                                                                              \
		return steer(ctx, n);                                                                                  \
	}

GROUP(0)
GROUP(1)
GROUP(2)
GROUP(3)
GROUP(4)
GROUP(5)
GROUP(6)
GROUP(7)
GROUP(8)
GROUP(9)
GROUP(10)
GROUP(11)
GROUP(12)
GROUP(13)
GROUP(14)
GROUP(15)
_Static_assert(RELISTEN_GROUPS == 16, "one program each");

static __always_inline int counted(struct bpf_sock_ops *ops, bool labels)
{
	if (ops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		opened(ops, labels);
	else if (ops->op == BPF_SOCK_OPS_STATE_CB)
		changed(ops, labels);
	return 1;
}

/* One of these is loaded: the first where it can be. */
SEC("sockops") int count_labels(struct bpf_sock_ops *ops)
{
	return counted(ops, true);
}

SEC("sockops") int count(struct bpf_sock_ops *ops)
{
	return counted(ops, false);
}

/* What the time of `steer` is measured against: the kernel's part, */
SEC("sk_reuseport/migrate") int nothing(struct sk_reuseport_md *ctx)
{
	(void)ctx;
	return SK_PASS;
}

/* and the least that a program with a socket array can do. */
SEC("sk_reuseport/migrate") int first(struct sk_reuseport_md *ctx)
{
	__u32 key = 0;
	bpf_sk_select_reuseport(ctx, &sockets, &key, 0);
	return SK_PASS;
}
