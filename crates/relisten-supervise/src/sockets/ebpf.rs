//! The eBPF backend: the instance's listeners and groups in the maps of the steering programs.
//!
//! A program names a listener by a key, not by its place in the group. So the order of the group does not matter here,
//! and a foreign member gets nothing, whenever it comes or goes.

use super::held::{Held, ListenerId};
use relisten::address::{Endpoint, Protocol};
use relisten::steer::Policy;
use relisten::{SocketCookie, SocketInode};
use relisten_bpf::group::Attached;
use relisten_bpf::{
    Avoid, Choice, Counting, Descriptors, Group, GroupCounts, GroupId, ListenerCounts, ListenerKey,
    RescueError, Rescued, Steering, Table,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Of the packet that tells a worker how to publish its load: this, the size of an entry, their number, and the keys.
const LOADS_VERSION: u32 = 1;

/// One listener in the maps.
#[derive(Debug)]
struct Entry {
    place: relisten_bpf::Listener,
    cookie: SocketCookie,
}

/// Steering programs in the kernel, and what of the instance is known to them.
#[derive(Debug)]
pub(crate) struct Ebpf {
    steering: Steering,
    counting: Option<Counting>,
    entries: BTreeMap<ListenerId, Entry>,
    /// Marked before they listen, so that not one connection is missed; not taken in yet.
    prepared: BTreeMap<SocketInode, Entry>,
    groups: BTreeMap<Endpoint, Group<Attached>>,
}

/// What the next supervisor must know, beside the descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Saved {
    listeners: Vec<(ListenerId, u32, SocketCookie)>,
    groups: Vec<(Endpoint, u32)>,
}

/// Who may be chosen at one address.
pub(super) struct Plan<'a> {
    pub(super) policy: Policy,
    /// Listener, slot, weight.
    pub(super) live: Vec<(ListenerId, u32, u32)>,
    /// Only when nobody else is left.
    pub(super) others: Vec<ListenerId>,
    /// CPUs and the listeners that have them.
    pub(super) cpus: Vec<(u32, ListenerId)>,
    /// Ports of probes and where they lead.
    pub(super) exceptions: Vec<(u16, ListenerId)>,
    /// Any socket that is in the group.
    pub(super) member: BorrowedFd<'a>,
}

