//! Workers that get ready, and those that are asked whether they are well.

use super::Dispatcher;
use crate::core::{Event, Millis, State, WorkerId};
use crate::runtime::clock;
use crate::runtime::happening::Happening;
use crate::runtime::launch::cpus_of;
use crate::runtime::probe::{self, Probed};
use crate::runtime::readiness::Step;
use crate::spec::Ready;
use std::collections::BTreeSet;
use std::time::Duration;

/// So long after its last `listen` a new worker is waited for to open the addresses that its predecessor has.
const OPEN_MORE: Millis = Millis(10_000);

impl Dispatcher {
    pub(super) fn advance_readiness(&mut self, now: Millis) {
        let starting: Vec<_> =
            self.processes.iter().filter(|(_, p)| !p.readiness.done).map(|(worker, _)| *worker).collect();
        for worker in starting {
            self.advance_one(worker, now);
        }
    }

    pub(super) fn advance_one(&mut self, worker: WorkerId, now: Millis) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        let (pid, started) = (process.facts.pid, process.facts.started);
        let spec = self.plans.get(&process.facts.generation).unwrap_or(&self.newest);
        match process.readiness.step(&spec.ready, started, now) {
            Step::Wait => {}
            Step::Search => {
                if self.take_in_strays(worker) {
                    self.listens(worker);
                }
            }
            Step::Ready | Step::Look if self.may_open_more(worker, now) => {}
            Step::Ready => self.ready(worker),
            Step::Look => {
                let inodes: BTreeSet<_> = self.sockets.of(worker).map(|h| h.facts.inode).collect();
                if relisten_diag::waiting::waits_on(pid, &inodes).unwrap_or(false) {
                    self.ready(worker);
                }
            }
            Step::Probe(path) => {
                let path = path.to_owned();
                if let Some(process) = self.processes.get_mut(&worker) {
                    process.readiness.probing = true;
                }
                self.probe(worker, &path, probe::PATIENCE);
            }
        }
    }

    /// Its predecessor serves an address on which it does not listen yet: it may be about to. Not waited for for ever,
    /// nor where another command may have other addresses.
    fn may_open_more(&self, worker: WorkerId, now: Millis) -> bool {
        let Some(process) = self.processes.get(&worker) else { return false };
        let Some(since) = process.readiness.listening_since.filter(|_| !process.readiness.notified) else {
            return false;
        };
        let spec = self.plan(process.facts.generation);
        let same_command = self.plans.values().all(|s| s.command == spec.command && s.listen == spec.listen);
        let learns = spec.ready == Ready::Auto && same_command && now < since + OPEN_MORE;
        learns && !self.sockets.covers_predecessor(worker, process.facts.slot.0)
    }

    /// Probes those whose turn it is.
    pub(super) fn check_health(&mut self, now: Millis) {
        let due: Vec<_> = self
            .processes
            .values()
            .filter(|p| p.readiness.done && !p.readiness.probing && p.health_at.is_some_and(|at| at <= now))
            .map(|p| (p.facts.worker, p.facts.generation))
            .collect();
        for (worker, generation) in due {
            let health = self.plan(generation).health.clone();
            let serving = self.core.worker(worker).is_some_and(|w| w.state == State::Ready);
            let Some(process) = self.processes.get_mut(&worker) else { continue };
            let Some(health) = health.filter(|_| serving) else {
                process.health_at = None;
                continue;
            };
            process.readiness.probing = true;
            self.probe(worker, &health.path, health.every);
        }
    }

    pub(in crate::runtime) fn ready(&mut self, worker: WorkerId) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        if std::mem::replace(&mut process.readiness.done, true) {
            return;
        }
        let (generation, now) = (process.facts.generation, clock::now());
        let health = self.plan(generation).health.as_ref().map(|h| now + Millis(h.every.as_millis() as u64));
        if let Some(process) = self.processes.get_mut(&worker) {
            process.health_at = health;
        }
        self.note_cpus(worker);
        self.sockets.settle(worker);
        self.watch_for_hung();
        self.event(Event::Ready { worker });
    }

    /// One that is bound to some of the CPUs only, by us or by itself, gets the connections of those with the policy `cpu`.
    fn note_cpus(&mut self, worker: WorkerId) {
        let Some(pid) = self.processes.get(&worker).map(|p| p.facts.pid) else { return };
        let (all, own) = (cpus_of(None), cpus_of(Some(pid)));
        let bound = own.len() < all.len() || all.len() == 1;
        let own = own.into_iter().filter_map(|cpu| u32::try_from(cpu).ok());
        self.sockets.set_cpus(worker, if bound { own.collect() } else { Vec::new() });
    }

    /// A worker said something over its `NOTIFY_SOCKET`.
    pub(in crate::runtime) fn notified_ready(&mut self, worker: WorkerId) {
        if let Some(process) = self.processes.get_mut(&worker) {
            process.readiness.notified = true;
            self.ready(worker);
        }
    }

    pub(super) fn probe(&mut self, worker: WorkerId, path: &str, patience: Duration) {
        let ready = self.processes.get(&worker).is_some_and(|p| p.readiness.done);
        let target = self.sockets.probe_target(worker, ready);
        let (tx, path) = (self.tx.clone(), path.to_owned());
        tokio::task::spawn_local(async move {
            let outcome = match target {
                Some(target) => probe::get(target, &path, patience).await,
                None => Probed { answered: false, result: Err("it has no TCP listener".to_owned()) },
            };
            let _ = tx.send(Happening::Probed { worker, outcome });
        });
    }

    pub(super) fn probed(&mut self, worker: WorkerId, Probed { answered, result }: Probed) {
        self.sockets.probe_over(worker, answered);
        let Some(process) = self.processes.get_mut(&worker) else { return };
        process.readiness.probing = false;
        if process.readiness.done {
            self.health(worker, result);
        } else if result.is_ok() {
            self.ready(worker);
        }
    }

    pub(super) fn health(&mut self, worker: WorkerId, result: Result<(), String>) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        let spec = self.plans.get(&process.facts.generation).unwrap_or(&self.newest);
        let Some(health) = &spec.health else { return };
        process.health_at = Some(clock::now() + Millis(health.every.as_millis() as u64));
        let Err(why) = result else {
            process.health_failures = 0;
            return;
        };
        process.health_failures += 1;
        tracing::warn!(%worker, why, in_a_row = process.health_failures, "health probe failed");
        if process.health_failures >= health.failures {
            process.health_failures = 0;
            let why = format!("GET {}: {why}", health.path);
            self.event(Event::Unhealthy { worker, why });
        }
    }
}
