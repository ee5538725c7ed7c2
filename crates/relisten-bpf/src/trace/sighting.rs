//! `struct packet_event`, byte by byte.

use super::record::{Malformed, Reader, Record, SIZE as RECORD_SIZE};

macro_rules! whats {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        /// What became of the packet; `enum packet_what`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum What {
            $($(#[$doc])* $name,)*
            /// A number that this version does not know.
            #[default]
            Unknown,
        }

        impl What {
            fn from_number(number: u32) -> Self {
                match number { $($number => Self::$name,)* _ => Self::Unknown }
            }
        }
    };
}

whats! {
    /// It is at the socket that it was looked up to, or leaves from it.
    Seen = 1;
    /// A SYN at the end of its handling; the stack has the callers of the lookup.
    Handled = 2;
    /// The last ACK of a handshake has made a connection; the stack has the callers of the lookup. No packet is told.
    Established = 3;
    /// A reset is being sent; the packet is the one that it answers.
    Reset = 4;
    /// A SYN goes on from its listener; told where fentry is allowed.
    Requested = 5;
    /// An ACK is compared with its request; told where fentry is allowed.
    Checked = 6;
}

/// A packet of a handshake, or what was done with it. What the kernel did not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// Socket, process, packet, stack.
    pub record: Record,
    /// What this tells.
    pub what: What,
    /// The processor.
    pub cpu: u32,
    /// The half-open request that the packet belongs to.
    pub request: Option<Request>,
    /// The hash of the connection's addresses, by which a group without a program picks.
    pub hash: Option<u32>,
    /// The listener that the hash alone would pick.
    pub by_hash: Option<ByHash>,
    /// Listeners of the same chain of the kernel's table that fit the packet.
    pub matches: Option<u32>,
    /// The score of the listener, as the lookup rates it; 0: not rated.
    pub score: u32,
    /// The program that picks in the group.
    pub program: Option<Program>,
}

/// A half-open request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its address in the kernel.
    pub address: u64,
    /// Its reference count.
    pub references: u32,
}

/// Whom the hash alone would pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByHash {
    /// The socket's address in the kernel.
    pub socket: u64,
    /// Its inode number.
    pub inode: u64,
    /// Its place in the group.
    pub index: Option<u16>,
}

/// A program that picks in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The kernel's number of the kind of program: 21 is eBPF for reuseport groups, 0 classic BPF.
    pub kind: u32,
    /// Its number; classic ones have none.
    pub id: Option<u32>,
    /// Its name; classic ones have none.
    pub name: String,
}

/// `sizeof(struct packet_event)`.
const SIZE: usize = RECORD_SIZE + 80;

impl Sighting {
    /// Reads `struct packet_event`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() != SIZE {
            return Err(Malformed(bytes.len()));
        }
        let (base, more) = bytes.split_at(RECORD_SIZE);
        let record = Record::parse(base)?;
        let mut r = Reader(more);
        let (request, by_hash, by_hash_inode) = (r.u64(), r.u64(), r.u64());
        let (what, cpu, hash, references) = (What::from_number(r.u32()), r.u32(), r.u32(), r.u32());
        let (matches, score, id, kind) = (r.u32(), r.u32(), r.u32(), r.u32());
        let (index, hashed) = (r.u16(), r.u8() != 0);
        r.skip(5);
        let name = r.text::<16>();
        Ok(Self {
            what,
            cpu,
            request: (request != 0).then_some(Request { address: request, references }),
            hash: hashed.then_some(hash),
            by_hash: (by_hash != 0).then_some(ByHash {
                socket: by_hash,
                inode: by_hash_inode,
                index: Some(index).filter(|index| *index != u16::MAX),
            }),
            matches: Some(matches).filter(|matches| *matches != u32::MAX),
            score,
            program: record.group_program.then_some(Program {
                kind,
                id: Some(id).filter(|id| *id != 0),
                name,
            }),
            record,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_length_is_an_error() {
        assert_eq!(Sighting::parse(&[0; SIZE - 1]), Err(Malformed(SIZE - 1)));
        assert_eq!(Sighting::parse(&[0; SIZE]).unwrap().what, What::Unknown);
    }

    #[test]
    fn what_is_not_told_is_none() {
        let mut bytes = [0; SIZE];
        bytes[RECORD_SIZE + 40..RECORD_SIZE + 44].fill(0xff);
        let sighting = Sighting::parse(&bytes).unwrap();
        assert_eq!((sighting.matches, sighting.hash, sighting.by_hash), (None, None, None));
        let full = Sighting::parse(&[0xff; SIZE]).unwrap();
        assert_eq!(full.by_hash.map(|by_hash| by_hash.index), Some(None));
    }
}
