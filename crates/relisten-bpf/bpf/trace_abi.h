/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * What the programs of trace.bpf.c and user space share. The same is written down once more in src/trace/record.rs and
 * src/trace/config.rs; tests/trace_abi.rs compares that with the object's type information.
 */
#ifndef RELISTEN_TRACE_ABI_H
#define RELISTEN_TRACE_ABI_H

enum trace_limit {
	/* Return addresses of one stack. */
	TRACE_STACK = 20,
	/* Numbers of reasons that can be asked for. */
	TRACE_REASONS = 256,
	/* Connections of one closing listener's queue that are told one by one. */
	TRACE_QUEUED = 512,
	/* Members of a group that are searched for one of them. */
	TRACE_MEMBERS = 256,
	/* Connections that may be moved, of all listeners that close at a time. */
	TRACE_WAITING = 4096,
	/* Flows of UDP that are remembered. */
	TRACE_FLOWS = 16384,
	TRACE_RING = 1 << 22,
};

enum trace_kind {
	TRACE_RESET_SENT = 1,
	TRACE_RESET_RECEIVED = 2,
	TRACE_LISTENER_CLOSED = 3,
	TRACE_LISTENER_OPENED = 4,
	/* A connection that was in the queue of a listener as it closed. */
	TRACE_QUEUED_AT_CLOSE = 5,
	TRACE_DROPPED = 6,
	TRACE_CONNECT_FAILED = 7,
	TRACE_SYN_AT_LISTENER = 8,
	TRACE_DATAGRAM_DROPPED = 9,
	TRACE_PACKET = 10,
	TRACE_FLOW_MOVED = 11,
	/* The listener that took over a connection whose own one had closed. */
	TRACE_MIGRATED = 12,
	/* The member of a group that the kernel picked. */
	TRACE_PICKED = 13,
};

/* What is seen at a packet's socket. */
enum trace_way { TRACE_IN = 0, TRACE_OUT = 1 };

/* One event. Ports and addresses are of the socket, from its own point of view; in `packet`, as in the packet. */
struct trace_event {
	__u64 time;
	__u64 socket;
	__u64 inode;
	__u64 cookie;
	/* Where the packet was freed. */
	__u64 location;
	enum trace_kind kind;
	/* The kernel's number of the reason; -1: this kernel gives none. */
	int reason;
	__u32 pid;
	__u32 tid;
	__u32 task_flags;
	int exit_code;
	__u32 netns;
	/* Connections waiting to be accepted, the limit, and half-open requests. */
	__u32 queue;
	__u32 queue_limit;
	__u32 half_open;
	__u32 references;
	__u32 hash;
	/* How many events of this kind stand behind this one. */
	__u32 count;
	__u32 packet_seq;
	__u32 packet_ack;
	__u32 packet_length;
	__u32 stack_length;
	__u16 family;
	__u16 local_port;
	__u16 remote_port;
	__u16 packet_family;
	__u16 packet_source;
	__u16 packet_destination;
	__u16 packet_window;
	__u16 packet_checksum;
	__u16 packet_urgent;
	__u16 packet_id;
	/* Flags as on the wire: the 13th and 14th byte of the header. */
	__u16 packet_flags;
	__u16 group_size;
	/* Place in the group; 0xffff: not found, or in none. */
	__u16 group_index;
	__u8 group_program;
	__u8 state;
	__u8 new_state;
	__u8 protocol;
	__u8 packet_protocol;
	__u8 packet_ttl;
	__u8 packet_tos;
	__u8 way;
	/* A listener that closes stays in its group, so the kernel will try to move what waits for it. */
	__u8 migrates;
	__u8 unused[3];
	__u8 comm[16];
	__u8 local[16];
	__u8 remote[16];
	__u8 packet_from[16];
	__u8 packet_to[16];
	/* Another socket: the one before of a flow, the new one of a migration. */
	__u64 other;
	__u64 other_inode;
	__u64 stack[TRACE_STACK];
};

/* What user space wants. It may be changed at any time. */
struct trace_config {
	/* Inode number of the network namespace; 0: all. */
	__u32 netns;
	/* Only this port, on either side; 0: all. */
	__u32 port;
	/* Number of the reason that the kernel gives where it has none. */
	__u32 unspecified;
	/* Every SYN at a listener is told, not only those that are dropped there. */
	__u32 every_syn;
	/* Inode number of the process namespace whose numbers are told; 0: those of the kernel itself. */
	__u32 pidns;
	/* Which reasons of dropped packets are told. */
	__u8 reasons[TRACE_REASONS];
};

/* Events that were not told, each counted once. */
struct trace_lost {
	/* The ring was full. */
	__u64 ring;
	/* Queued connections beyond TRACE_QUEUED. */
	__u64 queued;
};

#endif
