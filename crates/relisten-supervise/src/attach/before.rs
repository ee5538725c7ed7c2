//! Connections that were open before anybody counted. The kernel tells nobody of their end, so they are looked for now and
//! then, until the last one has gone.

use super::group::Attachment;
use super::members;
use super::workers::Workers;
use crate::core::Millis;
use crate::runtime::now;
use relisten::address::Endpoint;
use relisten::{SocketCookie, SocketInode};
use relisten_bpf::Steering;
use relisten_diag::sock_diag::{Query, SockDiag, State, States};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;

/// From one look to the next, at least, milliseconds;
const EVERY: u64 = 250;
/// and so many times as long as a look takes.
const AS_OFTEN: u64 = 20;
/// How often it is tried to find out whose a connection is.
const TRIES: u8 = 3;

/// An open connection, or one in a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    inode: Option<SocketInode>,
    local: SocketAddr,
    ipv6: bool,
}

impl Open {
    /// Could it have come to a listener there? On the wildcard: unless there is one on that very address.
    fn fits(&self, endpoint: &Endpoint) -> bool {
        let Some(addr) = endpoint.addr() else { return false };
        addr.is_ipv6() == self.ipv6 && (addr.ip() == self.local.ip() || addr.ip().is_unspecified())
    }
}

pub(super) type Groups = BTreeMap<Endpoint, Attachment>;

/// What is open on a port at this moment.
pub(super) fn open(port: u16) -> io::Result<BTreeMap<SocketCookie, Open>> {
    let states = States::from(State::Established) | States::from(State::CloseWait);
    let mut found = BTreeMap::new();
    let mut note = |socket: relisten_diag::sock_diag::Socket| {
        let open = Open { inode: socket.inode, local: socket.local, ipv6: socket.ipv6 };
        found.insert(socket.cookie, open);
    };
    let dumped = SockDiag::new().and_then(|mut diag| diag.dump(&Query::tcp(states).ports([port]), &mut note));
    dumped.map(|_| found).map_err(io::Error::other)
}

#[derive(Clone, Copy, Debug, Default)]
struct Old {
    /// Counted there.
    listener: Option<SocketInode>,
    tries: u8,
}

/// Those of them that are open still.
#[derive(Debug, Default)]
pub(super) struct Before {
    open: BTreeMap<SocketCookie, Old>,
    next: Millis,
}

impl Before {
    /// Listeners have been taken in, and this was open just before. `all`: nothing was counted at all until now; else only
    /// what belongs to these listeners.
    pub(super) fn note(
        &mut self,
        open: &BTreeMap<SocketCookie, Open>,
        new: &BTreeSet<SocketInode>,
        all: bool,
        groups: &Groups,
    ) {
        let found = attribute(open, groups);
        for (cookie, connection) in open {
            let listener = connection.inode.and_then(|inode| found.get(&inode)).copied();
            let listener = listener.filter(|listener| new.contains(listener));
            if all || listener.is_some() {
                correct(groups, listener, 1);
                self.open.insert(*cookie, Old { listener, tries: 1 });
            }
        }
        self.next = now() + Millis(EVERY);
    }

    /// Looks, if it is time to, who has gone, and whose those are that nobody had accepted before.
    pub(super) fn look(&mut self, port: u16, groups: &Groups, steering: &Steering) {
        let begin = now();
        if self.open.is_empty() || begin < self.next {
            return;
        }
        if let Ok(open) = open(port) {
            self.compare(&open, groups, steering);
        }
        self.next = now() + Millis((now().since(begin).0 * AS_OFTEN).max(EVERY));
    }

    fn compare(&mut self, open: &BTreeMap<SocketCookie, Open>, groups: &Groups, steering: &Steering) {
        self.open.retain(|cookie, old| {
            let stays = open.contains_key(cookie);
            if !stays && !steering.uncounted_ended(cookie.0) {
                correct(groups, old.listener, -1);
            }
            stays
        });
        let unclear = |(cookie, old): (&SocketCookie, &Old)| {
            let open = open.get(cookie).filter(|open| open.inode.is_some() && old.listener.is_none())?;
            (old.tries < TRIES).then_some((*cookie, *open))
        };
        let unclear: BTreeMap<SocketCookie, Open> = self.open.iter().filter_map(unclear).collect();
        if unclear.is_empty() {
            return;
        }
        let found = attribute(&unclear, groups);
        for (cookie, connection) in unclear {
            let Some(old) = self.open.get_mut(&cookie) else { continue };
            old.tries += 1;
            // What was moved has been counted by that.
            if steering.moved_to(cookie.0).is_some() {
                old.tries = TRIES;
            } else if let Some(listener) = connection.inode.and_then(|inode| found.get(&inode)) {
                old.listener = Some(*listener);
                correct(groups, old.listener, 1);
            }
        }
    }
}

fn correct(groups: &Groups, listener: Option<SocketInode>, by: i32) {
    let member = listener.and_then(|inode| groups.values().find_map(|group| group.members.get(&inode)));
    if let Some(member) = member {
        member.place.correct_open(by);
    }
}

/// Connections and the listeners they were accepted from, as far as it can be told.
fn attribute(open: &BTreeMap<SocketCookie, Open>, groups: &Groups) -> BTreeMap<SocketInode, SocketInode> {
    let by_inode: BTreeMap<SocketInode, Open> =
        open.values().filter_map(|open| Some((open.inode?, *open))).collect();
    let endpoints: BTreeMap<SocketInode, &Endpoint> = groups
        .iter()
        .flat_map(|(endpoint, group)| group.members.keys().map(move |inode| (*inode, endpoint)))
        .collect();
    let exact = |open: &Open| groups.keys().any(|e| open.fits(e) && e.addr() == Some(open.local));
    let may = |connection: SocketInode, listener: SocketInode| {
        let (Some(open), Some(endpoint)) = (by_inode.get(&connection), endpoints.get(&listener)) else {
            return false;
        };
        open.fits(endpoint) && (endpoint.addr() == Some(open.local) || !exact(open))
    };
    let holders = members::holders(&endpoints.keys().copied().collect());
    Workers::look(&holders).listeners_of(&by_inode.keys().copied().collect(), may)
}
