//! What supervisor and keeper say to each other: one message per packet, at most [`MAX`] bytes, descriptors
//! beside it.
//!
//! A packet is a type (1 byte), a sequence number (4 bytes, little endian as all numbers) and a body. The two
//! ends may be of different versions, because a keeper outlives supervisors: new types and new fields at the
//! end of a body may be added, nothing is ever changed or removed. Bytes after the known ones are ignored, and
//! a type that is not known is answered with [`Refusal::Unknown`].

/// The version of the messages; it goes up when something is added.
pub(super) const VERSION: u16 = 1;
/// The longest packet, bytes.
pub(super) const MAX: usize = 1024;
/// The longest key, bytes.
pub(super) const MAX_KEY: usize = 512;
/// The most descriptors that travel with one packet.
pub(super) const MAX_DESCRIPTORS: usize = 2;

/// What a kept descriptor is, and so what the keeper does with it while no supervisor is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A listener: only held.
    Listener,
    /// A seccomp notification descriptor: each notification is answered "continue".
    Notification,
    /// The reading end of a worker's output: drained.
    Output,
    /// A worker's pidfd: watched, so that the keeper knows when there is nothing left to keep.
    Pidfd,
    /// Anything else: only held.
    Other,
}

impl Kind {
    fn to_byte(self) -> u8 {
        match self {
            Self::Other => 0,
            Self::Listener => 1,
            Self::Notification => 2,
            Self::Output => 3,
            Self::Pidfd => 4,
        }
    }

    /// A kind of a later version is held like any other descriptor.
    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Listener,
            2 => Self::Notification,
            3 => Self::Output,
            4 => Self::Pidfd,
            _ => Self::Other,
        }
    }
}

/// From the supervisor to the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// A successor introduces itself. Answered by [`Reply::Welcome`] or [`Reply::Refused`].
    Hello { version: u16 },
    /// The successor has everything and is the supervisor from now on.
    Taken,
    /// Keep the descriptor beside this packet under this key; another one under the same key is closed.
    Put { kind: Kind, key: &'a str },
    /// Close what is kept under this key. A key that is not there is no error.
    Drop { key: &'a str },
    /// Keep the memfd beside this packet as the state.
    State,
    /// Do nothing; its answer says that everything before is done.
    Sync,
    /// The orderly end: close everything and exit.
    Goodbye,
}

/// From the keeper to the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// The keeper is there; a successor gets the state (if there is one), `items` items and the end now.
    Welcome { version: u16, pid: u32, items: u32 },
    /// No; in words. The connection is closed.
    Refused { why: &'a str },
    /// The request with this packet's sequence number is done, or not.
    Ack { refusal: Option<Refusal> },
    /// The state: the memfd beside this packet.
    State,
    /// One kept descriptor, and for an output that was drained a memfd with the last of it.
    Item { kind: Kind, key: &'a str, drained_bytes: u64, drained_lines: u64 },
    /// That was all.
    End,
}

/// Why a request was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The kernel did not deliver the descriptor, because the keeper may not have more.
    #[error("the keeper has reached its limit of open files")]
    DescriptorLimit,
    /// The packet makes no sense to the keeper.
    #[error("the keeper can't read the message")]
    Malformed,
    /// The keeper is older than this request.
    #[error("the keeper is of an older version and does not know this request")]
    Unknown,
    /// Something that this version does not know.
    #[error("the keeper refused (reason {0})")]
    Other(u8),
}

impl Refusal {
    fn to_byte(self) -> u8 {
        match self {
            Self::DescriptorLimit => 1,
            Self::Malformed => 2,
            Self::Unknown => 3,
            Self::Other(byte) => byte,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => None,
            1 => Some(Self::DescriptorLimit),
            2 => Some(Self::Malformed),
            3 => Some(Self::Unknown),
            byte => Some(Self::Other(byte)),
        }
    }
}

/// The sequence number of a packet, 0 if it is too short to have one.
pub(super) fn sequence(packet: &[u8]) -> u32 {
    Reader(packet.get(1..).unwrap_or_default()).u32().unwrap_or_default()
}

impl<'a> Request<'a> {
    pub(super) fn encode(&self, sequence: u32) -> Vec<u8> {
        match *self {
            Self::Hello { version } => packet(1, sequence, &[&version.to_le_bytes()]),
            Self::Taken => packet(2, sequence, &[]),
            Self::Put { kind, key } => packet(3, sequence, &[&[kind.to_byte()], key.as_bytes()]),
            Self::Drop { key } => packet(4, sequence, &[key.as_bytes()]),
            Self::State => packet(5, sequence, &[]),
            Self::Sync => packet(6, sequence, &[]),
            Self::Goodbye => packet(7, sequence, &[]),
        }
    }

    pub(super) fn decode(packet: &'a [u8]) -> Result<Self, Refusal> {
        let mut body = Reader(packet.get(5..).ok_or(Refusal::Malformed)?);
        let read = match packet[0] {
            1 => body.u16().map(|version| Self::Hello { version }),
            2 => Some(Self::Taken),
            3 => body.u8().and_then(|kind| Some(Self::Put { kind: Kind::from_byte(kind), key: body.key()? })),
            4 => body.key().map(|key| Self::Drop { key }),
            5 => Some(Self::State),
            6 => Some(Self::Sync),
            7 => Some(Self::Goodbye),
            _ => return Err(Refusal::Unknown),
        };
        read.ok_or(Refusal::Malformed)
    }
}

impl<'a> Reply<'a> {
    pub(super) fn encode(&self, sequence: u32) -> Vec<u8> {
        match *self {
            Self::Welcome { version, pid, items } => {
                packet(1, sequence, &[&version.to_le_bytes(), &pid.to_le_bytes(), &items.to_le_bytes()])
            }
            Self::Refused { why } => packet(2, sequence, &[why.as_bytes()]),
            Self::Ack { refusal } => packet(3, sequence, &[&[refusal.map_or(0, Refusal::to_byte)]]),
            Self::State => packet(4, sequence, &[]),
            Self::Item { kind, key, drained_bytes, drained_lines } => packet(
                5,
                sequence,
                &[
                    &[kind.to_byte()],
                    &drained_bytes.to_le_bytes(),
                    &drained_lines.to_le_bytes(),
                    key.as_bytes(),
                ],
            ),
            Self::End => packet(6, sequence, &[]),
        }
    }

    /// `None`: not to be understood; a message of a later version may be passed over.
    pub(super) fn decode(packet: &'a [u8]) -> Option<Self> {
        let mut body = Reader(packet.get(5..)?);
        Some(match packet[0] {
            1 => Self::Welcome { version: body.u16()?, pid: body.u32()?, items: body.u32()? },
            2 => Self::Refused { why: body.text()? },
            3 => Self::Ack { refusal: Refusal::from_byte(body.u8()?) },
            4 => Self::State,
            5 => Self::Item {
                kind: Kind::from_byte(body.u8()?),
                drained_bytes: body.u64()?,
                drained_lines: body.u64()?,
                key: body.key()?,
            },
            6 => Self::End,
            _ => return None,
        })
    }
}

/// Texts are the last field of their message and end it, with a zero before anything that a later version adds.
fn packet(kind: u8, sequence: u32, fields: &[&[u8]]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(64);
    packet.push(kind);
    packet.extend_from_slice(&sequence.to_le_bytes());
    for field in fields {
        packet.extend_from_slice(field);
    }
    packet.truncate(MAX);
    packet
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }
    fn u8(&mut self) -> Option<u8> {
        self.bytes().map(u8::from_le_bytes)
    }
    fn u16(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }
    fn text(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        std::str::from_utf8(&self.0[..end]).ok()
    }
    fn key(&mut self) -> Option<&'a str> {
        self.text().filter(|key| is_key(key))
    }
}

