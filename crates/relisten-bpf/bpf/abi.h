/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * What programs and user space share. The same structures are written down once more in src/abi.rs; a test
 * (tests/abi.rs) compares that with the type information of the object, name by name and byte by byte. Change VERSION
 * with every change: maps outlive the process that made them.
 */
#ifndef RELISTEN_ABI_H
#define RELISTEN_ABI_H

enum relisten_limit {
	RELISTEN_VERSION = 4,
	/* Reuseport groups of one instance. */
	RELISTEN_GROUPS = 16,
	/* Listeners of one instance. */
	RELISTEN_LISTENERS = 1024,
	/* Of one group: those that a policy chooses from, and those known at all. */
	RELISTEN_LIVE = 256,
	RELISTEN_MEMBERS = 512,
	RELISTEN_CPUS = 512,
	/* Connections that moved to another listener's queue and are still open. */
	RELISTEN_MOVED = 65536,
	/* Places at which one of them may stand, from that of its cookie on. */
	RELISTEN_MOVED_PLACES = 8,
	/* Ports of this machine that lead to a listener of their own, for each group. */
	RELISTEN_EXCEPTIONS = 64,
};

enum relisten_policy {
	RELISTEN_HASH = 0,
	RELISTEN_RANDOM = 1,
	RELISTEN_ROUND_ROBIN = 2,
	RELISTEN_LEAST_CONNECTIONS = 3,
	RELISTEN_CPU = 4,
	RELISTEN_CLIENT_IP = 5,
	RELISTEN_WEIGHTED = 6,
};

/* State of a listener: why it is to be avoided. With none of these it gets connections. */
enum relisten_avoid {
	/* Not in service: not ready, or nobody's. */
	RELISTEN_OUT = 1 << 0,
	/* Its worker is leaving. */
	RELISTEN_DRAINING = 1 << 1,
	/* Its worker may hang, or does. */
	RELISTEN_SUSPECTED = 1 << 2,
	RELISTEN_HUNG = 1 << 3,
	/* Its queue is full: a SYN would be dropped. */
	RELISTEN_FULL = 1 << 4,
	/* No reason to avoid it: its worker publishes its load. */
	RELISTEN_PUBLISHES = 1 << 30,
};

/*
 * What is looked at to choose and written when it was chosen: half a line of the cache, because what is paid for is
 * lines. The first connection on a machine that does something else finds all of them cold.
 */
struct relisten_listener {
	enum relisten_avoid state;
	/* Open connections: ESTABLISHED and CLOSE_WAIT. */
	int open;
	/* New connections that it got. */
	__u64 chosen;
	/* Of these, from the first on: those open, or not waited for any more. And all before this epoch. See expected.h. */
	__u32 settled;
	__u32 begun;
	/* What its connections carry, see label.h. The lower bits are its key; 0: none. */
	__u32 label;
	__u32 reserved;
};

/* What is only written, and more seldom. */
struct relisten_counters {
	/* Tells connections of an earlier user of this key from those of this one. */
	__u32 incarnation;
	__u32 reserved0;
	/* Of those chosen: in place of the one that the policy chose, and because nobody fit was left. */
	__u64 by_fallback;
	__u64 by_last_resort;
	__u64 established;
	/* Connections moved here when another listener left, and away from here. */
	__u64 moved_in;
	__u64 moved_out;
	__u64 reserved1[2];
} __attribute__((aligned(64)));

struct relisten_head {
	enum relisten_policy policy;
	/* keys[0..live) may be chosen, keys[live..members) when nobody else is left. */
	__u32 live;
	__u32 members;
	/* Sum of the weights. */
	__u32 total;
};

/* For client-ip: depends on the slot only. */
struct relisten_draw {
	__u32 seed;
	__u32 factor;
};

/* Who may be chosen. Head and table are written while no program uses them, then switched to. */
struct relisten_table {
	__u16 keys[RELISTEN_MEMBERS];
	/* Sum of the weights up to and including this one. */
	__u32 below[RELISTEN_LIVE];
	struct relisten_draw draws[RELISTEN_LIVE];
	/* For each CPU the place in keys, plus one; 0: none of its own. */
	__u16 cpus[RELISTEN_CPUS];
};

/* Written in one store. */
struct relisten_exception {
	__u16 port;
	__u16 key;
};

struct relisten_group {
	/* Which head and table are in force. */
	__u32 active;
	/* How long an epoch is, ticks of the kernel's clock. */
	__u32 epoch_ticks;
	struct relisten_head heads[2];
	/* When this epoch began, ticks. */
	__u64 epoch;
	/* How many of the exceptions to look at; 0 as a rule. */
	__u32 excepted;
	__u32 reserved0;
	/* CLOCK_MONOTONIC, ns: after this moment the kernel's hash decides, as if there were no program. 0: never. */
	__u64 tended_until;

	/* Round robin's. */
	__u64 turn;
	/* New connections for which nobody could be chosen: left to the kernel's hash. */
	__u64 by_kernel;
	/* Packets that are no SYN but found no connection: ACKs with SYN cookies, and strays. */
	__u64 acks;
	/* Half-open requests that were given a new listener. */
	__u64 moved_requests;
	/* What lost its listener and found none here. */
	__u64 move_failed;
	/* Connections moved whose count stayed behind because the table of moved ones was full. */
	__u64 move_uncounted;
	/* New connections that an exception led to their listener. */
	__u64 by_exception;
	__u64 reserved2;

	struct relisten_table tables[2];

	/* From such a port of the very address that it is sent to, a connection goes to this listener. 0: none. */
	struct relisten_exception exceptions[RELISTEN_EXCEPTIONS];
} __attribute__((aligned(64)));

/* The instance as a whole. */
struct relisten_instance {
	/* enum relisten_limit: RELISTEN_VERSION. */
	enum relisten_limit version;
	/* Open connections are being counted. */
	__u32 counting;
	/* Entries in the map of moved connections. */
	__s64 moved;
	__u64 reserved[6];
} __attribute__((aligned(64)));

/* Published by a worker about itself, when its listener says that it does. */
struct relisten_load {
	__u64 load;
	/* CLOCK_MONOTONIC, when its event loop last came round, ns. */
	__u64 beat;
};

/* Whose a connection is. Kept with the socket; connections inherit it from their listener. */
struct relisten_owner {
	__u32 key;
	__u32 incarnation;
};

/* A moved connection. */
struct relisten_moved {
	/* The connection's; 0: the entry is free. */
	__u64 cookie;
	struct relisten_owner owner;
};

#endif
