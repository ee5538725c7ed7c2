//! All TCP sockets that are not listeners, in one walk and in bounded memory.

use super::destinations::{Outbound, RATE_SECONDS, Tracker, Use};
use super::listener::Group;
use super::sysctl::{Sysctls, TIME_WAIT_MS};
use crate::DiagError;
use crate::sock_diag::{Extensions, Protocol, Query, SockDiag, Socket, State, States};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// TCP sockets by state, and the TIME_WAIT entries by direction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connections {
    /// By state.
    pub states: BTreeMap<State, u64>,
    /// TIME_WAIT entries of connections that came to a listener.
    pub time_wait_in: u64,
    /// All others in TIME_WAIT.
    pub time_wait_out: u64,
    /// Outgoing connections by destination.
    pub outbound: Outbound,
}

impl Connections {
    /// How many are in this state.
    pub fn of(&self, state: State) -> u64 {
        self.states.get(&state).copied().unwrap_or(0)
    }

    /// All.
    pub fn total(&self) -> u64 {
        self.states.values().sum()
    }
}

/// So many connections are remembered by inode or by peer; what is beyond is counted, but not told whose it is.
const REMEMBERED: usize = 2_000_000;
/// With more connections than this on the ports in question nobody asks how long those in the queues have waited: the
/// kernel takes each socket's lock for that.
const TIMED: u64 = 50_000;

/// What one walk has found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) connections: Connections,
    /// Which connection belongs to which group: inode and index, by inode. Eight bytes each.
    pub(super) owned: Vec<(u32, u16)>,
    /// Peers of the groups' connections: 48 bits of hash, then the group's index; sorted. Eight bytes each.
    pub(super) peers: Vec<u64>,
    /// Those that were beyond what is remembered.
    pub(super) forgotten: u64,
}

impl Walk {
    /// Walks. The groups' own figures are filled in.
    pub(super) fn go(
        diag: &mut SockDiag,
        groups: &mut [Group],
        sysctls: &Sysctls,
        peers: bool,
    ) -> Result<Self, DiagError> {
        let index = Index::new(groups);
        let mut walk = Self::default();
        let mut tracker = Tracker::default();
        let states = States::CONNECTIONS
            | States::HALF_OPEN
            | States::from(State::TimeWait)
            | States::from(State::SynSent);
        let hash = BuildHasherDefault::<DefaultHasher>::default();
        diag.dump(&Query::tcp(states), |socket| {
            *walk.connections.states.entry(socket.state).or_default() += 1;
            let Some(at) = index.of(groups, &socket) else {
                walk.outgoing(&mut tracker, sysctls, &socket);
                return;
            };
            walk.incoming(&mut groups[at], at, &socket);
            if peers && socket.state != State::SynRecv {
                let hashed = hash.hash_one((socket.remote, socket.local.port()));
                walk.remember_peer(hashed << 16 | at as u64);
            }
        })?;
        walk.owned.sort_unstable();
        walk.peers.sort_unstable();
        walk.connections.outbound = tracker.finish();
        Ok(walk)
    }

    fn incoming(&mut self, group: &mut Group, at: usize, socket: &Socket) {
        match (socket.state, socket.inode) {
            (State::TimeWait, _) => {
                group.time_wait += 1;
                self.connections.time_wait_in += 1;
            }
            (State::SynRecv | State::NewSynRecv, _) => group.half_open += 1,
            (_, Some(inode)) => {
                group.active += 1;
                if self.owned.len() < REMEMBERED {
                    // sock_diag tells 32 bits.
                    self.owned.push((inode.0 as u32, at as u16));
                } else {
                    self.forgotten += 1;
                }
            }
            // Nobody holds it, and it is not on its way out: it waits for accept.
            (State::Established | State::CloseWait, None) => group.waiting += 1,
            _ => {}
        }
    }

    fn outgoing(&mut self, tracker: &mut Tracker, sysctls: &Sysctls, socket: &Socket) {
        let (source, destination) = (socket.local_canonical().ip(), socket.remote_canonical());
        let what = if socket.state == State::TimeWait {
            self.connections.time_wait_out += 1;
            let left = socket.timer.map_or(0, |timer| u64::from(timer.expires_ms));
            let age = TIME_WAIT_MS.saturating_sub(left);
            let loopback = destination.ip().is_loopback();
            Use::TimeWait {
                held: age < sysctls.time_wait_hold_ms(loopback),
                recent: age < RATE_SECONDS * 1000,
            }
        } else {
            Use::Open
        };
        tracker.add(source, destination, what);
    }

