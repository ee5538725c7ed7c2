//! One place that talks to the world: everything that happens comes in here, one after the other, and the core's
//! actions are performed before the next thing is looked at.

pub(in crate::runtime) mod backend;
mod ends;
mod hanging;
mod keeping;
mod leaving;
mod ready;
mod requests;
mod strays;
mod workers;

pub(in crate::runtime) use hanging::{Hanging, Lasting};
pub(in crate::runtime) use requests::Wanted;

use crate::core::{Action, Event, ExitStatus, Instance, Millis, Phase, RequestId, WorkerId};
use crate::keeper;
use crate::runtime::clock;
use crate::runtime::control::{Answer, Problem};
use crate::runtime::happening::Happening;
use crate::runtime::leave::Leaving;
use crate::runtime::orphans::Orphans;
use crate::runtime::output::{Output, WorkerOutput};
use crate::runtime::plan::Plan;
use crate::runtime::process::Process;
use crate::runtime::start::RunError;
use crate::sockets::Sockets;
use crate::spec::SpecSource;
use crate::status::{Missing, Totals};
use ends::Remains;
use relisten::address::{Endpoint, Protocol};
use relisten::{Generation, SlotId, SocketInode};
use relisten_diag::quiet::Observer;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// Nothing has started for so long: what starting needed can go.
const TRIM_AFTER: Millis = Millis(1_000);

/// What seldom happens needs code that then lies around: it can go as well, after so long.
const TRIM_AGAIN: Millis = Millis(5_000);

/// From one look at listeners that nobody owns to the next.
const COLLECT_EVERY: Millis = Millis(100);

type Reply = oneshot::Sender<Result<Answer, Problem>>;

/// The instance with everything it has in the world.
pub(in crate::runtime) struct Dispatcher {
    pub(in crate::runtime) core: Instance,
    pub(in crate::runtime) plans: BTreeMap<Generation, Rc<Plan>>,
    /// What the next generation runs with.
    pub(in crate::runtime) newest: Rc<Plan>,
    pub(in crate::runtime) source: SpecSource,
    pub(in crate::runtime) processes: BTreeMap<WorkerId, Process>,
    /// Output of the workers, kept a while after their end for the message of a failed reload.
    pub(in crate::runtime) outputs: BTreeMap<WorkerId, WorkerOutput>,
    pub(in crate::runtime) sockets: Sockets,
    pub(in crate::runtime) observer: Observer,
    pub(in crate::runtime) leaving: Leaving,
    pub(in crate::runtime) output: Output,
    /// `NOTIFY_SOCKET` of the workers.
    pub(in crate::runtime) notify: Option<String>,
    /// A duplicate for the keeper.
    notify_socket: Option<OwnedFd>,
    pub(in crate::runtime) keeper: Option<keeper::Client>,
    pub(in crate::runtime) missing: Vec<Missing>,
    pub(in crate::runtime) totals: Totals,
    pub(in crate::runtime) started: Millis,
    pub(in crate::runtime) answers: BTreeMap<RequestId, Reply>,
    pub(in crate::runtime) last_request: u64,
    pub(in crate::runtime) remains: Vec<Remains>,
    pub(in crate::runtime) finished: bool,
    /// No worker ever became ready, and why: the instance gives up.
    pub(in crate::runtime) gave_up: Option<RunError>,
    pub(in crate::runtime) ever_ready: bool,
    pub(in crate::runtime) failures: u32,
    /// Slots whose worker failed before any was ready.
    pub(in crate::runtime) failed: BTreeSet<SlotId>,
    /// When listeners without an owner were last looked at.
    pub(in crate::runtime) collected: Millis,
    /// Sockets of others that were spoken of.
    pub(in crate::runtime) foreign: BTreeSet<SocketInode>,
    /// When to give back memory that only starting up needed.
    pub(in crate::runtime) trim_at: Option<Millis>,
    /// Events that wait until the actions of the last one are performed.
    pub(in crate::runtime) events: VecDeque<Event>,
    pub(in crate::runtime) performing: bool,
    pub(in crate::runtime) orphans: Orphans,
    pub(in crate::runtime) hanging: Hanging,
    /// Workers that want to publish their load, and where the answer goes.
    pub(in crate::runtime) publishers: BTreeMap<WorkerId, OwnedFd>,
    /// When to look at the groups: who is in them, and whether the steering programs are in force.
    pub(in crate::runtime) guard_at: Option<Millis>,
    /// Nothing has happened since the state was written down.
    pub(in crate::runtime) idle: bool,
    /// Reloads are numbered while their names are being resolved.
    last_wanted: u64,
    last_resolved: u64,
    /// What the keeper was last given as state.
    pub(in crate::runtime) saved: Vec<u8>,
    pub(in crate::runtime) tx: UnboundedSender<Happening>,
}

