//! Starting workers, and answering their calls.

use super::Dispatcher;
use crate::async_fd;
use crate::core::{Event, WorkerId};
use crate::keeper;
use crate::runtime::calls::{self, Caller};
use crate::runtime::clock;
use crate::runtime::happening::Happening;
use crate::runtime::launch::Launch;
use crate::runtime::output::Stream;
use crate::runtime::plan::Plan;
use crate::runtime::process::Process;
use crate::runtime::readiness::Readiness;
use crate::runtime::start::RunError;
use crate::spec::Sockets as How;
use relisten::address::Protocol;
use relisten::{Generation, SlotId};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use tokio::io::Interest;

/// A process that was started but is in no list yet: it is killed unless it gets there.
struct Unlisted {
    pidfd: Rc<OwnedFd>,
    listed: bool,
}

impl Drop for Unlisted {
    fn drop(&mut self) {
        if !self.listed {
            let _ = rustix::process::pidfd_send_signal(&*self.pidfd, rustix::process::Signal::KILL);
        }
    }
}

fn cannot_watch(error: &io::Error) -> String {
    format!("can't watch the worker: {error}")
}

impl Dispatcher {
    pub(super) fn spawn(
        &mut self,
        worker: WorkerId,
        slot: SlotId,
        generation: Generation,
        inherits: Option<WorkerId>,
    ) {
        // Whoever takes over from us must know that there may be such a worker.
        self.write_down();
        let plan = self.plan(generation);
        if inherits.is_some() {
            self.totals.restarts += 1;
        }
        self.sockets.inherit(worker, slot, inherits);
        self.hand_over_from_hung(worker, slot);
        if !self.core.settings().can_steer {
            let predecessor = self.core.workers().find(|w| w.slot == slot && w.id != worker).map(|w| w.id);
            if let Some(predecessor) = predecessor {
                self.sockets.share(worker, predecessor);
            }
        }
        match self.launch(&plan, worker, slot, generation) {
            Ok(pid) => self.event(Event::Spawned { worker, pid }),
            Err(why) => self.event(Event::SpawnFailed { worker, why }),
        }
    }

    pub(super) fn launch(
        &mut self,
        plan: &Plan,
        worker: WorkerId,
        slot: SlotId,
        generation: Generation,
    ) -> Result<u32, String> {
        self.sockets.enlist_unix(worker, generation, &plan.endpoints);
        let passed = if plan.sockets == How::Adopt {
            Vec::new()
        } else {
            let used = plan.sockets == How::Pass;
            self.sockets.pass(worker, slot, &plan.endpoints, used).map_err(|e| crate::runtime::chain(&e))?
        };
        let launch = Launch {
            spec: plan,
            worker,
            slot,
            generation,
            passed: passed
                .iter()
                .filter_map(|(id, name)| Some((self.sockets.fd(*id)?, name.clone())))
                .collect(),
            notify: self.notify.as_deref(),
            adopt_unix: plan.endpoints.iter().any(|e| e.protocol() == Protocol::Unix),
        };
        let launched = launch.run().map_err(|e| crate::runtime::chain(&e))?;
        let pid = launched.child.pid.as_raw_nonzero().get() as u32;
        let facts = launch.facts(pid, clock::now());
        let has_listeners = !passed.is_empty();
        if let Some(error) = &launched.child.filter_refused {
            self.lacks_adoption(error);
        }
        // Until everything is set up: nobody knows it yet, so nobody would end it.
        let mut started = Unlisted { pidfd: Rc::new(launched.child.pidfd), listed: false };
        let output = self.output.worker(slot, pid);
        let mut pipes = Vec::new();
        for (stream, key, pipe) in
            [(Stream::Stdout, "stdout", launched.stdout), (Stream::Stderr, "stderr", launched.stderr)]
        {
            pipes.push((key, pipe.try_clone().map_err(|e| cannot_watch(&e))?));
            output.read(stream, pipe).map_err(|e| cannot_watch(&e))?;
        }
        let mut process = Process {
            facts,
            pidfd: Rc::clone(&started.pidfd),
            calls: launched.child.notifications.map(Rc::new),
            pipes,
            readiness: Readiness::default(),
            health_at: None,
            health_failures: 0,
            watchers: Vec::new(),
        };
        process.readiness.has_listeners = has_listeners;
        self.watch(&mut process).map_err(|e| cannot_watch(&e))?;
        started.listed = true;
        self.outputs.insert(worker, output);
        for (key, pipe) in &process.pipes {
            self.keep(&format!("{key}:{}", worker.0), keeper::Kind::Output, pipe);
        }
        self.keep(&format!("pidfd:{}", worker.0), keeper::Kind::Pidfd, &process.pidfd);
        if let Some(calls) = &process.calls {
            self.keep(&format!("calls:{}", worker.0), keeper::Kind::Notification, calls);
        }
        self.processes.insert(worker, process);
        // From here on readiness has a deadline of its own.
        self.advance_readiness(clock::now());
        Ok(pid)
    }

