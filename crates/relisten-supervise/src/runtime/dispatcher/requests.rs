//! What the instance is asked for, and what is said of it.

use super::{Dispatcher, Reply, TRIM_AFTER, TRIM_AGAIN, libc_signal};
use crate::core::{Event, Outcome, Record, Request, RequestId, Settings};
use crate::runtime::clock;
use crate::runtime::control::{Answer, ControlRequest, Problem, ProblemKind, RequestKind};
use crate::runtime::happening::Happening;
use crate::runtime::output::WorkerOutput;
use crate::runtime::plan::Plan;
use crate::runtime::start::RunError;
use crate::sockets::Resolved;
use crate::spec::Spec;
use relisten::SlotId;
use std::rc::Rc;

/// A reload that waits for the addresses of its names.
#[derive(Debug)]
pub(in crate::runtime) struct Wanted {
    number: u64,
    spec: Spec,
    reply: Option<Reply>,
    wait: bool,
}

fn cannot_be_used(why: String, reply: Option<Reply>) {
    tracing::error!(%why, "reload refused: the configuration can't be used; everything is as before");
    if let Some(reply) = reply {
        let cure = "mend it and reload again; until then everything goes on as before";
        let _ = reply.send(Err(Problem::new(ProblemKind::RolledBack, why, cure)));
    }
}

impl Dispatcher {
    pub(super) fn signalled(&mut self, number: i32) {
        let request = match number {
            libc_signal::HUP => {
                self.reload(None, false);
                return;
            }
            libc_signal::USR1 | libc_signal::USR2 => {
                tracing::warn!(signal = number, "this signal has no meaning here; HUP reloads");
                return;
            }
            libc_signal::TTIN => Request::ScaleBy { difference: 1 },
            libc_signal::TTOU => Request::ScaleBy { difference: -1 },
            _ => Request::Stop,
        };
        let request = self.scaled(request);
        self.event(Event::Request { id: None, request });
    }

    pub(super) fn control(&mut self, request: ControlRequest) {
        let ControlRequest { kind, reply } = request;
        self.trim_at.get_or_insert_with(|| clock::now() + TRIM_AGAIN);
        let request = match kind {
            RequestKind::Status => {
                let _ = reply.send(Ok(Answer::Status(Box::new(self.status()))));
                return;
            }
            RequestKind::Reload { wait } => {
                self.reload(Some(reply), wait);
                return;
            }
            RequestKind::Steer { policy } => {
                let _ = reply.send(Ok(self.steer_by(policy)));
                return;
            }
            RequestKind::Weight { weights } => {
                let _ = reply.send(self.weigh(&weights));
                return;
            }
            RequestKind::Scale { workers, wait } => Request::Scale { workers, wait },
            RequestKind::Stop { now: false } => Request::Stop,
            RequestKind::Stop { now: true } => Request::StopNow,
            RequestKind::Replace { pid } => match self.processes.values().find(|p| p.facts.pid == pid) {
                Some(process) => Request::Replace { worker: process.facts.worker },
                None => {
                    let error = format!("no worker has the process ID {pid}");
                    let cure = "'relisten status' lists the workers";
                    let _ = reply.send(Err(Problem::new(ProblemKind::NotFound, error, cure)));
                    return;
                }
            },
        };
        let id = self.expect_answer(reply);
        let request = self.scaled(request);
        self.event(Event::Request { id: Some(id), request });
    }

    /// Workers that share a Unix listener can't be steered away from one by one, but all of them at once: the path
    /// moves to a new generation of fewer.
    fn scaled(&self, request: Request) -> Request {
        let now = self.core.settings().workers;
        let workers = match request {
            Request::Scale { workers, .. } => workers,
            Request::ScaleBy { difference } => now.saturating_add_signed(difference),
            _ => return request,
        };
        if workers == 0 || workers >= now || !self.sockets.shares_a_path() {
            return request;
        }
        tracing::info!(
            from = now,
            to = workers,
            "the workers share a Unix socket: a new generation of fewer takes over"
        );
        let settings = Settings { workers, ..self.core.settings().clone() };
        Request::Reload { wait: false, settings: Some(settings) }
    }

    /// The instance ends, and not well.
    pub(super) fn give_up(&mut self, why: RunError) {
        self.gave_up.get_or_insert(why);
        self.events.push_back(Event::Request { id: None, request: Request::StopNow });
    }

