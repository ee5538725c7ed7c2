//! UDP sockets that were closed but are in their group still.
//!
//! `shutdown` takes a TCP listener out of its group, whoever has descriptors of it. A UDP socket leaves with its last
//! descriptor, and children of a dead worker may have some. Until then it has its place in the order.

use super::Sockets;
use super::held::ListenerId;
use super::order::joined;
use super::place::Place;
use relisten::SocketInode;
use relisten::address::Endpoint;
use std::collections::BTreeSet;

impl Sockets {
    /// After our descriptor is closed and the keeper's as well: is it out of its group?
    pub(super) fn depart(&mut self, endpoint: &Endpoint, id: ListenerId, inode: SocketInode) {
        let Some(place) = self.places.get_mut(endpoint) else { return };
        let before = place.group.clone();
        // As a rule it is, and every moment until the next program is one in which the kernel may be misled. So first that.
        place.group.left(id);
        self.program(endpoint, None);
        if joined(endpoint).is_some_and(|inodes| inodes.contains(&inode)) {
            if let Some(place) = self.places.get_mut(endpoint) {
                place.group = before;
                place.departing.insert(id, inode);
            }
            self.program(endpoint, None);
        }
    }

    /// Is one of this address's sockets closed and not gone? Then no other may go: nobody would know the order.
    pub(super) fn awaits_departure(&self, endpoint: &Endpoint) -> bool {
        self.places.get(endpoint).is_some_and(|place| !place.departing.is_empty())
    }

    /// Takes note of those that are gone by now.
    pub(crate) fn note_departures(&mut self) {
        let waiting: Vec<_> =
            self.places.iter().filter(|(_, p)| !p.departing.is_empty()).map(|(e, _)| e.clone()).collect();
        for endpoint in waiting {
            let Some(inodes) = joined(&endpoint) else { continue };
            let Some(place) = self.places.get_mut(&endpoint) else { continue };
            let gone: Vec<_> = place
                .departing
                .iter()
                .filter(|(_, inode)| !inodes.contains(inode))
                .map(|(id, _)| *id)
                .collect();
            for id in &gone {
                place.departing.remove(id);
                place.group.left(*id);
            }
            if !gone.is_empty() {
                self.program(&endpoint, None);
            }
        }
    }

    /// Does anything have to be noted?
    pub(crate) fn any_departing(&self) -> bool {
        self.places.values().any(|place| !place.departing.is_empty())
    }
}

impl Place {
    /// Of these members, those that a program may name although a socket may leave at any moment.
    pub(super) fn safe(&self, live: &BTreeSet<ListenerId>) -> BTreeSet<ListenerId> {
        let mut safe = live.clone();
        for id in self.departing.keys() {
            let stays = self.group.safe_for_removal(*id, live);
            safe.retain(|member| stays.contains(member));
        }
        if safe.is_empty() { live.clone() } else { safe }
    }
}
