//! Listeners that their workers shut down, in the order in which they did: with several at once the order of a group
//! depends on it.
//!
//! `shutdown` wakes up whoever polls the socket ([`inet_shutdown`](https://github.com/torvalds/linux/blob/v6.12/net/ipv4/af_inet.c)),
//! and epoll reports in the order of waking.

use super::held::ListenerId;
use relisten::listener::Listener;
use rustix::event::epoll;
use rustix::event::{Timespec, epoll::EventData, epoll::EventFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[derive(Debug)]
pub(super) struct Shutdowns {
    /// `None`: there were no descriptors left. Then the order of several is a guess.
    epoll: Option<OwnedFd>,
}

impl Shutdowns {
    pub(super) fn new() -> Self {
        Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC).ok() }
    }

    pub(super) fn watch(&self, id: ListenerId, listener: &Listener) {
        if let Some(epoll) = &self.epoll {
            // Hanging up is reported without being asked for; and once is enough.
            let _ = epoll::add(epoll, listener, EventData::new_u64(id.0), EventFlags::ET);
        }
    }

    /// Before our descriptor is closed: the socket lives on with other descriptors of it.
    pub(super) fn forget(&self, listener: &Listener) {
        if let Some(epoll) = &self.epoll {
            let _ = epoll::delete(epoll, listener);
        }
    }

    /// Those that were shut down since the last call.
    pub(super) fn take(&self) -> Vec<ListenerId> {
        let mut ids = Vec::new();
        let Some(epoll) = &self.epoll else { return ids };
        loop {
            let mut events = Vec::with_capacity(64);
            let waited =
                epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), Some(&Timespec::default()));
            if waited.is_err() || events.is_empty() {
                return ids;
            }
            let hung_up = |event: &&epoll::Event| { event.flags }.contains(EventFlags::HUP);
            ids.extend(events.iter().filter(hung_up).map(|event| ListenerId({ event.data }.u64())));
        }
    }

    /// Readable when there is something to take.
    pub(super) fn descriptor(&self) -> Option<io::Result<OwnedFd>> {
        self.epoll.as_ref().map(|epoll| BorrowedFd::try_clone_to_owned(&epoll.as_fd()))
    }
}
