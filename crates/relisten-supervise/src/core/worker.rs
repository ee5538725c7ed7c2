use super::{Backoff, Millis, WorkerId};
use relisten::{Generation, SlotId};
use serde::{Deserialize, Serialize};

/// One process, from its spawn until its listeners are released or inherited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its name.
    pub id: WorkerId,
    /// Its place.
    pub slot: SlotId,
    /// Its generation, which also says which settings it runs with.
    pub generation: Generation,
    /// Its process ID, once it has one.
    pub pid: Option<u32>,
    /// What it is doing.
    pub state: State,
    /// Since when it has been in that state.
    pub since: Millis,
    /// How often its slot had been restarted after a loss when this worker was started.
    pub restarts: u32,
    /// It listens, or uses the listeners passed to it.
    pub listening: bool,
    /// When it was spawned.
    pub spawned: Millis,
    /// It took over a lost worker's listeners, so connections may reach it before it is ready.
    pub(super) inherited: bool,
    /// It has listeners: its own, or a lost worker's.
    pub(super) holds: bool,
    /// When the state is over, whatever the worker does: ready timeout, drain or grace.
    pub(super) until: Option<Millis>,
    /// When it is to be recycled.
    pub(super) recycle_at: Option<Millis>,
    /// It is to be replaced.
    pub(super) wish: Option<Wish>,
    /// Leaving, but a roll-back may still need it: it gets no stop signal.
    pub(super) held: bool,
    /// Leaving because it said so itself: it gets no stop signal before its drain time is over.
    pub(super) by_itself: bool,
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Spawned, not ready yet.
    Starting,
    /// In service.
    Ready,
    /// Out of service, finishing what it has.
    Leaving,
    /// It has got the stop signal.
    Stopping,
    /// Its process is gone; its listeners are kept, with all that waits in them.
    Lost,
}

impl State {
    /// As `status` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Leaving => "draining",
            Self::Stopping => "stopping",
            Self::Lost => "lost",
        }
    }
}

impl Worker {
    /// Changes the state and its end.
    pub(super) fn enter(&mut self, state: State, now: Millis, until: Option<Millis>) {
        self.state = state;
        self.since = now;
        self.until = until;
    }

    /// Does it have listeners that were in service before it is ready itself?
    pub(super) fn keeps(&self) -> bool {
        self.holds && (self.inherited || self.state == State::Lost)
    }

    /// When a worker that is ready now is to be recycled. Spread by a tenth either way, so that workers that
    /// started together are not replaced together; derived from the name, so that a schedule can be repeated.
    pub(super) fn recycling_time(id: WorkerId, now: Millis, after: Millis) -> Millis {
        let tenth = after.0 / 10;
        let spread = tenth.saturating_mul(2).saturating_add(1);
        now + (after - Millis(tenth)) + Millis(scramble(id.0) % spread)
    }
}

/// The finaliser of SplitMix64: neighbouring numbers get unrelated values.
fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A replacement that is wanted. Of no effect unless the worker is in service and no reload is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wish {
    pub(super) why: Why,
    pub(super) failures: u32,
    pub(super) retry_at: Millis,
}

impl Wish {
    pub(super) fn new(why: Why, now: Millis) -> Self {
        Self { why, failures: 0, retry_at: now }
    }

    /// Its successor failed: how long to wait before the next try.
    pub(super) fn failed(&mut self, now: Millis, backoff: &Backoff) -> Millis {
        self.failures = self.failures.saturating_add(1);
        let wait = backoff.wait(self.failures);
        self.retry_at = now + wait;
        wait
    }
}

/// Why a worker leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    Reload,
    RollBack,
    Superseded,
    Scale,
    Stop,
    Recycled,
    Replaced,
    Unhealthy,
    ByItself,
    Failed,
}

impl Why {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::RollBack => "roll-back",
            Self::Superseded => "superseded",
            Self::Scale => "scale",
            Self::Stop => "stop",
            Self::Recycled => "recycled",
            Self::Replaced => "replaced",
            Self::Unhealthy => "unhealthy",
            Self::ByItself => "by itself",
            Self::Failed => "failed",
        }
    }
}
