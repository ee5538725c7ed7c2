//! Packets with descriptors beside them.

use super::protocol::{MAX, MAX_DESCRIPTORS};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One packet as it came.
pub(crate) struct Packet {
    buffer: [u8; MAX],
    length: usize,
    /// The descriptors beside it, in order.
    pub(crate) descriptors: [Option<OwnedFd>; MAX_DESCRIPTORS],
    /// There were more descriptors, but they could not be received.
    pub(crate) descriptors_lost: bool,
    /// The packet was longer than [`MAX`].
    pub(crate) cut: bool,
}

impl Packet {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

/// Receive without waiting. An empty packet and the end of the connection look the same here; who must know
/// asks `poll` for a hang-up.
pub(crate) fn receive(socket: impl AsFd) -> Result<Packet, Errno> {
    let mut packet = Packet {
        buffer: [0; MAX],
        length: 0,
        descriptors: [const { None }; MAX_DESCRIPTORS],
        descriptors_lost: false,
        cut: false,
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut packet.buffer)];
        rustix::net::recvmsg(&socket, &mut parts, &mut control, RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC)
    })?;
    packet.length = message.bytes.min(MAX);
    packet.cut = message.flags.contains(ReturnFlags::TRUNC);
    packet.descriptors_lost = message.flags.contains(ReturnFlags::CTRUNC);
    let mut received = control
        .drain()
        .filter_map(|m| if let RecvAncillaryMessage::ScmRights(fds) = m { Some(fds) } else { None })
        .flatten();
    for place in &mut packet.descriptors {
        *place = received.next();
    }
    Ok(packet)
}

/// Send without waiting and without SIGPIPE.
///
/// EAGAIN: the other end is behind. EPIPE or ECONNRESET: it is gone. ETOOMANYREFS: more descriptors of this
/// user are on their way than `RLIMIT_NOFILE` allows.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    let parts = [IoSlice::new(bytes)];
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &parts, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
    })?;
    Ok(())
}