impl Ebpf {
    /// From what was loaded just now. Counting is for the sockets of this cgroup.
    pub(crate) fn new(
        descriptors: Descriptors,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> io::Result<(Self, Option<io::Error>)> {
        let steering = Steering::open(descriptors).map_err(io::Error::other)?;
        let counting = match cgroup {
            Some(cgroup) => steering.count(cgroup),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "no cgroup of version 2 is mounted")),
        };
        let (counting, error) = match counting {
            Ok(counting) => (Some(counting), None),
            Err(error) => (None, Some(error)),
        };
        let (entries, prepared, groups) = Default::default();
        Ok((Self { steering, counting, entries, prepared, groups }, error))
    }

    /// Goes on with what an earlier supervisor left.
    pub(crate) fn resume(
        saved: &Saved,
        descriptors: Descriptors,
        counting: Option<Counting>,
    ) -> io::Result<Self> {
        let mut steering = Steering::open(descriptors).map_err(io::Error::other)?;
        let mut entries = BTreeMap::new();
        for (id, key, cookie) in &saved.listeners {
            let place = ListenerKey::new(*key).and_then(|key| steering.resume(key));
            entries.extend(place.map(|place| (*id, Entry { place, cookie: *cookie })));
        }
        let mut groups = BTreeMap::new();
        for (endpoint, number) in &saved.groups {
            let group = GroupId::new(*number).and_then(|id| steering.resume_group(id));
            groups.extend(group.map(|group| (endpoint.clone(), group)));
        }
        Ok(Self { steering, counting, entries, prepared: BTreeMap::new(), groups })
    }

    pub(crate) fn save(&self) -> Saved {
        Saved {
            listeners: self.entries.iter().map(|(id, e)| (*id, e.place.key().number(), e.cookie)).collect(),
            groups: self.groups.iter().map(|(e, g)| (e.clone(), g.id().number())).collect(),
        }
    }

    /// For the keeper.
    pub(crate) fn descriptors(&self) -> io::Result<Descriptors> {
        self.steering.descriptors()
    }

    /// For the keeper: counting ends with its last descriptor.
    pub(crate) fn counting(&self) -> Option<BorrowedFd<'_>> {
        self.counting.as_ref().map(AsFd::as_fd)
    }

    /// Only TCP is steered by key. UDP has its own ways: a flow must stay.
    pub(super) fn is_for(endpoint: &Endpoint) -> bool {
        endpoint.protocol() == Protocol::Tcp
    }

    /// The socket is about to listen: its connections are counted from the first one on.
    pub(super) fn prepare(&mut self, inode: SocketInode, socket: impl AsFd) {
        match self.claim(socket.as_fd()) {
            Ok(entry) => _ = self.prepared.insert(inode, entry),
            Err(error) => tracing::warn!(%error, "a listener can't be put into the steering maps"),
        }
    }

    /// It does not listen after all.
    pub(super) fn forget_prepared(&mut self, inode: SocketInode) {
        if let Some(entry) = self.prepared.remove(&inode) {
            self.release(&entry);
        }
    }

    fn claim(&mut self, socket: BorrowedFd<'_>) -> io::Result<Entry> {
        let full = || io::Error::new(io::ErrorKind::StorageFull, "there are too many listeners");
        let place = self.steering.claim().ok_or_else(full)?;
        let cookie = SocketCookie(rustix::net::sockopt::socket_cookie(socket)?);
        let entry = Entry { place, cookie };
        match entry.place.mark(socket) {
            Ok(()) => Ok(entry),
            Err(error) => {
                self.release(&entry);
                Err(error)
            }
        }
    }

    /// It listens and is the instance's: the programs can choose it. Also after it has listened anew.
    pub(super) fn enter(&mut self, id: ListenerId, held: &Held) {
        if !Self::is_for(&held.facts.endpoint) || held.facts.shared {
            return;
        }
        if !self.entries.contains_key(&id) {
            let entry = match self.prepared.remove(&held.facts.inode) {
                Some(entry) => Ok(entry),
                None => self.claim(held.listener.as_fd()),
            };
            match entry {
                Ok(entry) => _ = self.entries.insert(id, entry),
                Err(error) => {
                    tracing::warn!(%error, address = %held.facts.endpoint, "a listener can't be put into the steering maps");
                    return;
                }
            }
        }
        let Some(entry) = self.entries.get(&id) else { return };
        if let Err(error) = entry.place.enlist(&held.listener)
            && !is_there(&error)
        {
            tracing::warn!(%error, address = %held.facts.endpoint, "the steering program can't choose a listener");
        }
    }

    /// It is going: nobody is sent to it from this moment on.
    pub(super) fn take_out(&self, id: ListenerId) {
        if let Some(entry) = self.entries.get(&id) {
            entry.place.add(Avoid::OUT);
        }
    }

    /// It has gone.
    pub(super) fn leave(&mut self, id: ListenerId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.release(&entry);
        }
    }

    fn release(&mut self, entry: &Entry) {
        if let Err(error) = self.steering.release(&entry.place, Some(entry.cookie.0)) {
            tracing::debug!(%error, "a listener's place in the steering maps could not be cleared");
        }
    }

    /// Is it known to the programs?
    pub(super) fn knows(&self, id: ListenerId) -> bool {
        self.entries.contains_key(&id)
    }

    /// Is the program in force at this address (as far as we did it)?
    pub(super) fn steers(&self, endpoint: &Endpoint) -> bool {
        self.groups.contains_key(endpoint)
    }

    /// Says who may be chosen at an address, and puts the program in force if it is not. False: there are no more groups
    /// to be had, another backend has to do.
    pub(super) fn program(&mut self, endpoint: &Endpoint, plan: &Plan<'_>) -> io::Result<bool> {
        let live: Vec<_> = plan
            .live
            .iter()
            .filter_map(|(id, slot, weight)| Some((self.entries.get(id)?, *slot, *weight)))
            .collect();
        // A store each, and in force at once.
        for entry in plan.others.iter().filter_map(|id| self.entries.get(id)) {
            entry.place.add(Avoid::OUT);
        }
        for (entry, ..) in &live {
            entry.place.remove(Avoid::OUT | Avoid::DRAINING);
        }
        let key = |id: &ListenerId| self.entries.get(id).map(|e| e.place.key());
        let table = Table {
            policy: self.policy(plan.policy),
            live: live
                .iter()
                .map(|(e, id, weight)| Choice { key: e.place.key(), id: *id, weight: *weight })
                .collect(),
            others: plan.others.iter().filter_map(key).collect(),
            cpus: plan.cpus.iter().filter_map(|(cpu, id)| Some((*cpu, key(id)?))).collect(),
        };
        let exceptions: Vec<_> =
            plan.exceptions.iter().filter_map(|(port, id)| Some((*port, key(id)?))).collect();
        if let Some(group) = self.groups.get_mut(endpoint) {
            group.publish(&table).map_err(io::Error::other)?;
            group.except(&exceptions);
            return Ok(true);
        }
        let Some(group) = self.steering.group() else { return Ok(false) };
        let group = group.publish(&table).map_err(io::Error::other)?;
        group.except(&exceptions);
        match group.attach(plan.member) {
            Ok(group) => _ = self.groups.insert(endpoint.clone(), group),
            Err((group, error)) => {
                self.steering.release_group(group);
                return Err(error);
            }
        }
        Ok(true)
    }

    /// The policy as the programs know it; where it can't be carried out, what stands in.
    fn policy(&self, policy: Policy) -> relisten_bpf::Policy {
        use relisten_bpf::Policy as Known;
        match policy {
            Policy::Auto | Policy::LeastConnections if self.counting.is_some() => Known::LeastConnections,
            Policy::Auto | Policy::LeastConnections | Policy::Hash => Known::Hash,
            Policy::Random => Known::Random,
            Policy::RoundRobin => Known::RoundRobin,
            Policy::Cpu => Known::Cpu,
            Policy::ClientIp => Known::ClientIp,
            Policy::Weighted => Known::Weighted,
        }
    }

    /// What is carried out when this policy is asked for.
    pub(crate) fn effective(&self, policy: Policy) -> Policy {
        match policy {
            Policy::Auto | Policy::LeastConnections if self.counting.is_some() => Policy::LeastConnections,
            Policy::Auto | Policy::LeastConnections => Policy::Hash,
            other => other,
        }
    }

    /// Puts the program in force once more: a group that was empty has lost it, and any member can replace it.
    pub(super) fn attach_again(&self, endpoint: &Endpoint, member: BorrowedFd<'_>) -> io::Result<()> {
        self.groups.get(endpoint).map_or(Ok(()), |group| group.attach_again(member))
    }

    /// The address is nobody's any more.
    pub(super) fn forget_group(&mut self, endpoint: &Endpoint) {
        if let Some(group) = self.groups.remove(endpoint) {
            self.steering.release_group(group);
        }
    }

    /// Others' addresses are nobody's any more.
    pub(super) fn keep_groups(&mut self, keep: impl Fn(&Endpoint) -> bool) {
        let over: Vec<_> = self.groups.keys().filter(|e| !keep(e)).cloned().collect();
        for endpoint in over {
            self.forget_group(&endpoint);
        }
    }

    /// A listener is to be avoided for these reasons and no longer for those.
    pub(super) fn avoid(&self, id: ListenerId, add: Avoid, remove: Avoid) {
        if let Some(entry) = self.entries.get(&id) {
            entry.place.add(add);
            entry.place.remove(remove);
        }
    }

    /// A worker is going to publish its load for these listeners: what it needs to do so. `None`: it has none that the
    /// programs know.
    pub(super) fn publish(
        &self,
        ids: impl Iterator<Item = ListenerId>,
    ) -> Option<(BorrowedFd<'_>, Vec<u32>)> {
        let (loads, size, entries) = self.steering.loads()?;
        let places: Vec<_> = ids.filter_map(|id| self.entries.get(&id)).map(|e| &e.place).collect();
        if places.is_empty() {
            return None;
        }
        let mut numbers = vec![LOADS_VERSION, size as u32, entries as u32];
        for place in places {
            place.publish_load(0, 0);
            place.set_publishes(true);
            numbers.push(place.key().number());
        }
        Some((loads, numbers))
    }

    /// Nobody publishes a load for this listener any more.
    pub(super) fn stop_publishing(&self, id: ListenerId) {
        if let Some(entry) = self.entries.get(&id) {
            entry.place.set_publishes(false);
        }
    }

    /// Why it is avoided now.
    pub(super) fn avoided(&self, id: ListenerId) -> Avoid {
        self.entries.get(&id).map_or(Avoid::NOTHING, |e| e.place.avoided())
    }

    /// Moves what waits in it to others, and has it listen again.
    pub(super) fn rescue(
        &self,
        id: ListenerId,
        held: &Held,
        backlog: u32,
    ) -> Option<Result<Rescued, RescueError>> {
        Some(self.entries.get(&id)?.place.rescue(&held.listener, backlog))
    }

    /// What was counted of one listener. Open connections only while they are counted.
    pub(crate) fn counts(&self, id: ListenerId) -> Option<ListenerCounts> {
        Some(self.entries.get(&id)?.place.counts())
    }

    /// What was counted of one address as a whole.
    pub(crate) fn group_counts(&self, endpoint: &Endpoint) -> Option<GroupCounts> {
        Some(self.groups.get(endpoint)?.counts())
    }

    /// Are open connections counted?
    pub(crate) fn counts_open(&self) -> bool {
        self.counting.is_some()
    }
}

/// It is in the map already, which is what was wanted.
fn is_there(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::BUSY)
}