/// What the dispatcher is given and does not change.
pub(in crate::runtime) struct Surroundings {
    pub(in crate::runtime) source: SpecSource,
    pub(in crate::runtime) output: Output,
    /// `NOTIFY_SOCKET` of the workers.
    pub(in crate::runtime) notify: Option<String>,
    /// A duplicate of the socket, for the keeper.
    pub(in crate::runtime) notify_socket: Option<OwnedFd>,
    pub(in crate::runtime) keeper: Option<keeper::Client>,
    pub(in crate::runtime) missing: Vec<Missing>,
    pub(in crate::runtime) observer: Observer,
    pub(in crate::runtime) tx: UnboundedSender<Happening>,
}

impl Dispatcher {
    /// Without any process yet.
    pub(in crate::runtime) fn new(
        around: Surroundings,
        core: Instance,
        plans: BTreeMap<Generation, Rc<Plan>>,
        newest: Rc<Plan>,
        sockets: Sockets,
    ) -> Self {
        Self {
            core,
            plans,
            newest,
            source: around.source,
            processes: BTreeMap::new(),
            outputs: BTreeMap::new(),
            sockets,
            observer: around.observer,
            leaving: Leaving::default(),
            output: around.output,
            notify: around.notify,
            notify_socket: around.notify_socket,
            keeper: around.keeper,
            missing: around.missing,
            totals: Totals::default(),
            started: clock::now(),
            answers: BTreeMap::new(),
            last_request: 0,
            remains: Vec::new(),
            finished: false,
            gave_up: None,
            ever_ready: false,
            failures: 0,
            failed: BTreeSet::new(),
            collected: Millis(0),
            foreign: BTreeSet::new(),
            trim_at: None,
            events: VecDeque::new(),
            performing: false,
            orphans: Orphans::default(),
            hanging: Hanging::default(),
            publishers: BTreeMap::new(),
            guard_at: None,
            idle: false,
            last_wanted: 0,
            last_resolved: 0,
            saved: Vec::new(),
            tx: around.tx,
        }
    }

    /// One thing happened.
    pub(in crate::runtime) fn on(&mut self, happening: Happening) {
        match happening {
            Happening::Call(worker) => self.call(worker),
            Happening::Gone(worker) => self.gone(worker, ExitStatus::Unknown),
            Happening::Children => self.reap(),
            Happening::Shutdown => _ = self.look_at_groups(),
            Happening::Arrived => self.arrived(),
            Happening::Barrier => self.barrier_over(),
            Happening::Probed { worker, outcome } => self.probed(worker, outcome),
            Happening::Control(request) => self.control(request),
            Happening::Resolved(wanted, addresses) => self.resolved(*wanted, addresses),
            Happening::Loaded(loaded) => self.loaded(loaded),
            Happening::Signal(number) => self.signalled(number),
        }
    }

    /// Hands an event to the core and does what it says. What comes of the doing is handed in only when all of it is
    /// done: the core wants its actions performed in order, and before the next event.
    pub(in crate::runtime) fn event(&mut self, event: Event) {
        self.trim_at.get_or_insert_with(|| clock::now() + TRIM_AGAIN);
        self.events.push_back(event);
        if !self.performing {
            self.perform(Vec::new());
        }
    }

    /// Performs these actions, and then what the core says of all that came of it.
    pub(in crate::runtime) fn perform(&mut self, actions: Vec<Action>) {
        self.performing = true;
        self.carry_out(actions);
        while let Some(event) = self.events.pop_front() {
            let actions = self.core.handle(clock::now(), event);
            self.carry_out(actions);
        }
        self.performing = false;
    }

