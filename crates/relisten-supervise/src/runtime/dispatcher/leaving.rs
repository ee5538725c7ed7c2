//! Workers that leave, and the listeners they leave behind.

use super::Dispatcher;
use crate::async_fd;
use crate::core::{Event, Millis, Request, State, Worker, WorkerId};
use crate::runtime::clock;
use crate::runtime::descriptors::each_socket;
use crate::runtime::happening::Happening;
use crate::runtime::stopped::Stopped;
use relisten::address::Endpoint;
use relisten_diag::quiet::Workers;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use tokio::io::Interest;

impl Dispatcher {
    pub(super) fn start_barrier(&mut self) {
        if !self.leaving.wants_barrier(self.orphans.want_barrier()) {
            return;
        }
        self.orphans.barrier_begins();
        let tx = self.tx.clone();
        // Takes 8 to 20 ms. Everything else goes on meanwhile.
        let wait = move || {
            if let Err(error) = relisten_sys::membarrier::global() {
                tracing::debug!(%error, "no membarrier: waiting instead");
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            let _ = tx.send(Happening::Barrier);
        };
        let thread = std::thread::Builder::new().name("barrier".into()).stack_size(64 * 1024).spawn(wait);
        if let Err(error) = thread {
            tracing::warn!(%error, "no thread for a barrier");
            let _ = self.tx.send(Happening::Barrier);
        }
    }

    pub(super) fn barrier_over(&mut self) {
        // Before it is too late: one that joined unseen has its place among ours.
        self.look_at_groups();
        let now = clock::now();
        let (to_deafen, to_watch) = self.leaving.barrier_over();
        for worker in to_deafen {
            self.sockets.deafen(worker);
        }
        if !to_watch.is_empty() || self.orphans.in_barrier() {
            match self.observer.half_open(&self.diag_endpoints()) {
                Ok(half_open) => {
                    self.orphans.barrier_over(&half_open);
                    for worker in to_watch {
                        if let Some(process) = self.processes.get(&worker) {
                            self.leaving.watch(worker, process.facts.pid, now, half_open.clone());
                        }
                    }
                }
                // Nothing is proven without; the next barrier brings another try.
                Err(error) => {
                    self.orphans.barrier_failed();
                    tracing::warn!(%error, "can't see half-open requests: trying again");
                }
            }
        }
        self.start_barrier();
    }

    pub(super) fn look(&mut self, now: Millis) {
        self.note_misled();
        let watched = self.leaving.watched();
        self.relieve_sharing(&watched);
        for worker in &watched {
            self.lift_demands(*worker);
        }
        let pid = |worker: &WorkerId| self.processes.get(worker).map(|p| p.facts.pid);
        let leaving: Vec<u32> = watched.iter().filter_map(pid).collect();
        let others: Vec<u32> =
            self.processes.values().map(|p| p.facts.pid).filter(|pid| !leaving.contains(pid)).collect();
        let by_pid: BTreeMap<u32, WorkerId> = watched.iter().filter_map(|w| Some((pid(w)?, *w))).collect();
        let endpoints = self.diag_endpoints();
        self.observer.watch_unix(self.sockets.unix_names());
        let sockets = &self.sockets;
        let queued = |pid: u32| {
            let worker = by_pid.get(&pid)?;
            // What comes to a shared one that is in use still is the others' as well.
            sockets.of(*worker).filter(|h| h.is_its_own()).map(crate::sockets::Held::waiting).sum()
        };
        let workers = Workers { leaving: &leaving, others: &others };
        let observed = self.observer.observe(now.0, &endpoints, workers, queued);
        let cost = clock::now().since(now);
        match observed {
            Ok(observation) => {
                let mut quiet = self.leaving.look(clock::now(), cost, &observation);
                // One that hung, and whose listener another has taken over, may still accept from it. So it must stand
                // still while it is looked at once more, and until it has its stop signal.
                let mut standing = Vec::new();
                for (worker, pid) in self.sharing(&quiet) {
                    standing.extend(Stopped::worker(pid));
                    let again = self.observer.observe(clock::now().0, &endpoints, workers, |_| Some(0));
                    if !again.is_ok_and(|again| self.leaving.still_quiet(worker, &again)) {
                        quiet.retain(|w| *w != worker);
                    }
                }
                for worker in quiet {
                    if self.sockets.proven_quiet(worker) {
                        self.leaving.prove_again(worker);
                    } else {
                        self.leaving.end(worker);
                        self.event(Event::Quiet { worker });
                    }
                }
                drop(standing);
                self.start_barrier();
            }
            Err(error) => {
                tracing::warn!(%error, "can't see the connections of leaving workers: they leave when --drain is over");
                self.leaving.give_up_looking(now);
            }
        }
    }

    /// A connection whose handshake was half open when its listener was made deaf by hop limit has inherited the demand, and
    /// receives nothing. Lifted, it gets what the client sends again.
    fn lift_demands(&self, worker: WorkerId) {
        let Some(process) = self.processes.get(&worker) else { return };
        if !self.sockets.of(worker).any(|h| h.facts.by_hop_limit) {
            return;
        }
        let listeners: BTreeSet<_> = self.sockets.held().map(|(_, h)| h.facts.inode).collect();
        each_socket(process.facts.pid, |inode, duplicate| {
            if !listeners.contains(&inode)
                && let Some(socket) = duplicate()
            {
                relisten::listener::lift_hop_limit(&socket);
            }
        });
    }

    /// Listeners that nobody owns: closed when nothing waits in them and nothing more can come, else given to a
    /// successor.
    pub(super) fn collect(&mut self) {
        self.collected = clock::now();
        self.sockets.note_departures();
        self.look_at_groups();
        self.orphans.only(self.sockets.orphans().map(|(id, _)| id));
        if self.sockets.orphans().next().is_none() {
            return;
        }
        // Before the queues: what is not half open any more is in a queue by now.
        let Ok(half_open) = self.observer.half_open(&self.diag_endpoints()) else { return };
        let orphans: Vec<_> =
            self.sockets.orphans().map(|(id, h)| (id, h.waiting(), h.facts.clone())).collect();
        let mut over = Vec::new();
        for (id, waiting, facts) in orphans {
            // When its worker died before it was proven quiet, what was half open then may still come.
            let nothing_comes = facts.quiet || self.orphans.is_over(id, &half_open);
            match waiting {
                Some(0) if nothing_comes => over.push((id, Some(0))),
                // What is there, or comes still, moves to others.
                Some(_) if self.sockets.would_move(id) => over.push((id, None)),
                Some(0) | None => {}
                Some(waiting) if facts.shared || self.nobody_can_serve(&facts.endpoint) => {
                    tracing::error!(address = %facts.endpoint, waiting,
                        "the workers of this address are dead, and no other has it: what waited for them is lost");
                    self.totals.cut += waiting;
                    over.push((id, None));
                }
                Some(waiting) => self.have_taken_over(&facts.endpoint, facts.slot, waiting),
            }
        }
        // First all of them: what one removal throws into confusion must not reach the next.
        for (id, _) in &over {
            self.sockets.deafen_at_rest(*id);
        }
        for (id, expected) in over {
            if self.look_at_groups() {
                break;
            }
            // A successor that was started meanwhile may have got it, or something came after all.
            let as_it_was = |h: &crate::sockets::Held| expected.is_none() || h.waiting() == expected;
            let still = self.sockets.orphans().any(|(orphan, h)| orphan == id && as_it_was(h));
            if !still || !self.sockets.may_remove(id) {
                continue;
            }
            self.let_go(id);
            if !self.sockets.remove(id) {
                self.disturbed();
                break;
            }
        }
        self.forget_plans();
        self.start_barrier();
    }

    /// Those who are in service don't listen there, and nobody starts who might: a new generation has other addresses.
    fn nobody_can_serve(&self, endpoint: &Endpoint) -> bool {
        let nobody_starts = self.processes.values().all(|p| p.readiness.done);
        let mut ready = self.core.workers().filter(|w| w.state == State::Ready).peekable();
        nobody_starts && ready.peek().is_some() && !ready.any(|w| self.listens_at(w, endpoint))
    }

    fn listens_at(&self, worker: &Worker, endpoint: &Endpoint) -> bool {
        self.sockets.of(worker.id).any(|h| h.facts.endpoint == *endpoint)
    }

    /// Has the listeners watched: those that workers may shut down, and those to which nobody has come for a while.
    pub(in crate::runtime) fn watch_listeners(&self) {
        self.watch_for(self.sockets.shutdowns(), || Happening::Shutdown);
        self.watch_for(self.sockets.arrivals(), || Happening::Arrived);
    }

    fn watch_for(&self, what: Option<std::io::Result<OwnedFd>>, happens: fn() -> Happening) {
        let Some(watched) = what.and_then(|fd| async_fd::watch(fd.ok()?, Interest::READABLE).ok()) else {
            return;
        };
        let tx = self.tx.clone();
        tokio::task::spawn_local(async move {
            while let Ok(mut guard) = watched.readable().await {
                guard.clear_ready();
                if tx.send(happens()).is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
    }

    /// Foreign members come and go as they like. True: one has gone.
    pub(super) fn look_at_groups(&mut self) -> bool {
        self.sockets.look_at_groups();
        if self.sockets.any_foreign() {
            self.look_for_foreign();
        }
        self.note_misled()
    }

    /// The sockets may have noticed it in the midst of something else. To be asked before anything is taken for proven.
    pub(in crate::runtime) fn note_misled(&mut self) -> bool {
        let misled = self.sockets.take_misled();
        if misled {
            self.disturbed();
            self.start_barrier();
        }
        misled
    }

    /// For a moment connections may have come to whom they were not meant for: whatever was proven quiet must be proven
    /// afresh.
    fn disturbed(&mut self) {
        self.leaving.disturbed();
        self.orphans.disturbed();
        self.sockets.nothing_is_proven();
    }

    /// Connections wait where nobody accepts: the slot's next worker takes them over. See to it that there is one.
    pub(super) fn have_taken_over(&mut self, endpoint: &Endpoint, slot: u32, waiting: u64) {
        let starting = self.processes.values().any(|p| p.facts.slot.0 == slot && !p.readiness.done);
        if starting {
            return;
        }
        let fits = |w: &&Worker| w.state == State::Ready && self.listens_at(w, endpoint);
        let ready = || self.core.workers().filter(fits);
        let heir = ready().find(|w| w.slot.0 == slot).or_else(|| ready().next()).map(|w| (w.id, w.slot.0));
        if let Some((worker, heir)) = heir {
            tracing::info!(
                slot = heir,
                waiting,
                "connections wait on a listener without a worker: replacing the slot's worker"
            );
            self.sockets.move_orphans(slot, heir);
            self.event(Event::Request { id: None, request: Request::Replace { worker } });
        }
    }
}
