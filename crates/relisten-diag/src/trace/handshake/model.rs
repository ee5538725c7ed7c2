use super::super::Worker;
use relisten_bpf::trace::Packet;
use schemars::JsonSchema;
use serde::Serialize;
use std::net::SocketAddr;

/// The packets of one handshake, as the side that listens sees them. What can't be known is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Handshake {
    /// When the first packet was seen, in nanoseconds since boot (CLOCK_MONOTONIC).
    pub time_ns: u64,
    /// Who asked.
    pub client: SocketAddr,
    /// The address that was asked for.
    pub server: SocketAddr,
    /// What became of it.
    pub end: End,
    /// Inode numbers of the listeners that its packets were looked up to, each once, the first one first.
    pub listeners: Vec<u64>,
    /// Its packets were looked up to different listeners.
    pub split: bool,
    /// The hash of its addresses and ports. Without a program the index in a group is this, times the group's size,
    /// divided by 2 to the 32. It is known once there is a half-open request, or a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<u32>,
    /// In their order.
    pub packets: Vec<HandshakePacket>,
    /// Packets beyond those that are kept of one handshake.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: u32,
    /// The reset that this side sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset: Option<ResetSeen>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What became of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// It was not finished when nothing more came for some seconds.
    Open,
    /// A connection.
    Established,
    /// A reset, from either side.
    Reset,
}

impl End {
    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Established => "established",
            Self::Reset => "reset",
        }
    }
}

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct HandshakePacket {
    /// When, in nanoseconds since boot.
    pub time_ns: u64,
    /// It came in; else it went out.
    pub incoming: bool,
    /// Its header.
    pub header: Header,
    /// The socket that it was looked up to, or that it comes from. None: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<SocketSeen>,
    /// How that came about, if it is a listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lookup: Option<Lookup>,
    /// The half-open request that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestSeen>,
    /// What it ran in. It need not have to do with it: a packet is handled in whatever is interrupted.
    pub ran_in: RanIn,
    /// The kernel's functions behind which it was looked up, the innermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<String>,
}

/// Headers of TCP and IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Header {
    /// The flags that are set: `SYN+ACK`.
    pub flags: String,
    /// Length of TCP's header, bytes.
    pub header_length: u32,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Window, not scaled.
    pub window: u16,
    /// TCP's checksum. Not computed yet on packets that never leave the machine.
    pub checksum: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Bytes, as the kernel had them at that place: with IP's header, or without.
    pub length: u32,
    /// Time to live, hop limit.
    pub ttl: u8,
    /// Type of service, traffic class.
    pub tos: u8,
    /// Identification; IPv6 has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u16>,
}

/// The flags of TCP, from the lowest bit on.
const FLAGS: [&str; 9] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE"];

impl Header {
    pub(super) fn new(packet: &Packet) -> Self {
        let set = |(bit, name): (usize, &'static str)| (packet.flags >> bit & 1 == 1).then_some(name);
        let flags: Vec<&str> = FLAGS.into_iter().enumerate().filter_map(set).collect();
        Self {
            flags: flags.join("+"),
            header_length: u32::from(packet.flags >> 12) * 4,
            seq: packet.seq,
            ack: packet.ack,
            window: packet.window,
            checksum: packet.checksum,
            urgent: packet.urgent,
            length: packet.length,
            ttl: packet.ttl,
            tos: packet.tos,
            id: packet.from.is_ipv4().then_some(packet.id),
        }
    }
}

/// A socket at the moment that a packet was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SocketSeen {
    /// Its address in the kernel, which tells sockets apart while they live.
    pub address: String,
    /// Its inode number. None: no process holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// Its cookie. None: nobody has asked for it yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
    /// Its state: `LISTEN`.
    pub state: String,
    /// Its reference count. A lookup takes none of a listener.
    pub references: u32,
    /// Of a listener: connections waiting to be accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// The limit of that; one more fits in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Of a listener: half-open requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_open: Option<u32>,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Worker>,
}

/// How a listener was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Lookup {
    /// Listeners that fit. None: the kernel's table could not be gone through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matches: Option<u32>,
    /// The score of the one that was found, as the kernel's lookup rates it. Not known of packets that go out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<u32>,
    /// Members of its reuseport group; 0: it is in none.
    pub group_size: u16,
    /// Its place there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u16>,
    /// Whom the hash alone would pick. Not asked for packets that belong to a half-open request: that one's listener gets
    /// them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_hash: Option<Picked>,
    /// The program that picks in the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<Choosing>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Picked {
    /// Its address in the kernel.
    pub address: String,
    /// Its inode number.
    pub inode: u64,
    /// Its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u16>,
}

/// A program that picks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Choosing {
    /// `ebpf` (it names listeners), `classic` (it names places), or the kernel's number of its kind.
    pub kind: String,
    /// Its number, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// Its name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its verdict. `other`: it picked another one than the hash alone. `same`: the same one, whether it picked or left it to
    /// the hash. None: nothing was to be picked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
}

/// A half-open request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RequestSeen {
    /// Its address in the kernel.
    pub address: String,
    /// Its reference count.
    pub references: u32,
}

/// What ran on the processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RanIn {
    /// Process; 0: the kernel's own, or one that can't be seen from here.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// The kernel's name of the thread.
    pub name: String,
    /// Processor.
    pub cpu: u32,
}

/// A reset that this side sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ResetSeen {
    /// When, in nanoseconds since boot.
    pub time_ns: u64,
    /// The kernel's reason. None: this kernel gives none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The socket that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<SocketSeen>,
    /// What it ran in.
    pub ran_in: RanIn,
    /// The kernel's functions that led to it, the innermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<String>,
}