    pub(super) fn expect_answer(&mut self, reply: Reply) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.answers.insert(id, reply);
        id
    }

    pub(super) fn reload(&mut self, reply: Option<Reply>, wait: bool) {
        match (self.source)() {
            Ok(spec) => self.reload_to(spec, reply, wait),
            Err(error) => cannot_be_used(crate::runtime::chain(&error), reply),
        }
    }

    /// A new generation with these options, as soon as their names are resolved. That can take long, so a thread does
    /// it.
    pub(in crate::runtime) fn reload_to(&mut self, spec: Spec, reply: Option<Reply>, wait: bool) {
        self.last_wanted += 1;
        let wanted = Box::new(Wanted { number: self.last_wanted, spec, reply, wait });
        let (tx, listen) = (self.tx.clone(), wanted.spec.listen.clone());
        let resolve = move || {
            let resolved = crate::sockets::resolve(&listen).map_err(|e| crate::runtime::chain(&e));
            let _ = tx.send(Happening::Resolved(wanted, resolved));
        };
        let thread = std::thread::Builder::new().name("resolve".into()).stack_size(256 * 1024).spawn(resolve);
        if let Err(error) = thread {
            tracing::error!(%error, "no reload: no thread to resolve names");
        }
    }

    pub(super) fn resolved(&mut self, wanted: Wanted, addresses: Result<Resolved, String>) {
        let Wanted { number, spec, reply, wait } = wanted;
        if number < self.last_resolved {
            // Its names took longer than those of one that was asked for later.
            return cannot_be_used("superseded by a newer reload".to_owned(), reply);
        }
        let reserved = addresses
            .and_then(|addresses| self.sockets.reserve(&addresses).map_err(|e| crate::runtime::chain(&e)));
        let endpoints = match reserved {
            Ok(endpoints) => endpoints,
            Err(why) => {
                // Those of its addresses that could be had are given back.
                self.forget_plans();
                return cannot_be_used(why, reply);
            }
        };
        self.last_resolved = number;
        let mut settings = spec.settings(self.core.settings().can_steer);
        // `scale` outlives a reload, unless the configuration itself says another number.
        if spec.workers == self.plan(self.core.generation()).workers {
            settings.workers = self.core.settings().workers;
        }
        self.newest = Rc::new(Plan { spec, endpoints });
        let id = reply.map(|reply| self.expect_answer(reply));
        self.event(Event::Request { id, request: Request::Reload { wait, settings: Some(settings) } });
    }

    pub(super) fn answer(&mut self, id: RequestId, outcome: Outcome) {
        let Some(reply) = self.answers.remove(&id) else { return };
        let answer = match outcome {
            Outcome::Done { generation } => Ok(Answer::Done { generation: generation.0 }),
            Outcome::Refused { why } => Err(Problem::new(
                ProblemKind::State,
                why,
                "'relisten status' tells what the instance is doing",
            )),
            Outcome::Unfinished { worker, why } => {
                let workers = self.core.settings().workers;
                let error = format!("{workers} workers from now on, but one does not serve: {why}");
                let cure = "it is started again and again; 'relisten status' shows it";
                let lines = self.outputs.get(&worker).map(WorkerOutput::tail).unwrap_or_default();
                Err(Problem { lines, ..Problem::new(ProblemKind::Unfinished, error, cure) })
            }
            Outcome::RolledBack { failed, worker, why } => {
                let error = format!("generation {failed} was rolled back: {why}");
                let cure =
                    "everything is as before; mend the command or its configuration, then reload again";
                let lines = self.outputs.get(&worker).map(WorkerOutput::tail).unwrap_or_default();
                Err(Problem { lines, ..Problem::new(ProblemKind::RolledBack, error, cure) })
            }
        };
        let _ = reply.send(answer);
    }

    pub(super) fn record(&mut self, record: &Record) {
        match record {
            Record::ReloadStarted { generation } => {
                self.plans.insert(*generation, Rc::clone(&self.newest));
                self.sockets.set_options(self.newest.steer, self.newest.backlog);
            }
            Record::ReloadDone { .. } => self.totals.reloads += 1,
            Record::RolledBack { .. } => {
                self.totals.rollbacks += 1;
                let plan = self.plan(self.core.generation());
                // What failed is not tried again by the next change of anything else.
                self.newest = Rc::clone(&plan);
                self.forget_plans();
                self.sockets.set_options(plan.steer, plan.backlog);
            }
            Record::Ready { .. } => {
                self.ever_ready = true;
                self.look_for_foreign();
                self.trim_at = Some(clock::now() + TRIM_AFTER);
            }
            Record::Failed { worker, slot, why, .. } if !self.ever_ready => {
                self.failures += 1;
                self.failed.insert(*slot);
                let lines = self.outputs.get(worker).map(WorkerOutput::tail).unwrap_or_default();
                // No slot has a worker that may still get ready, and there were second tries.
                let workers = self.core.settings().workers;
                let all = (0..workers).all(|number| self.failed.contains(&SlotId(number)));
                if all && self.failures >= 2 * workers.min(8) && self.core.generation().0 == 1 {
                    let shown: Vec<_> = lines.iter().map(|l| format!("\n  | {l}")).collect();
                    let why = format!("no worker became ready: {why}{}", shown.concat());
                    self.give_up(RunError::NeverReady(why));
                }
            }
            Record::DrainExpired { worker, .. } => {
                let left = self.leaving.why(*worker).unwrap_or("not yet looked at").to_owned();
                let pid = self.processes.get(worker).map_or(0, |p| p.facts.pid);
                let census = self.observer.census(&self.diag_endpoints(), &[pid]).ok();
                let cut = census.and_then(|c| c.get(&pid).map(|c| c.busy.total() as u64));
                tracing::warn!(%worker, left, connections = cut, "--drain is over: what the worker still has is cut");
                self.totals.cut += cut.unwrap_or(0);
            }
            _ => {}
        }
        crate::runtime::log::record(record);
    }
}