    fn remember_peer(&mut self, peer: u64) {
        if self.peers.len() < REMEMBERED {
            self.peers.push(peer);
        } else {
            self.forgotten += 1;
        }
    }

    /// Which group the connection with this inode came to.
    pub(super) fn group_of(&self, inode: u64) -> Option<u16> {
        let inode = u32::try_from(inode).ok()?;
        let at = self.owned.binary_search_by_key(&inode, |(inode, _)| *inode).ok()?;
        self.owned.get(at).map(|(_, group)| *group)
    }
}

/// How many connections each group has now that it did not have then: a lower bound of what it got, because what came
/// and went in between left no trace.
pub(super) fn newcomers(before: &[u64], now: &[u64], groups: usize) -> Vec<u64> {
    let mut counts = vec![0; groups];
    let mut old = before.iter().map(|peer| peer >> 16).peekable();
    for peer in now {
        while old.next_if(|hash| *hash < peer >> 16).is_some() {}
        if old.peek() != Some(&(peer >> 16))
            && let Some(count) = counts.get_mut((peer & 0xffff) as usize)
        {
            *count += 1;
        }
    }
    counts
}

/// How long the oldest connection in each group's queues has waited. Since a connection in a queue can't have sent
/// anything, the time since data was last sent is the time since its handshake.
pub(super) fn time_the_queues(diag: &mut SockDiag, groups: &mut [Group]) -> Result<(), DiagError> {
    let wanted = |group: &&Group| group.protocol == Protocol::Tcp && group.waiting > 0;
    let ports: Vec<u16> = groups.iter().filter(wanted).map(|group| group.address.port()).collect();
    let many: u64 = groups.iter().filter(wanted).map(|group| group.active + group.waiting).sum();
    if ports.is_empty() || many > TIMED {
        return Ok(());
    }
    let index = Index::new(groups);
    let states = States::from(State::Established) | States::from(State::CloseWait);
    diag.dump(&Query::tcp(states).ports(ports).with(Extensions::INFO), |socket| {
        let Some(info) = socket.info.filter(|_| socket.inode.is_none()) else { return };
        if let Some(at) = index.of(groups, &socket) {
            let oldest = &mut groups[at].oldest_ms;
            *oldest = Some(oldest.unwrap_or(0).max(u64::from(info.last_data_sent_ms)));
        }
    })?;
    Ok(())
}

/// Finds the group of a connection by its own address.
struct Index {
    /// Where in `groups` the TCP listeners of a port are; most ports have none.
    ports: Vec<Vec<u16>>,
    /// 0: none, else the place in `ports` plus one.
    of_port: Vec<u16>,
}

impl Index {
    fn new(groups: &[Group]) -> Self {
        let mut index = Self { ports: Vec::new(), of_port: vec![0; 1 << 16] };
        for (at, group) in groups.iter().enumerate().filter(|(_, g)| g.protocol == Protocol::Tcp) {
            let slot = &mut index.of_port[usize::from(group.address.port())];
            if *slot == 0 {
                index.ports.push(Vec::new());
                *slot = index.ports.len() as u16;
            }
            index.ports[usize::from(*slot) - 1].push(at as u16);
        }
        index
    }

    /// A listener on that very address comes before the wildcard, as for the kernel.
    fn of(&self, groups: &[Group], socket: &Socket) -> Option<usize> {
        let slot = usize::from(self.of_port[usize::from(socket.local.port())]).checked_sub(1)?;
        let places = || self.ports[slot].iter().map(|at| usize::from(*at));
        places().find(|at| groups[*at].address.ip() == socket.local.ip()).or_else(|| {
            places().find(|at| {
                let address = groups[*at].address;
                address.ip().is_unspecified() && address.is_ipv6() == socket.ipv6
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcomers_are_those_who_were_not_there() {
        let peer = |hash: u64, group: u64| hash << 16 | group;
        let before = [peer(1, 0), peer(3, 0), peer(9, 1)];
        let now = [peer(1, 0), peer(2, 1), peer(3, 0), peer(4, 0), peer(10, 1), peer(11, 5)];
        assert_eq!(newcomers(&before, &now, 2), [1, 2]);
        assert_eq!(newcomers(&[], &now, 2), [3, 2]);
        assert_eq!(newcomers(&now, &[], 2), [0, 0]);
    }
}
