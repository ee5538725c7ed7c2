//! Descriptors by key.

use super::drain::{Drained, Turn};
use super::protocol::Kind;
use crate::caller::Calling;
use relisten_sys::seccomp::{Call, Notification};
use rustix::event::PollFlags;
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// One kept descriptor.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    pub(super) kind: Kind,
    pub(super) descriptor: OwnedFd,
    /// Of an output: what was read from it since the last supervisor went.
    pub(super) drained: Option<Drained>,
    /// Nothing more will come: a dead worker's pidfd, notification descriptor or output. Kept all the same,
    /// because a successor wants to know, but not polled any more: it would be readable for ever.
    ended: bool,
}

/// All kept descriptors, in the order they came.
#[derive(Debug, Default)]
pub(super) struct Store {
    entries: Vec<Entry>,
}

impl Store {
    pub(super) fn put(&mut self, kind: Kind, key: &str, descriptor: OwnedFd) {
        let entry = Entry { key: key.into(), kind, descriptor, drained: None, ended: false };
        match self.entries.iter_mut().find(|e| *e.key == *key) {
            Some(old) => *old = entry,
            None => self.entries.push(entry),
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.entries.retain(|e| *e.key != *key);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    /// What needs looking after while no supervisor is there; outputs only `with_outputs`.
    pub(super) fn watched(&self, with_outputs: bool) -> impl Iterator<Item = (usize, &Entry)> {
        self.entries.iter().enumerate().filter(move |(_, e)| {
            !e.ended
                && match e.kind {
                    Kind::Notification | Kind::Pidfd => true,
                    Kind::Output => with_outputs,
                    Kind::Listener | Kind::Other => false,
                }
        })
    }

    /// Do what a watched descriptor asks for.
    pub(super) fn serve(&mut self, index: usize, ready: PollFlags) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        let readable = ready.contains(PollFlags::IN);
        entry.ended = match entry.kind {
            Kind::Notification if readable => let_go_on(&entry.descriptor),
            Kind::Output if readable => {
                entry.drained.get_or_insert_default().turn(&entry.descriptor) == Turn::End
            }
            // A pidfd is readable when its process has ended; the others have hung up.
            _ => true,
        };
    }

    /// How many workers are alive, as far as their pidfds tell?
    pub(super) fn workers_alive(&self) -> usize {
        self.entries.iter().filter(|e| e.kind == Kind::Pidfd && !e.ended).count()
    }

    /// A supervisor has taken over and reads the outputs itself.
    pub(super) fn forget_drained(&mut self) {
        for entry in &mut self.entries {
            entry.drained = None;
        }
    }
}

/// Let one system call that waits for our answer go on as if there were no filter. True: no other will come.
fn let_go_on(notifications: &OwnedFd) -> bool {
    let waiting = match relisten_sys::seccomp::receive(notifications.as_fd()) {
        Ok(notification) => notification,
        // ENOENT: who called has been killed in between. EINTR: ask again.
        Err(e) => return !matches!(errno(&e), Some(Errno::NOENT | Errno::INTR | Errno::AGAIN)),
    };
    // If it was killed before the answer, there is nobody to answer.
    share(&waiting);
    let _ = relisten_sys::seccomp::let_go_on(notifications.as_fd(), waiting.id);
    false
}

/// A worker's `bind` to the instance's port would fail without SO_REUSEPORT, because the others are there. The next
/// supervisor finds the listener and adopts it. Best effort: the call goes on in any case.
fn share(waiting: &Notification) {
    let Ok(Some(calling)) = Calling::of(waiting) else { return };
    if calling.call == Call::Bind {
        // Fails for what is no internet socket, which is right.
        let _ = rustix::net::sockopt::set_socket_reuseport(&calling.socket, true);
    }
}

fn errno(e: &std::io::Error) -> Option<Errno> {
    Errno::from_io_error(e)
}
