//! Whom the kernel has in a group, and in which order they joined it: found out, not remembered.
//!
//! A socket that joins its group is put into a hash chain: at the head, or at the tail if it is IPv6
//! ([`__inet_hash`](https://github.com/torvalds/linux/blob/v6.12/net/ipv4/inet_hashtables.c),
//! [`udp_lib_get_port`](https://github.com/torvalds/linux/blob/v6.12/net/ipv4/udp.c)). sock_diag lists the chain as it is
//! (of listeners since Linux 5.19). What it can't tell is who took the place of somebody that left; that our model
//! knows.

use super::Sockets;
use super::held::ListenerId;
use relisten::SocketInode;
use relisten::address::{Endpoint, Protocol};
use relisten_diag::sock_diag::{Query, SockDiag, Socket, States};

impl Sockets {
    /// Brings the model of this address's group into line with the kernel: foreign sockets that have joined get their
    /// place in it; whoever has gone leaves it, be it a foreign one or one that its worker has shut down. True: some
    /// are gone, so for a while the program may have named the wrong members.
    pub(crate) fn look_at_group(&mut self, endpoint: &Endpoint) -> bool {
        let Some(members) = joined(endpoint) else { return false };
        let known: Vec<(SocketInode, ListenerId)> = self.known(endpoint);
        let id_of = |inode: &SocketInode| known.iter().find(|(k, _)| k == inode).map(|(_, id)| *id);
        let Some(place) = self.places.get(endpoint) else { return false };
        let is_gone = |inode: &SocketInode| !members.contains(inode);
        let mut gone: Vec<ListenerId> =
            place.foreign.iter().filter(|(_, inode)| is_gone(inode)).map(|(id, _)| *id).collect();
        // Servers may shut down their listener themselves, as some do when they are told to stop.
        let is_shut = |id: &ListenerId| self.held.get(id).is_some_and(super::Held::is_shut);
        let shut: Vec<_> = place.group.order().iter().copied().filter(is_shut).collect();
        gone.extend(shut.iter().filter(|id| !self.last_shut.contains(id)));
        gone.extend(self.last_shut.iter().filter(|id| shut.contains(id)));
        let mut found = Vec::new();
        for (position, inode) in members.iter().enumerate() {
            if id_of(inode).is_none() {
                let later = members[position + 1..].iter().filter(|m| id_of(m).is_some()).count();
                found.push((*inode, later));
            }
        }
        if gone.is_empty() && found.is_empty() {
            return false;
        }
        let mut next = self.last_id;
        if let Some(place) = self.places.get_mut(endpoint) {
            for (inode, later) in found {
                next += 1;
                place.group.had_joined(ListenerId(next), later);
                place.foreign.insert(ListenerId(next), inode);
            }
            for id in &gone {
                place.foreign.remove(id);
                place.group.left(*id);
            }
        }
        self.last_id = next;
        // By key nobody is misled.
        if !self.by_ebpf(endpoint) {
            self.program(endpoint, None);
        }
        // Also noticed in the midst of a worker's `listen`: who has to know learns it by this.
        let misled = !gone.is_empty() && !self.by_ebpf(endpoint);
        self.misled |= misled;
        misled
    }

    /// The same for every group. True: somebody is gone.
    pub(crate) fn look_at_groups(&mut self) -> bool {
        let shut = self.shutdowns.take();
        self.last_shut.extend(shut);
        let endpoints: Vec<_> = self.places.keys().filter(|e| e.has_group()).cloned().collect();
        let gone = endpoints.into_iter().fold(false, |gone, endpoint| self.look_at_group(&endpoint) | gone);
        self.last_shut.clear();
        gone
    }

    /// May the kernel have been misled since the last call, because somebody left a group unseen?
    pub(crate) fn take_misled(&mut self) -> bool {
        std::mem::take(&mut self.misled)
    }

    /// Is there anybody whose going would change the order without our seeing it?
    pub(crate) fn any_foreign(&self) -> bool {
        self.places.values().any(|place| !place.foreign.is_empty())
    }

    /// Members of the model, and sockets of ours that have not listened yet.
    fn known(&self, endpoint: &Endpoint) -> Vec<(SocketInode, ListenerId)> {
        let held = self.held().filter(|(_, h)| h.facts.endpoint == *endpoint);
        let mut known: Vec<_> = held.map(|(id, h)| (h.facts.inode, id)).collect();
        if let Some(place) = self.places.get(endpoint) {
            known.extend(place.foreign.iter().chain(&place.departing).map(|(id, inode)| (*inode, *id)));
        }
        known
    }

    /// The number of a listener that is being taken in: if it was taken for a foreign one, that one's.
    pub(super) fn number_of(&mut self, endpoint: &Endpoint, inode: SocketInode) -> ListenerId {
        if let Some(place) = self.places.get_mut(endpoint) {
            let known = place.foreign.iter().find(|(_, foreign)| **foreign == inode).map(|(id, _)| *id);
            if let Some(id) = known {
                place.foreign.remove(&id);
                return id;
            }
        }
        self.last_id += 1;
        ListenerId(self.last_id)
    }
}

/// All members of the group at this address, in the order in which they joined; `None` if the kernel does not tell.
pub(super) fn joined(endpoint: &Endpoint) -> Option<Vec<SocketInode>> {
    let (Endpoint::Tcp { addr, v6only } | Endpoint::Udp { addr, v6only }) = *endpoint else { return None };
    let is_udp = endpoint.protocol() == Protocol::Udp;
    let query = if is_udp { Query::udp() } else { Query::tcp(States::LISTEN) };
    let uid = rustix::process::geteuid().as_raw();
    let mut members = Vec::new();
    let member = |socket: &Socket| {
        (socket.local.ip(), socket.local.port()) == (addr.ip(), addr.port())
            && socket.ipv6 == addr.is_ipv6()
            && (addr.is_ipv4() || socket.v6only.is_none_or(|only| only == v6only))
            && socket.uid == uid
    };
    let mut diag = SockDiag::new().ok()?;
    diag.dump(&query.ports([addr.port()]), |socket| members.extend(socket.inode.filter(|_| member(&socket))))
        .ok()?;
    if addr.is_ipv4() {
        members.reverse();
    }
    Some(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use relisten::listener::{ListenOptions, Listener};

    #[test]
    fn the_order_of_joining() {
        for text in ["127.0.0.1:0", "[::1]:0", "[::]:0", "udp://127.0.0.1:0", "udp://[::1]:0"] {
            let address: relisten::address::Address = text.parse().unwrap();
            let endpoint = address.resolve().unwrap().remove(0);
            let first = Listener::open(&endpoint, &ListenOptions::default()).unwrap();
            let endpoint = first.endpoint().clone();
            let open = || Listener::open(&endpoint, &ListenOptions::default()).unwrap();
            let mut all = vec![first];
            all.extend((0..5).map(|_| open()));
            let inodes = |all: &[Listener]| all.iter().map(|l| l.inode().unwrap()).collect::<Vec<_>>();
            assert_eq!(joined(&endpoint).unwrap(), inodes(&all), "{text}");
            // Who stays keeps its place in the chain, whatever the group makes of it.
            all.remove(1);
            assert_eq!(joined(&endpoint).unwrap(), inodes(&all), "{text}, after one has left");
        }
    }
}
