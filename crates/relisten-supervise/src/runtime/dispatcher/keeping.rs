//! What the keeper is told.

use super::Dispatcher;
use crate::keeper;
use crate::sockets::{Change, ListenerId};
use relisten::address::Protocol;
use std::os::fd::{AsFd, OwnedFd};

impl Dispatcher {
    pub(in crate::runtime) fn keep(&mut self, key: &str, kind: keeper::Kind, fd: impl AsFd) {
        if let Some(Err(error)) = self.keeper.as_mut().map(|k| k.put(key, kind, fd)) {
            tracing::warn!(key, error = &error as &dyn std::error::Error, "the keeper did not take it");
        }
    }

    pub(super) fn unkeep(&mut self, key: &str) {
        if let Some(keeper) = &mut self.keeper {
            let _ = keeper.drop_key(key);
        }
    }

    /// The keeper closes this listener now. Matters for UDP, where the last descriptor does.
    pub(super) fn let_go(&mut self, id: ListenerId) {
        let is_udp = |h: &crate::sockets::Held| h.facts.endpoint.protocol() == Protocol::Udp;
        if !self.sockets.held().any(|(held, h)| held == id && is_udp(h)) {
            return;
        }
        self.tell_keeper();
        self.unkeep(&id.key());
        if let Some(Err(error)) = self.keeper.as_mut().map(keeper::Client::sync) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the keeper does not answer");
        }
    }

    /// Steering programs survive with whoever holds their descriptors, and so does the counting.
    pub(in crate::runtime) fn keep_ebpf(&mut self) {
        let Some(ebpf) = self.sockets.ebpf() else { return };
        let counting = ebpf.counting().and_then(|fd| fd.try_clone_to_owned().ok());
        let mut all: Vec<(String, OwnedFd)> =
            counting.map(|fd| ("counting".to_owned(), fd)).into_iter().collect();
        match ebpf.descriptors() {
            Ok(descriptors) => all.extend(descriptors.into_pairs().map(|(kind, fd)| (kind.name(), fd))),
            Err(error) => tracing::warn!(%error, "the keeper can't be given the steering programs"),
        }
        for (name, fd) in all {
            self.keep(&format!("bpf:{name}"), keeper::Kind::Other, fd);
        }
    }

    /// A new keeper holds nothing yet.
    pub(in crate::runtime) fn keep_everything(&mut self) {
        if let Some(socket) = self.notify_socket.as_ref().and_then(|s| s.try_clone().ok()) {
            self.keep("notify", keeper::Kind::Other, socket);
        }
        self.keep_ebpf();
        let listeners: Vec<_> = self.sockets.held().map(|(id, _)| id).collect();
        for id in listeners {
            if let Some(fd) = self.sockets.fd(id).and_then(|fd| fd.try_clone_to_owned().ok()) {
                self.keep(&id.key(), keeper::Kind::Listener, fd);
            }
        }
        let mut all: Vec<(String, keeper::Kind, OwnedFd)> = Vec::new();
        for (worker, process) in &self.processes {
            let mut add = |what: &str, kind, fd: &OwnedFd| {
                all.extend(fd.try_clone().map(|fd| (format!("{what}:{}", worker.0), kind, fd)));
            };
            add("pidfd", keeper::Kind::Pidfd, &process.pidfd);
            if let Some(calls) = &process.calls {
                add("calls", keeper::Kind::Notification, calls);
            }
            for (what, pipe) in &process.pipes {
                add(what, keeper::Kind::Output, pipe);
            }
        }
        for (key, kind, fd) in all {
            self.keep(&key, kind, fd);
        }
    }

    /// Tells the keeper what changed among the listeners.
    pub(in crate::runtime) fn tell_keeper(&mut self) {
        for change in self.sockets.take_changes() {
            match change {
                Change::Put(id) => {
                    let fd: Option<OwnedFd> = self.sockets.fd(id).and_then(|fd| fd.try_clone_to_owned().ok());
                    if let Some(fd) = fd {
                        self.keep(&id.key(), keeper::Kind::Listener, fd);
                    }
                }
                Change::Drop(id) => self.unkeep(&id.key()),
            }
        }
    }
}
