//! Who accepts from which listener. Holding one says little: a master of nginx holds them all.

use super::members::{self, Hold};
use relisten::SocketInode;
use relisten_diag::waiting;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity};
use std::collections::{BTreeMap, BTreeSet};

/// The listeners from which a process accepts, as far as can be seen.
#[derive(Debug, Default)]
pub(super) struct Workers(BTreeMap<u32, BTreeSet<SocketInode>>);

impl Workers {
    pub(super) fn look(holders: &BTreeMap<SocketInode, Vec<Hold>>) -> Self {
        let mut held: BTreeMap<u32, BTreeSet<SocketInode>> = BTreeMap::new();
        for (inode, holds) in holders {
            for hold in holds {
                held.entry(hold.pid).or_default().insert(*inode);
            }
        }
        let alone = |pid: u32, inode: &SocketInode| {
            holders.get(inode).is_some_and(|holds| holds.iter().all(|hold| hold.pid == pid))
        };
        let accepts = |(pid, held): (u32, BTreeSet<SocketInode>)| {
            let watched: BTreeSet<SocketInode> =
                waiting::epoll_sets(pid).unwrap_or_default().into_iter().flatten().collect();
            let accepts = |inode: &SocketInode| {
                alone(pid, inode)
                    || watched.contains(inode)
                    || waiting::process_waits(pid, &BTreeSet::from([*inode])) == Some(true)
            };
            (pid, held.into_iter().filter(accepts).collect())
        };
        let found = held.into_iter().map(accepts);
        Self(found.filter(|(_, listeners): &(_, BTreeSet<_>)| !listeners.is_empty()).collect())
    }

    /// The processes that accept from this one.
    pub(super) fn of(&self, listener: SocketInode) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().filter(move |(_, listeners)| listeners.contains(&listener)).map(|(pid, _)| *pid)
    }

    /// From which listener these connections were accepted. `may`: can it have been this one? Where a process accepts from
    /// several, that which the connection's epoll instance watches. Those of which it can't be told are left out.
    pub(super) fn listeners_of(
        &self,
        connections: &BTreeSet<SocketInode>,
        may: impl Fn(SocketInode, SocketInode) -> bool,
    ) -> BTreeMap<SocketInode, SocketInode> {
        let mut found = BTreeMap::new();
        let only = |connection: SocketInode, listeners: &BTreeSet<SocketInode>| {
            let mut fitting = listeners.iter().copied().filter(|listener| may(connection, *listener));
            fitting.next().filter(|_| fitting.next().is_none())
        };
        for (pid, listeners) in &self.0 {
            let mut unclear = false;
            members::each_socket(*pid, |inode, _| {
                if connections.contains(&inode) {
                    match only(inode, listeners) {
                        Some(listener) => _ = found.insert(inode, listener),
                        None => unclear = true,
                    }
                }
            });
            if unclear {
                for set in waiting::epoll_sets(*pid).unwrap_or_default() {
                    let here: BTreeSet<_> = set.intersection(listeners).copied().collect();
                    for connection in set.intersection(connections) {
                        found.extend(only(*connection, &here).map(|listener| (*connection, listener)));
                    }
                }
            }
        }
        found
    }

    /// CPUs and the listeners whose workers are bound to them. Bound is who may use some of the CPUs only that all of them
    /// may use together.
    pub(super) fn cpus(&self) -> Vec<(u32, SocketInode)> {
        let mut sets: Vec<(SocketInode, BTreeSet<u32>)> = Vec::new();
        for (pid, listeners) in &self.0 {
            for listener in listeners {
                // A thread for each listener: that which waits for its connections.
                let threads = match listeners.len() {
                    1 => vec![*pid],
                    _ => waiting::waiting_threads(*pid, &BTreeSet::from([*listener]))
                        .map_or_else(Vec::new, Iterator::collect),
                };
                sets.push((*listener, threads.into_iter().flat_map(cpus_of).collect()));
            }
        }
        bound(&sets)
    }
}

fn bound(sets: &[(SocketInode, BTreeSet<u32>)]) -> Vec<(u32, SocketInode)> {
    let all: BTreeSet<u32> = sets.iter().flat_map(|(_, cpus)| cpus).copied().collect();
    let bound = sets.iter().filter(|(_, cpus)| cpus.len() < all.len());
    bound.flat_map(|(listener, cpus)| cpus.iter().map(|cpu| (*cpu, *listener))).collect()
}

fn cpus_of(thread: u32) -> Vec<u32> {
    let set = Pid::from_raw(thread as i32).and_then(|pid| sched_getaffinity(Some(pid)).ok());
    let has = |cpu: &usize| set.as_ref().is_some_and(|set| set.is_set(*cpu));
    (0..CpuSet::MAX_CPU).filter(has).map(|cpu| cpu as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_use_all_is_not_bound() {
        let [a, b, c] = [1, 2, 3].map(SocketInode);
        let set = |cpus: &[u32]| cpus.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(bound(&[(a, set(&[0])), (b, set(&[1]))]), [(0, a), (1, b)]);
        assert_eq!(bound(&[(a, set(&[0, 1])), (b, set(&[0, 1]))]), []);
        assert_eq!(
            bound(&[(a, set(&[0])), (b, set(&[2, 3])), (c, set(&[0, 1, 2, 3]))]),
            [(0, a), (2, b), (3, b)]
        );
        assert_eq!(bound(&[(a, set(&[0])), (b, set(&[0]))]), []);
    }
}
