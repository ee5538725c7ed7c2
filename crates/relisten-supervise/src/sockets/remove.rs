//! How listeners leave a group.

use super::held::ListenerId;
use super::{Change, Sockets};
use relisten::address::{Endpoint, Protocol};
use std::collections::BTreeSet;

impl Sockets {
    /// Closes a listener that is deaf, empty and nobody's.
    ///
    /// Closing moves the group's last member to another index. So the program names, while it happens, only members
    /// whose index is the same before and after. `shutdown` rather than close, because children of the dead worker
    /// may hold duplicates, and the keeper does.
    ///
    /// UDP: only once the keeper has let go of it, and one after the other.
    ///
    /// False: no program was right both before and after, so for a moment the kernel's hash may have sent a connection
    /// to a listener that is out of service and not deaf (deaf ones did not take it: the client tries again after a
    /// second). Whatever was proven quiet must be proven afresh.
    pub(crate) fn remove(&mut self, id: ListenerId) -> bool {
        let Some(held) = self.held.get(&id) else { return true };
        if held.facts.name.is_some() {
            self.remove_unix(id);
            return true;
        }
        let (endpoint, inode) = (held.facts.endpoint.clone(), held.facts.inode);
        if self.by_ebpf(&endpoint) {
            self.remove_by_key(id, &endpoint);
            return true;
        }
        let live = self.live(&endpoint);
        let safe: BTreeSet<_> = self
            .places
            .get(&endpoint)
            .map(|p| p.group.safe_for_removal(id, &live))
            .into_iter()
            .flatten()
            .collect();
        let all_deaf = self
            .held()
            .filter(|(other, h)| h.facts.endpoint == endpoint && *other != id && !live.contains(other))
            .all(|(_, h)| h.facts.deaf);
        let undisturbed = !safe.is_empty() || live.is_empty() || all_deaf;
        self.program(&endpoint, Some(&safe));
        if let Some(held) = self.held.remove(&id) {
            self.shutdowns.forget(&held.listener);
            let _ = held.listener.shut();
        }
        self.changes.push(Change::Drop(id));
        if endpoint.protocol() == Protocol::Udp {
            self.depart(&endpoint, id, inode);
            return undisturbed;
        }
        if let Some(place) = self.places.get_mut(&endpoint) {
            place.group.left(id);
        }
        self.program(&endpoint, None);
        undisturbed
    }

    /// The program knows its members by key, so nobody is misled, and what should still be there moves to the others.
    fn remove_by_key(&mut self, id: ListenerId, endpoint: &Endpoint) {
        let Some(held) = self.held.remove(&id) else { return };
        if let Some(ebpf) = &self.ebpf {
            ebpf.take_out(id);
        }
        self.program(endpoint, None);
        // Somebody may have taken it away a moment ago, and what is still there would be reset.
        if !held.facts.quiet {
            self.ensure_program(endpoint);
        }
        self.shutdowns.forget(&held.listener);
        let _ = held.listener.shut();
        if let Some(ebpf) = &mut self.ebpf {
            ebpf.leave(id);
        }
        if let Some(place) = self.places.get_mut(endpoint) {
            place.group.left(id);
        }
        self.changes.push(Change::Drop(id));
    }

    /// Would what waits in this listener move to another when it is removed?
    pub(crate) fn would_move(&self, id: ListenerId) -> bool {
        let Some(held) = self.held.get(&id) else { return false };
        let endpoint = &held.facts.endpoint;
        self.by_ebpf(endpoint)
            && self.live(endpoint).iter().any(|other| *other != id && self.is_willing(*other))
    }

    /// May it be removed now?
    pub(crate) fn may_remove(&self, id: ListenerId) -> bool {
        self.held.get(&id).is_some_and(|held| !self.awaits_departure(&held.facts.endpoint))
    }

    /// The instance ends: everything that is left.
    pub(crate) fn close_all(&mut self) {
        for held in self.held.values_mut() {
            held.remove_file();
        }
        for held in self.held.values() {
            self.shutdowns.forget(&held.listener);
        }
        self.held.clear();
        self.places.clear();
    }

    /// Addresses that the configuration no longer names: their ports are given back once nobody listens there.
    pub(crate) fn forget_unused(&mut self, wanted: &BTreeSet<Endpoint>) {
        let unwanted = |h: &super::Held| h.facts.shared && !wanted.contains(&h.facts.endpoint);
        let unused: Vec<_> =
            self.held().filter(|(_, h)| h.facts.owners.is_empty() && unwanted(h)).map(|(id, _)| id).collect();
        for id in unused {
            self.remove_unix(id);
        }
        let held: BTreeSet<_> = self.held.values().map(|h| h.facts.endpoint.clone()).collect();
        self.places
            .retain(|endpoint, place| place.expected || wanted.contains(endpoint) || held.contains(endpoint));
        if let Some(ebpf) = &mut self.ebpf {
            ebpf.keep_groups(|endpoint| self.places.contains_key(endpoint));
        }
    }
}
