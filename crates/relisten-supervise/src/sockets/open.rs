//! Listeners that we make and pass to workers.

use super::ebpf::Ebpf;
use super::held::{Facts, Held, ListenerId, Origin, Stall};
use super::place::Place;
use super::unix::Name;
use super::{Change, Sockets, holders};
use crate::core::WorkerId;
use relisten::SlotId;
use relisten::address::{Endpoint, NamedAddress, Protocol};
use relisten::listener::{ListenError, ListenOptions, Listener};
use std::collections::BTreeSet;

/// An address that can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Its name has no address.
    #[error("--listen {address}")]
    Resolve {
        address: String,
        #[source]
        source: relisten::address::ResolveError,
    },
    /// Others have it, who are named if they can be seen.
    #[error("can't listen beside {by}")]
    InUse {
        by: String,
        #[source]
        source: ListenError,
    },
    /// It can't be opened.
    #[error("can't listen")]
    Listen(#[source] ListenError),
}

impl OpenError {
    fn of(endpoint: &Endpoint, source: ListenError) -> Self {
        let by: Vec<_> = match source {
            ListenError::InUse { .. } => holders::of(endpoint).iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        if by.is_empty() { Self::Listen(source) } else { Self::InUse { by: by.join(", "), source } }
    }
}

/// Addresses as given, each with what it stands for.
pub(crate) type Resolved = Vec<(NamedAddress, Vec<Endpoint>)>;

/// **May block** for as long as the resolver does.
pub(crate) fn resolve(addresses: &[NamedAddress]) -> Result<Resolved, OpenError> {
    let one = |named: &NamedAddress| match named.address.resolve() {
        Ok(endpoints) => Ok((named.clone(), endpoints)),
        Err(source) => Err(OpenError::Resolve { address: named.to_string(), source }),
    };
    addresses.iter().map(one).collect()
}

impl Sockets {
    /// Makes these addresses the instance's own: settles port 0 and holds the ports, without listening yet.
    pub(crate) fn reserve(&mut self, addresses: &Resolved) -> Result<Vec<Endpoint>, OpenError> {
        let mut reserved = Vec::new();
        for (named, endpoints) in addresses {
            for endpoint in endpoints {
                reserved.push(self.reserve_one(named, endpoint.clone())?);
            }
        }
        Ok(reserved)
    }

    fn reserve_one(&mut self, named: &NamedAddress, endpoint: Endpoint) -> Result<Endpoint, OpenError> {
        let known = self.places.iter().find(|(e, p)| **e == endpoint || settled(e, p, &endpoint, named));
        let known = known.map(|(e, _)| e.clone());
        if let Some(place) = known.as_ref().and_then(|e| self.places.get_mut(e)) {
            place.explicit = true;
            place.name.clone_from(&named.name);
            return Ok(known.unwrap_or(endpoint));
        }
        let fail = |source| OpenError::of(&endpoint, source);
        let mut place = Place { name: named.name.clone(), explicit: true, ..Place::default() };
        let mut actual = endpoint.clone();
        match endpoint.protocol() {
            Protocol::Tcp => {
                let socket = Listener::bind(&endpoint, &self.options()).map_err(fail)?;
                actual = socket.endpoint().clone();
                place.reservation = Some(socket.into());
            }
            Protocol::Udp if endpoint.port() == Some(0) => {
                // A bound UDP socket would take datagrams, so it can't be kept.
                let socket = Listener::open(&endpoint, &self.options()).map_err(fail)?;
                actual = socket.endpoint().clone();
            }
            Protocol::Udp => drop(Listener::open(&endpoint, &self.options()).map_err(fail)?),
            Protocol::Unix => {
                let listener = Listener::open(&endpoint, &self.options()).map_err(fail)?;
                self.places.insert(actual.clone(), place);
                self.insert(listener, SlotId(0), Origin::Passed, BTreeSet::new(), true);
                return Ok(actual);
            }
        }
        self.places.insert(actual.clone(), place);
        Ok(actual)
    }

    pub(super) fn options(&self) -> ListenOptions {
        ListenOptions { backlog: self.backlog, ..ListenOptions::default() }
    }