/// May this be a key? Not empty, at most [`MAX_KEY`] bytes, no zero.
pub(super) fn is_key(key: &str) -> bool {
    !key.is_empty() && key.len() <= MAX_KEY && !key.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn everything_said_is_understood() {
        let requests = [
            Request::Hello { version: 7 },
            Request::Taken,
            Request::Put { kind: Kind::Notification, key: "slot 0/seccomp" },
            Request::Drop { key: "ü" },
            Request::State,
            Request::Sync,
            Request::Goodbye,
        ];
        for request in requests {
            let mut packet = request.encode(0x0102_0304);
            assert_eq!(sequence(&packet), 0x0102_0304);
            assert_eq!(Request::decode(&packet), Ok(request));
            packet.extend_from_slice(b"\0a field of a later version");
            assert_eq!(Request::decode(&packet), Ok(request));
        }
        let replies = [
            Reply::Welcome { version: 1, pid: 4711, items: 3 },
            Reply::Refused { why: "no" },
            Reply::Ack { refusal: None },
            Reply::Ack { refusal: Some(Refusal::DescriptorLimit) },
            Reply::Ack { refusal: Some(Refusal::Other(200)) },
            Reply::State,
            Reply::Item { kind: Kind::Output, key: "k", drained_bytes: 1 << 40, drained_lines: 9 },
            Reply::End,
        ];
        for reply in replies {
            assert_eq!(Reply::decode(&reply.encode(1)), Some(reply));
        }
    }

    #[test]
    fn a_later_version_gets_a_clear_answer() {
        assert_eq!(Request::decode(&[99, 1, 0, 0, 0, 1, 2, 3]), Err(Refusal::Unknown));
        assert_eq!(Request::decode(&[3, 1, 0]), Err(Refusal::Malformed));
        assert_eq!(Request::decode(&Request::Drop { key: "" }.encode(1)), Err(Refusal::Malformed));
        let kind_of_tomorrow = [3, 1, 0, 0, 0, 77, b'k'];
        assert_eq!(Request::decode(&kind_of_tomorrow), Ok(Request::Put { kind: Kind::Other, key: "k" }));
    }

    proptest! {
        #[test]
        fn garbage_is_never_more_than_garbage(packet in prop::collection::vec(any::<u8>(), 0..MAX)) {
            let _ = sequence(&packet);
            let _ = Request::decode(&packet);
            let _ = Reply::decode(&packet);
        }
    }
}
