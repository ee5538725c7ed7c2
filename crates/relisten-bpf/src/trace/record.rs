//! `struct trace_event`, byte by byte.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use thiserror::Error;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        /// What happened; `enum trace_kind`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Kind {
            $($(#[$doc])* $name,)*
            /// A number that this version does not know.
            #[default]
            Unknown,
        }

        impl Kind {
            fn from_number(number: u32) -> Self {
                match number { $($number => Self::$name,)* _ => Self::Unknown }
            }
        }
    };
}

kinds! {
    /// This machine sent a reset.
    ResetSent = 1;
    /// A reset arrived for a connection.
    ResetReceived = 2;
    /// A listener stops listening. What is in its queue follows as [`QueuedAtClose`](Kind::QueuedAtClose).
    ListenerClosed = 3;
    /// A socket listens.
    ListenerOpened = 4;
    /// A connection that waits in the queue of a listener that closes ([`Record::other`]).
    QueuedAtClose = 5;
    /// A packet was dropped.
    Dropped = 6;
    /// `connect` failed before a SYN was sent, for want of a local port.
    ConnectFailed = 7;
    /// A SYN reached a listener that won't take it (or any, if all are asked for).
    SynAtListener = 8;
    /// A UDP socket could not take a datagram.
    DatagramDropped = 9;
    /// A packet of a handshake.
    Packet = 10;
    /// A UDP flow has another socket than before ([`Record::other`]).
    FlowMoved = 11;
    /// A connection waits in the queue of [`Record::other`] now, because its own listener has closed.
    Migrated = 12;
    /// The kernel picked this member of a group.
    Picked = 13;
}

/// Which way a packet went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Way {
    /// To the socket.
    #[default]
    In,
    /// From the socket.
    Out,
}

/// A packet's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub from: SocketAddr,
    /// Where it goes to.
    pub to: SocketAddr,
    /// 6 is TCP, 17 is UDP.
    pub protocol: u8,
    /// TCP: sequence number.
    pub seq: u32,
    /// TCP: acknowledgement number.
    pub ack: u32,
    /// TCP: length of the header and flags, the 13th and 14th byte of the header.
    pub flags: u16,
    /// TCP: window, not scaled.
    pub window: u16,
    /// TCP: checksum. Not computed yet on packets that never leave the machine.
    pub checksum: u16,
    /// TCP: urgent pointer.
    pub urgent: u16,
    /// Bytes, as the kernel had them at that place: with or without the headers.
    pub length: u32,
    /// Time to live, hop limit.
    pub ttl: u8,
    /// Type of service, traffic class.
    pub tos: u8,
    /// Identification (IPv4).
    pub id: u16,
    /// Which way it went.
    pub way: Way,
}

impl Packet {
    /// FIN.
    pub const FIN: u16 = 1;
    /// SYN.
    pub const SYN: u16 = 1 << 1;
    /// RST.
    pub const RST: u16 = 1 << 2;
    /// ACK.
    pub const ACK: u16 = 1 << 4;

    /// Does it ask for a new connection?
    pub fn is_syn(&self) -> bool {
        self.protocol == 6 && self.flags & (Self::SYN | Self::ACK | Self::RST) == Self::SYN
    }
}

/// One event. A figure that the kernel did not give is zero, or `None` where zero would say something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time: u64,
    /// What happened.
    pub kind: Kind,
    /// The kernel's number of the reason.
    pub reason: Option<i32>,
    /// The process that ran. It had to do with it only where a system call is the cause; a packet is handled in
    /// whatever process is interrupted.
    pub pid: u32,
    /// Its thread.
    pub tid: u32,
    /// The kernel's name of the thread.
    pub comm: String,
    /// `PF_*`.
    pub task_flags: u32,
    /// What the process's end is going to be, as wait(2) has it; 0 while it lives.
    pub exit_code: i32,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The socket's address in the kernel, which tells sockets apart while they live; 0: no socket.
    pub socket: u64,
    /// Inode number of the socket; 0: no process holds it.
    pub inode: u64,
    /// The socket's cookie; 0: nobody has asked for it yet.
    pub cookie: u64,
    /// The socket's state.
    pub state: u8,
    /// The state that it goes to.
    pub new_state: u8,
    /// 6 is TCP, 17 is UDP.
    pub protocol: u8,
    /// The socket's own address.
    pub local: Option<SocketAddr>,
    /// The other side's.
    pub remote: Option<SocketAddr>,
    /// Of a listener: connections waiting to be accepted.
    pub queue: u32,
    /// Of a listener: the limit of that.
    pub queue_limit: u32,
    /// Of a listener: half-open requests.
    pub half_open: u32,
    /// The socket's reference count.
    pub references: u32,
    /// The hash of the connection's addresses.
    pub hash: u32,
    /// Events of this kind that stand behind this one.
    pub count: u32,
    /// Members of its reuseport group; 0: in none. A listener that closes is no member any more.
    pub group_size: u16,
    /// Its place in the group.
    pub group_index: Option<u16>,
    /// Does a program choose in the group?
    pub group_program: bool,
    /// Of a listener that closes: does the kernel try to move what waits for it to others of the group?
    pub migrates: bool,
    /// The packet.
    pub packet: Option<Packet>,
    /// Where the packet was freed.
    pub location: u64,
    /// Another socket's address in the kernel.
    pub other: u64,
    /// Its inode number.
    pub other_inode: u64,
    /// Return addresses, the innermost first.
    pub stack: Vec<u64>,
}

