use super::reload::{Again, Reload, Waiting};
use super::slot::Slot;
use super::step::Step;
use super::worker::Worker;
use super::{Action, Event, Millis, RequestId, Settings, State, WorkerId};
use relisten::{Generation, SlotId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// All that the supervisor knows and has decided. It can be written down and read again by the next supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The generation in force: the last one that was carried through.
    pub(super) current: Generation,
    /// The last numbers given; none is given twice.
    pub(super) last_generation: u32,
    pub(super) last_worker: u64,
    /// Of each generation that still has a worker, of the one in force and of the one that starts.
    pub(super) settings: BTreeMap<Generation, Settings>,
    pub(super) slots: BTreeMap<SlotId, Slot>,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    pub(super) reload: Option<Reload>,
    pub(super) again: Option<Again>,
    pub(super) waiting: Vec<Waiting>,
    /// Who wants to hear when every slot is in service.
    #[serde(default)]
    pub(super) scaling: Vec<RequestId>,
    pub(super) stop: Option<Stop>,
    /// What the last [`Action::Steer`] said.
    pub(super) steered: BTreeSet<WorkerId>,
    /// Every slot has been in service once.
    pub(super) started: bool,
    pub(super) finished: bool,
}

/// The instance stops.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stop {
    pub(super) asked_by: Vec<RequestId>,
}

/// More slots than this are a mistake.
pub const MAX_WORKERS: u32 = 4096;

impl Settings {
    /// A number of slots that can be had.
    pub(super) fn sane(mut self) -> Self {
        self.workers = self.workers.clamp(1, MAX_WORKERS);
        self
    }
}

impl Instance {
    /// A new instance, and how it starts: one worker of generation 1 in each slot.
    pub fn new(settings: Settings, now: Millis) -> (Self, Vec<Action>) {
        let first = Generation(1);
        let mut instance = Self {
            current: first,
            last_generation: first.0,
            last_worker: 0,
            settings: BTreeMap::from([(first, settings.sane())]),
            slots: BTreeMap::new(),
            workers: BTreeMap::new(),
            reload: None,
            again: None,
            waiting: Vec::new(),
            scaling: Vec::new(),
            stop: None,
            steered: BTreeSet::new(),
            started: false,
            finished: false,
        };
        let mut step = Step::new(now);
        instance.settle(&mut step);
        (instance, step.finish())
    }

    /// What to do about an event. The actions are to be performed in this order, and before the next event is
    /// handed in.
    pub fn handle(&mut self, now: Millis, event: Event) -> Vec<Action> {
        let mut step = Step::new(now);
        match event {
            Event::Request { id, request } => self.requested(id, request, &mut step),
            Event::Spawned { worker, pid } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.pid = Some(pid);
                }
            }
            Event::Listening { worker } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.listening = true;
                    worker.holds = true;
                }
            }
            Event::SpawnFailed { worker, why } => self.spawn_failed(worker, &why, &mut step),
            Event::Ready { worker } => self.ready(worker, &mut step),
            Event::Stopping { worker } => self.stops_by_itself(worker, &mut step),
            Event::Quiet { worker } => self.quiet(worker, &mut step),
            Event::Unhealthy { worker, why } => self.unhealthy(worker, &why, &mut step),
            Event::Exited { worker, status } => self.exited(worker, status, &mut step),
            Event::Tick => {}
        }
        self.settle(&mut step);
        step.finish()
    }

    /// Draws all conclusions from what is known now. Each part looks only at what the parts before it leave.
    fn settle(&mut self, step: &mut Step) {
        if self.finished {
            return;
        }
        self.expire(step);
        if self.stop.is_none() {
            self.commit_if_complete(step);
            self.retire_surplus(step);
            self.begin_again(step);
            self.fill_slots(step);
            self.start_candidates(step);
            self.note_started();
        }
        self.steer(step);
        self.release_orphans(step);
        self.answer_waiting(step);
        self.answer_scaling(step);
        self.forget_settings();
        self.finish_if_gone(step);
    }

    /// When the next [`Event::Tick`] is wanted; `None`: not before something else happens.
    pub fn deadline(&self) -> Option<Millis> {
        if self.finished {
            return None;
        }
        let limits = self.workers.values().filter_map(|w| w.until);
        let slots = self.slots.iter().filter_map(|(&id, slot)| self.slot_deadline(id, slot));
        limits.chain(slots).chain(self.recycling_due()).min()
    }

    fn slot_deadline(&self, id: SlotId, slot: &Slot) -> Option<Millis> {
        if self.stop.is_some() || id.0 >= self.wanted() {
            return None;
        }
        let vacant = self.incumbent_state(slot).is_none_or(|s| s == State::Lost);
        if vacant {
            return slot.retry_at;
        }
        let worker = slot.incumbent.and_then(|w| self.workers.get(&w)).filter(|w| w.state == State::Ready)?;
        let wish = worker.wish.as_ref().filter(|_| self.reload.is_none() && slot.candidate.is_none());
        wish.map(|wish| wish.retry_at)
    }

    /// How many slots the generation in force has.
    pub(super) fn wanted(&self) -> u32 {
        self.settings.get(&self.current).map_or(1, |s| s.workers)
    }

    /// How many slots the generation that starts has; without a reload, as the one in force.
    pub(super) fn wanted_next(&self) -> u32 {
        let next = self.reload.as_ref().and_then(|r| self.settings.get(&r.generation));
        next.map_or_else(|| self.wanted(), |s| s.workers)
    }

    /// Is this generation the one that an unfinished reload starts?
    pub(super) fn is_next(&self, generation: Generation) -> bool {
        self.reload.as_ref().is_some_and(|r| r.generation == generation)
    }

    pub(super) fn settings_for(&self, worker: &Worker) -> Settings {
        self.settings.get(&worker.generation).cloned().unwrap_or_default()
    }

    pub(super) fn state_of(&self, worker: WorkerId) -> Option<State> {
        self.workers.get(&worker).map(|w| w.state)
    }

    pub(super) fn incumbent_state(&self, slot: &Slot) -> Option<State> {
        slot.incumbent.and_then(|w| self.state_of(w))
    }
}
