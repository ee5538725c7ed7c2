//! Being told when a connection arrives, while nothing happens. Whoever looks at the queues many times a second uses a
//! processor for nothing as long as nobody comes.

use super::Sockets;
use super::held::ListenerId;
use relisten::address::Protocol;
use rustix::event::epoll;
use rustix::event::{Timespec, epoll::EventData, epoll::EventFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[derive(Debug)]
pub(super) struct Arrivals {
    /// `None`: there were no descriptors left.
    epoll: Option<OwnedFd>,
}

impl Arrivals {
    pub(super) fn new() -> Self {
        Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC).ok() }
    }

    /// Once, and at once if something waits already.
    fn tell(&self, id: ListenerId, listener: impl AsFd) -> Result<(), Errno> {
        let epoll = self.epoll.as_ref().ok_or(Errno::MFILE)?;
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        match epoll::modify(epoll, &listener, EventData::new_u64(id.0), flags) {
            Err(Errno::NOENT) => epoll::add(epoll, &listener, EventData::new_u64(id.0), flags),
            other => other,
        }
    }
}

impl Sockets {
    /// From now on [`arrivals`](Self::arrivals) becomes readable when a connection arrives. False: not possible; who wants
    /// to know must look.
    pub(crate) fn await_arrivals(&self) -> bool {
        let tcp = self.held().filter(|(_, h)| h.facts.endpoint.protocol() == Protocol::Tcp);
        tcp.map(|(id, h)| self.arrivals.tell(id, &h.listener)).all(|told| told.is_ok())
    }

    /// They have been noticed.
    pub(crate) fn take_arrivals(&self) {
        let Some(epoll) = &self.arrivals.epoll else { return };
        loop {
            let mut events = Vec::with_capacity(64);
            let waited =
                epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), Some(&Timespec::default()));
            if waited.is_err() || events.len() < 64 {
                return;
            }
        }
    }

    /// Readable when there are some.
    pub(crate) fn arrivals(&self) -> Option<io::Result<OwnedFd>> {
        self.arrivals.epoll.as_ref().map(|epoll| BorrowedFd::try_clone_to_owned(&epoll.as_fd()))
    }
}
