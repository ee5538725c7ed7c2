/* SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only */
/*
 * What the programs of packets.bpf.c and user space share, beyond trace_abi.h. The same is written down once more in
 * src/trace/sighting.rs.
 */
#ifndef RELISTEN_PACKETS_ABI_H
#define RELISTEN_PACKETS_ABI_H

enum packet_what {
	/* At the socket that it was looked up to, or from which it leaves. */
	PACKET_SEEN = 1,
	/* A SYN at the end of its handling: the stack has the callers of the lookup. */
	PACKET_HANDLED = 2,
	/* The handshake's last ACK has made a connection: the stack has the callers of the lookup. */
	PACKET_ESTABLISHED = 3,
	/* A reset is being sent, for this reason. */
	PACKET_RESET = 4,
	/* A SYN goes from its listener to the making of a request (fentry). */
	PACKET_REQUESTED = 5,
	/* An ACK is compared with its request (fentry). */
	PACKET_CHECKED = 6,
};

enum packet_unknown { PACKET_NO_INDEX = 0xffff, PACKET_NO_MATCHES = 0xffffffff };

struct packet_event {
	/* Its kind is always TRACE_PACKET. */
	struct trace_event base;
	/* The half-open request that the packet belongs to; 0: there is none. */
	__u64 request;
	/* The listener that the hash alone would pick. */
	__u64 by_hash;
	__u64 by_hash_inode;
	enum packet_what what;
	__u32 cpu;
	/* The hash of the connection's addresses, if `hashed`. */
	__u32 hash;
	__u32 request_references;
	/* Listeners that fit the packet. */
	__u32 matches;
	/* The score of the one that it reached. */
	__u32 score;
	/* The program that picks in the group. */
	__u32 program_id;
	__u32 program_type;
	__u16 by_hash_index;
	__u8 hashed;
	__u8 unused[5];
	__u8 program_name[16];
};

#endif