    /// The listeners that a worker gets passed for these addresses: those it inherits, else new ones. In the order of
    /// the addresses; what is left over in its slot from earlier workers comes last.
    pub(crate) fn pass(
        &mut self,
        worker: WorkerId,
        slot: SlotId,
        endpoints: &[Endpoint],
        surely_used: bool,
    ) -> Result<Vec<(ListenerId, String)>, OpenError> {
        let mut passed = Vec::new();
        let mut leftover = Vec::new();
        for endpoint in endpoints {
            let name = self.places.get(endpoint).and_then(|p| p.name.clone());
            let name = name.unwrap_or_else(|| endpoint.to_string().replace(':', "_"));
            let mine = |h: &Held| h.facts.endpoint == *endpoint && h.facts.owners.contains(&worker);
            let existing: Vec<_> = self.held().filter(|(_, h)| mine(h)).map(|(id, _)| id).collect();
            if let [first, rest @ ..] = existing.as_slice() {
                passed.push((*first, name.clone()));
                leftover.extend(rest.iter().map(|id| (*id, name.clone())));
            } else {
                self.look_at_groups();
                let listener = self.open(endpoint).map_err(|source| OpenError::of(endpoint, source))?;
                let id = self.insert(listener, slot, Origin::Passed, BTreeSet::from([worker]), false);
                passed.push((id, name));
            }
        }
        passed.extend(leftover);
        for (id, _) in &passed {
            if let Some(held) = self.held.get_mut(id) {
                held.facts.owners.insert(worker);
                held.facts.in_hand |= surely_used;
            }
        }
        Ok(passed)
    }

    /// A listener of our own. Its connections are counted from the first one on.
    fn open(&mut self, endpoint: &Endpoint) -> Result<Listener, ListenError> {
        let options = self.options();
        let Some(ebpf) = self.ebpf.as_mut().filter(|_| Ebpf::is_for(endpoint)) else {
            return Listener::open(endpoint, &options);
        };
        let mut inode = None;
        let prepare = |listener: &Listener| {
            inode = listener.inode().ok();
            if let Some(inode) = inode {
                ebpf.prepare(inode, listener);
            }
        };
        let opened = Listener::open_prepared(endpoint, &options, prepare);
        if let (Err(_), Some(inode)) = (&opened, inode) {
            ebpf.forget_prepared(inode);
        }
        opened
    }

    /// A worker takes over what a lost one of its slot left, and what else is left over in the slot.
    pub(crate) fn inherit(&mut self, worker: WorkerId, slot: SlotId, from: Option<WorkerId>) {
        if let Some(from) = from {
            self.held.values_mut().filter(|h| h.facts.shared).for_each(|h| _ = h.facts.owners.remove(&from));
        }
        for held in self.held.values_mut().filter(|h| !h.facts.shared) {
            // An empty one goes by itself.
            let left_over = held.facts.owners.is_empty() && held.waiting() != Some(0);
            let orphan = left_over && held.facts.slot == slot.0;
            // The lost one is not released when somebody inherits from it: it is over for it here.
            if orphan || from.is_some_and(|f| held.facts.owners.remove(&f)) {
                held.facts.owners.insert(worker);
                held.facts.in_hand = false;
            }
        }
    }

    /// Without steering the successor gets its predecessor's listeners too.
    pub(crate) fn share(&mut self, worker: WorkerId, with: WorkerId) {
        for held in self.held.values_mut().filter(|h| h.facts.owners.contains(&with)) {
            held.facts.owners.insert(worker);
        }
    }

    /// Takes a listener in. A newcomer beside others that serve is deaf until its worker is in service.
    pub(super) fn insert(
        &mut self,
        listener: Listener,
        slot: SlotId,
        origin: Origin,
        owners: BTreeSet<WorkerId>,
        shared: bool,
    ) -> ListenerId {
        let endpoint = listener.endpoint().clone();
        let others_serve = !self.live(&endpoint).is_empty();
        let inode = listener.inode().unwrap_or(relisten::SocketInode(0));
        let id = self.number_of(&endpoint, inode);
        let in_hand = origin == Origin::Adopted;
        let facts = Facts {
            endpoint: endpoint.clone(),
            inode,
            origin,
            owners,
            in_hand,
            assumed: false,
            deaf: false,
            by_hop_limit: false,
            quiet: false,
            probes: 0,
            stall: Stall::No,
            rescued: 0,
            slot: slot.0,
            shared,
            name: shared.then(|| Name::of(listener.endpoint())),
        };
        let place = self.places.entry(facts.endpoint.clone()).or_default();
        place.expected = false;
        if facts.endpoint.has_group() {
            place.joined(id);
        }
        let mut held = Held { listener, facts };
        // By key nobody is sent there before it is named.
        let by_key = self.ebpf.is_some() && Ebpf::is_for(&endpoint);
        if others_serve && !shared && self.can_steer && !by_key {
            held.deafen();
        }
        if let Some(ebpf) = &mut self.ebpf {
            ebpf.enter(id, &held);
        }
        self.shutdowns.watch(id, &held.listener);
        self.held.insert(id, held);
        self.changes.push(Change::Put(id));
        // Somebody may have been there before.
        let shut = self.shutdowns.take();
        self.last_shut.extend(shut);
        self.look_at_group(&endpoint);
        id
    }
}

/// The same address given again, which had port 0 the first time.
fn settled(known: &Endpoint, place: &Place, wanted: &Endpoint, named: &NamedAddress) -> bool {
    wanted.port() == Some(0)
        && place.explicit
        && place.name == named.name
        && known.port().is_some_and(|p| wanted.clone().with_port(p) == *known)
}
