//! Unix sockets by the name that their listener was bound to.
//!
//! From `/proc/net/unix` (`unix(7)`), which lists every Unix socket of the network namespace. An accepted connection bears the
//! name of its listener; one that waits to be accepted has no inode yet.

use crate::DiagError;
use relisten::SocketInode;
use std::collections::BTreeMap;
use std::fs;

const FILE: &str = "/proc/net/unix";
/// The state "connected" of [`unix_seq_show`](https://github.com/torvalds/linux/blob/v6.12/net/unix/af_unix.c), which
/// is that of accepted connections and of no other with their name.
const CONNECTED: &str = "03";
/// The flag of a socket that listens (`__SO_ACCEPTCON`).
const LISTENS: u64 = 1 << 16;

/// The connections that came to the listeners of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Accepted and not closed.
    pub accepted: Vec<SocketInode>,
    /// Not accepted yet.
    pub waiting: u64,
}

/// All names that sockets listen on or came to, as the kernel writes them: an abstract name begins with `@`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixTable(BTreeMap<String, Arrived>);

impl UnixTable {
    /// Takes about 1 µs per Unix socket of the network namespace.
    pub fn read() -> Result<Self, DiagError> {
        let text = fs::read(FILE).map_err(|e| DiagError::proc(FILE, e))?;
        Ok(Self::parse(&String::from_utf8_lossy(&text)))
    }

    fn parse(text: &str) -> Self {
        let mut names: BTreeMap<String, Arrived> = BTreeMap::new();
        for line in text.lines().skip(1) {
            let Some(entry) = Entry::parse(line) else { continue };
            if entry.listens {
                names.entry(entry.name.to_owned()).or_default();
            } else if entry.inode == 0 {
                names.entry(entry.name.to_owned()).or_default().waiting += 1;
            } else if entry.connected {
                names.entry(entry.name.to_owned()).or_default().accepted.push(SocketInode(entry.inode));
            }
        }
        Self(names)
    }

    /// What came to this name. Nothing for one that nobody listens on.
    pub fn of(&self, name: &str) -> Arrived {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

struct Entry<'a> {
    listens: bool,
    connected: bool,
    inode: u64,
    name: &'a str,
}

impl<'a> Entry<'a> {
    /// `Num: RefCount Protocol Flags Type St Inode Path`; `None` for sockets without a name.
    fn parse(line: &'a str) -> Option<Self> {
        let (_, rest) = line.split_once(": ")?;
        let mut fields = rest.splitn(6, ' ');
        let flags = u64::from_str_radix(fields.nth(2)?, 16).ok()?;
        let (_kind, state) = (fields.next()?, fields.next()?);
        // The inode is padded to five places.
        let (inode, name) = fields.next()?.trim_start().split_once(' ')?;
        Some(Self {
            listens: flags & LISTENS != 0,
            connected: state == CONNECTED,
            inode: inode.parse().ok()?,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn what_came_to_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("with blank.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let _clients: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let (accepted, _) = listener.accept().unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", accepted.as_raw_fd())).unwrap();
        let arrived = UnixTable::read().unwrap().of(path.to_str().unwrap());
        assert_eq!(arrived.waiting, 2);
        assert_eq!(arrived.accepted.len(), 1);
        assert_eq!(link.to_str().unwrap(), format!("socket:[{}]", arrived.accepted[0].0));
        drop(accepted);
        let arrived = UnixTable::read().unwrap().of(path.to_str().unwrap());
        assert_eq!((arrived.waiting, arrived.accepted.len()), (2, 0));
        assert_eq!(UnixTable::read().unwrap().of("/nobody/listens/here"), Arrived::default());
    }

    #[test]
    fn lines_that_make_no_sense_are_left_out() {
        let text = "Num RefCount\n\nnonsense\n0: 1 2 x 1 03 5 /a\n0: 1 2 0 1 03 x /a\n0: 1 2 0 1 03 77\n\
                    0: 2 0 00000000 0001 03    88 @abstract\n";
        let table = UnixTable::parse(text);
        assert_eq!(table.of("/a"), Arrived::default());
        assert_eq!(table.of("@abstract").accepted, [SocketInode(88)]);
    }
}