    /// Has what happens to a process reported. Fails when there are no descriptors left.
    pub(in crate::runtime) fn watch(&self, process: &mut Process) -> io::Result<()> {
        let worker = process.facts.worker;
        if let Some(calls) = &process.calls {
            let (calls, tx) = (async_fd::watch(calls.try_clone()?, Interest::READABLE)?, self.tx.clone());
            let task = tokio::task::spawn_local(async move {
                while let Ok(mut guard) = calls.readable().await {
                    if calls::is_over(calls.get_ref()) || tx.send(Happening::Call(worker)).is_err() {
                        return;
                    }
                    guard.clear_ready();
                    // The next one is announced afresh; one that waits already is answered in the same turn.
                    tokio::task::yield_now().await;
                }
            });
            process.watchers.push(task.abort_handle());
        }
        if !process.facts.is_child {
            let pidfd = async_fd::watch(process.pidfd.try_clone()?, Interest::READABLE)?;
            let tx = self.tx.clone();
            let task = tokio::task::spawn_local(async move {
                if pidfd.readable().await.is_ok() {
                    let _ = tx.send(Happening::Gone(worker));
                }
            });
            process.watchers.push(task.abort_handle());
        }
        Ok(())
    }

    /// A worker's call waits; maybe several.
    pub(super) fn call(&mut self, worker: WorkerId) {
        let Some(process) = self.processes.get(&worker) else { return };
        let Some(calls) = process.calls.clone() else { return };
        let plan = self.plan(process.facts.generation);
        let (slot, pid) = (process.facts.slot, process.facts.pid);
        while crate::runtime::is_readable(&calls) && !calls::is_over(&calls) {
            let caller = Caller {
                worker,
                pid,
                slot,
                calls: calls.as_fd(),
                learn: plan.listen.is_empty(),
                foreign_user: plan.user.is_some(),
            };
            match caller.answer(&mut self.sockets) {
                Ok(true) => self.listens(worker),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%worker, %error, "can't answer a worker's call");
                    return;
                }
            }
        }
    }

    pub(in crate::runtime) fn listens(&mut self, worker: WorkerId) {
        // The keeper has it before the worker can accept on it.
        self.tell_keeper();
        let now = clock::now();
        if let Some(process) = self.processes.get_mut(&worker) {
            process.readiness.listening_since = Some(now);
            // Not when the next search for unknown listeners is due, but now.
            process.readiness.next_look = None;
        }
        self.event(Event::Listening { worker });
        self.advance_readiness(now);
    }

    pub(super) fn lacks_adoption(&mut self, error: &io::Error) {
        if self.missing.iter().any(|m| m.feature == "adoption") {
            return;
        }
        let missing = crate::runtime::start::no_adoption(error);
        if self.newest.require.contains(&missing.feature) {
            let (feature, why) = (missing.feature.clone(), missing.why.clone());
            self.give_up(RunError::Missing { feature, why });
        } else {
            tracing::warn!(%error, "adoption is not possible here: workers must take their sockets from LISTEN_FDS");
        }
        self.missing.push(missing);
    }
}