/// Bytes in the ring are not an event of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an event of {0} bytes")]
pub struct Malformed(pub usize);

/// `TRACE_STACK`.
const STACK: usize = 20;
/// `sizeof(struct trace_event)`.
pub(super) const SIZE: usize = 248 + 8 * STACK;

impl Record {
    /// Reads `struct trace_event`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() != SIZE {
            return Err(Malformed(bytes.len()));
        }
        let mut r = Reader(bytes);
        let (time, socket, inode, cookie, location) = (r.u64(), r.u64(), r.u64(), r.u64(), r.u64());
        let kind = Kind::from_number(r.u32());
        let reason = Some(r.u32() as i32).filter(|reason| *reason >= 0);
        let (pid, tid, task_flags, exit_code) = (r.u32(), r.u32(), r.u32(), r.u32() as i32);
        let (netns, queue, queue_limit, half_open) = (r.u32(), r.u32(), r.u32(), r.u32());
        let (references, hash, count) = (r.u32(), r.u32(), r.u32());
        let (seq, ack, length, stack_length) = (r.u32(), r.u32(), r.u32(), r.u32() as usize);
        let (family, local_port, remote_port) = (r.u16(), r.u16(), r.u16());
        let (packet_family, source, destination) = (r.u16(), r.u16(), r.u16());
        let (window, checksum, urgent, id, flags) = (r.u16(), r.u16(), r.u16(), r.u16(), r.u16());
        let (group_size, group_index) = (r.u16(), Some(r.u16()).filter(|index| *index != u16::MAX));
        let (group_program, state, new_state, protocol) = (r.u8() != 0, r.u8(), r.u8(), r.u8());
        let (packet_protocol, ttl, tos) = (r.u8(), r.u8(), r.u8());
        let way = if r.u8() == 0 { Way::In } else { Way::Out };
        let migrates = r.u8() != 0;
        r.skip(3);
        let comm = r.text::<16>();
        let (local, remote, from, to) = (r.address(), r.address(), r.address(), r.address());
        r.skip(6);
        let (other, other_inode) = (r.u64(), r.u64());
        let stack = (0..stack_length.min(STACK)).map(|_| r.u64()).collect();
        Ok(Self {
            time,
            kind,
            reason,
            pid,
            tid,
            comm,
            task_flags,
            exit_code,
            netns,
            socket,
            inode,
            cookie,
            state,
            new_state,
            protocol,
            local: (family != 0).then(|| SocketAddr::new(local, local_port)),
            remote: (family != 0).then(|| SocketAddr::new(remote, remote_port)),
            queue,
            queue_limit,
            half_open,
            references,
            hash,
            count,
            group_size,
            group_index: group_index.filter(|_| group_size > 0),
            group_program,
            migrates,
            packet: (packet_family != 0).then(|| Packet {
                from: SocketAddr::new(from, source),
                to: SocketAddr::new(to, destination),
                protocol: packet_protocol,
                seq,
                ack,
                flags,
                window,
                checksum,
                urgent,
                length,
                ttl,
                tos,
                id,
                way,
            }),
            location,
            other,
            other_inode,
            stack,
        })
    }
}

/// Takes fields from the front. What is not there reads as zero; the length was checked before.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        if let Some((head, rest)) = self.0.split_at_checked(N) {
            bytes.copy_from_slice(head);
            self.0 = rest;
        }
        bytes
    }

    pub(super) fn u8(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_ne_bytes(self.bytes())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.bytes())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.bytes())
    }

    pub(super) fn skip(&mut self, count: usize) {
        self.0 = self.0.get(count..).unwrap_or_default();
    }

    /// Up to the first zero.
    pub(super) fn text<const N: usize>(&mut self) -> String {
        let bytes = self.bytes::<N>();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(N);
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }

    /// IPv4 is mapped on the way.
    fn address(&mut self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(self.bytes::<16>())).to_canonical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_length_is_an_error() {
        assert_eq!(Record::parse(&[0; SIZE - 1]), Err(Malformed(SIZE - 1)));
        assert_eq!(Record::parse(&[0; SIZE]).unwrap().kind, Kind::Unknown);
    }

    #[test]
    fn whatever_is_in_it_no_panic() {
        let record = Record::parse(&[0xff; SIZE]).unwrap();
        assert_eq!((record.stack.len(), record.reason, record.group_index), (STACK, None, None));
    }
}