    pub(super) fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Spawn { worker, slot, generation, inherits } => {
                    self.spawn(worker, slot, generation, inherits);
                }
                Action::Steer { serve } => {
                    if serve.is_empty() && self.core.phase() == Phase::Stopping {
                        self.sockets.close_ears();
                    }
                    self.sockets.steer(serve);
                }
                Action::AwaitQuiet { worker } => {
                    self.leaving.begin(worker, clock::now());
                    self.start_barrier();
                }
                Action::Readmit { worker } => {
                    self.leaving.end(worker);
                    self.sockets.readmit(worker);
                }
                Action::Kill { worker, signal } => self.kill(worker, signal),
                Action::Release { worker } => self.sockets.release(worker),
                Action::Answer { id, outcome } => self.answer(id, outcome),
                Action::Record(record) => self.record(&record),
                Action::Finish => self.finished = true,
            }
        }
    }

    /// What has to be done because time has passed.
    pub(in crate::runtime) fn on_time(&mut self) {
        let now = clock::now();
        // Many times a second, and nearly always for nothing.
        let mut found = false;
        if self.hanging.deadline().is_some_and(|at| at <= now) {
            found |= self.look_for_hung(now);
        }
        if self.guard_at.is_some_and(|at| at <= now) {
            found |= self.guard_groups(now);
        }
        if !found && self.other_deadline().is_none_or(|at| at > now) {
            self.idle = true;
            return;
        }
        if self.core.deadline().is_some_and(|at| at <= now) {
            self.event(Event::Tick);
        }
        self.advance_readiness(now);
        self.check_health(now);
        if self.leaving.deadline().is_some_and(|at| at <= now) {
            self.look(now);
        }
        self.kill_due_remains(now);
        self.collect();
        if self.trim_at.is_some_and(|at| at <= now) {
            self.trim_at = None;
            relisten_sys::daemon::forget_startup_code();
        }
    }

    /// When `on_time` is wanted; `None`: not before something happens.
    pub(in crate::runtime) fn deadline(&self) -> Option<Millis> {
        self.other_deadline().into_iter().chain(self.hanging.deadline()).chain(self.guard_at).min()
    }

    /// When it is wanted for more than a look at the queues.
    fn other_deadline(&self) -> Option<Millis> {
        let readiness = self.processes.values().filter_map(|p| p.readiness.deadline());
        let remains = self.remains.iter().map(|remains| remains.at);
        let health = self.processes.values().filter(|p| !p.readiness.probing).filter_map(|p| p.health_at);
        let to_collect = self.sockets.orphans().next().is_some()
            || self.sockets.any_departing()
            || self.sockets.any_foreign();
        let orphans = to_collect.then(|| self.collected + COLLECT_EVERY);
        self.core
            .deadline()
            .into_iter()
            .chain(self.leaving.deadline())
            .chain(readiness)
            .chain(remains)
            .chain(health)
            .chain(self.trim_at)
            .chain(orphans)
            .min()
    }

    pub(super) fn plan(&self, generation: Generation) -> Rc<Plan> {
        self.plans.get(&generation).cloned().unwrap_or_else(|| Rc::clone(&self.newest))
    }

    pub(in crate::runtime) fn diag_endpoints(&self) -> Vec<relisten_diag::Endpoint> {
        let one = |endpoint: &Endpoint| {
            let protocol = match endpoint.protocol() {
                Protocol::Tcp => relisten_diag::sock_diag::Protocol::Tcp,
                Protocol::Udp => relisten_diag::sock_diag::Protocol::Udp,
                Protocol::Unix => return None,
            };
            Some(relisten_diag::Endpoint { protocol, address: endpoint.addr()? })
        };
        let endpoints: BTreeSet<_> =
            self.sockets.held().filter_map(|(_, h)| one(&h.facts.endpoint)).collect();
        endpoints.into_iter().collect()
    }
}

/// Numbers of the signals that mean something to us; the same on every Linux.
pub(in crate::runtime) mod libc_signal {
    pub(in crate::runtime) const HUP: i32 = 1;
    pub(in crate::runtime) const INT: i32 = 2;
    pub(in crate::runtime) const USR1: i32 = 10;
    pub(in crate::runtime) const USR2: i32 = 12;
    pub(in crate::runtime) const TERM: i32 = 15;
    pub(in crate::runtime) const TTIN: i32 = 21;
    pub(in crate::runtime) const TTOU: i32 = 22;
}
