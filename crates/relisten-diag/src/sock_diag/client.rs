use super::query::MAX_PORTS;
use super::socket::error_number;
use super::wire::{self, Messages};
use super::{Query, Socket};
use crate::DiagError;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::os::fd::OwnedFd;

/// The kernel fills datagrams of up to 32 KiB in a dump (`netlink_dump`).
const BUFFER: usize = 32 * 1024;

/// A netlink socket to sock_diag(7), for the network namespace in which it was opened. Takes one descriptor and
/// 32 KiB.
#[derive(Debug)]
pub struct SockDiag {
    /// `None` after a failed dump, whose remainder would otherwise be taken for the next one's.
    netlink: Option<OwnedFd>,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl SockDiag {
    /// Opens it. Needs no privilege.
    pub fn new() -> Result<Self, DiagError> {
        Ok(Self { netlink: Some(open()?), sequence: 0, buffer: vec![0; BUFFER].into_boxed_slice() })
    }

    /// Calls `visit` for every socket that the query asks for, as the answer comes in; returns how many. Blocks
    /// the calling thread for as long as the kernel takes: a walk over its hash table (about 2 ms per million
    /// buckets) and 1 to 2 µs per socket. Never holds more than one part of the answer.
    pub fn dump(&mut self, query: &Query, mut visit: impl FnMut(Socket)) -> Result<usize, DiagError> {
        if query.ports.len() <= MAX_PORTS {
            return self.dump_part(query, &mut visit);
        }
        // The kernel's filter has a limit. Nobody gets near it, but it must not make a wrong answer.
        let mut count = 0;
        for ports in query.ports.chunks(MAX_PORTS) {
            count += self.dump_part(&Query { ports: ports.to_vec(), ..query.clone() }, &mut visit)?;
        }
        Ok(count)
    }

    fn dump_part(&mut self, query: &Query, visit: &mut impl FnMut(Socket)) -> Result<usize, DiagError> {
        let mut count = 0;
        self.sequence = self.sequence.wrapping_add(1);
        for request in query.requests(self.sequence) {
            count += self.exchange(&request, visit)?;
        }
        Ok(count)
    }

    /// The sockets that the query asks for, all at once.
    pub fn list(&mut self, query: &Query) -> Result<Vec<Socket>, DiagError> {
        let mut sockets = Vec::new();
        self.dump(query, |socket| sockets.push(socket))?;
        Ok(sockets)
    }

    fn exchange(&mut self, request: &[u8], visit: &mut impl FnMut(Socket)) -> Result<usize, DiagError> {
        let netlink = match self.netlink.take() {
            Some(netlink) => netlink,
            None => open()?,
        };
        // Put back only after the whole answer was read.
        let count = transfer(&netlink, request, self.sequence, &mut self.buffer, visit)?;
        self.netlink = Some(netlink);
        Ok(count)
    }
}

fn open() -> Result<OwnedFd, DiagError> {
    net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))
        .map_err(DiagError::Open)
}

fn transfer(
    netlink: &OwnedFd,
    request: &[u8],
    sequence: u32,
    buffer: &mut [u8],
    visit: &mut impl FnMut(Socket),
) -> Result<usize, DiagError> {
    // Without an address the message goes to the kernel.
    retry(|| net::send(netlink, request, SendFlags::empty())).map_err(DiagError::Transfer)?;
    let mut count = 0;
    loop {
        // With MSG_TRUNC the true length is told.
        let (_, length) =
            retry(|| net::recv(netlink, &mut *buffer, RecvFlags::TRUNC)).map_err(DiagError::Transfer)?;
        let datagram = buffer.get(..length).ok_or(DiagError::Malformed("a datagram above 32 KiB"))?;
        if datagram.is_empty() {
            return Err(DiagError::Malformed("an empty datagram"));
        }
        for message in Messages(datagram) {
            let message = message?;
            if message.sequence != sequence {
                continue;
            }
            match message.kind {
                wire::SOCK_DIAG_BY_FAMILY | wire::TCPDIAG_GETSOCK => {
                    visit(Socket::parse(message.payload)?);
                    count += 1;
                }
                wire::NLMSG_DONE | wire::NLMSG_ERROR => match error_number(message.payload) {
                    0 if message.kind == wire::NLMSG_DONE => return Ok(count),
                    0 => {} // an acknowledgement
                    number => return Err(DiagError::Refused(Errno::from_raw_os_error(number))),
                },
                _ => {}
            }
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
