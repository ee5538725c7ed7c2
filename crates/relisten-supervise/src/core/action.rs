use super::{ExitStatus, RequestId, WorkerId};
use relisten::{Generation, SlotId};
use std::collections::BTreeSet;

/// What the runtime must do now, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a process. Answered by [`Spawned`](super::Event::Spawned) or
    /// [`SpawnFailed`](super::Event::SpawnFailed).
    Spawn {
        /// Its name from now on.
        worker: WorkerId,
        /// Its place.
        slot: SlotId,
        /// Its generation, which also says which settings it runs with.
        generation: Generation,
        /// A lost worker of the same slot whose listeners, with all that waits in them, it takes over.
        inherits: Option<WorkerId>,
    },
    /// From now on exactly the listeners of these workers get new connections (by the instance's policy).
    /// Sent whenever the set changes. May name lost workers whose listeners are kept for a successor, when
    /// nobody else is there: connections wait in them. May be empty only when no listener exists at all or the
    /// instance stops.
    Steer {
        /// The workers in service.
        serve: BTreeSet<WorkerId>,
    },
    /// Take no new connection into this worker's listeners at all, wherever steering sends them (an attached
    /// socket filter drops each SYN, and the client's retransmission finds another listener or none), and say
    /// [`Quiet`](super::Event::Quiet) as soon as it has nothing left to lose.
    ///
    /// May be sent again for the same worker: then a proof given before is too old, and a fresh one is wanted.
    /// (A worker held for a roll-back can be quiet long before the reload is carried through.)
    AwaitQuiet {
        /// The worker that leaves.
        worker: WorkerId,
    },
    /// It does not leave after all (roll-back): forget [`AwaitQuiet`](Action::AwaitQuiet), let its listeners
    /// hear again.
    Readmit {
        /// Which.
        worker: WorkerId,
    },
    /// Send a signal to the worker's process (for [`Signal::Kill`]: to all processes of the worker).
    Kill {
        /// Which.
        worker: WorkerId,
        /// Which signal.
        signal: Signal,
    },
    /// The worker is gone for good and nobody inherits from it: close its listeners. What should still wait in
    /// them is the runtime's to save (migration, or it keeps them for the slot's next worker).
    Release {
        /// Which.
        worker: WorkerId,
    },
    /// Answer a request.
    Answer {
        /// Which.
        id: RequestId,
        /// What came of it.
        outcome: Outcome,
    },
    /// Something to log and to count.
    Record(Record),
    /// Everything is gone; the supervisor ends.
    Finish,
}

/// A signal, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The stop signal of the settings (SIGTERM by default).
    Stop,
    /// SIGKILL.
    Kill,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done {
        /// The generation in force.
        generation: Generation,
    },
    /// It did not work out and everything is as before.
    RolledBack {
        /// The generation that failed.
        failed: Generation,
        /// The worker that made it fail (its last lines of output are worth showing).
        worker: WorkerId,
        /// In words.
        why: String,
    },
    /// It is done, but not every worker serves: this one failed. It is tried again.
    Unfinished {
        /// Which.
        worker: WorkerId,
        /// In words.
        why: String,
    },
    /// Not possible in this state; what to do instead.
    Refused {
        /// In words.
        why: String,
    },
}

/// What happened, for log lines and counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A worker is ready and in service.
    Ready {
        /// Which.
        worker: WorkerId,
        /// Its place.
        slot: SlotId,
        /// From spawn to ready, milliseconds.
        after_ms: u64,
    },
    /// A worker began to leave.
    Leaving {
        /// Which.
        worker: WorkerId,
        /// Its place.
        slot: SlotId,
        /// In words: "reload", "scale", "stop", "recycled", …
        why: &'static str,
    },
    /// The drain time was over before the worker was quiet: what it still has is cut.
    DrainExpired {
        /// Which.
        worker: WorkerId,
        /// Its place.
        slot: SlotId,
    },
    /// The grace time was over: SIGKILL.
    GraceExpired {
        /// Which.
        worker: WorkerId,
        /// Its place.
        slot: SlotId,
    },
    /// A worker ended.
    Exited {
        /// Which.
        worker: WorkerId,
        /// Its place.
        slot: SlotId,
        /// How.
        status: ExitStatus,
        /// Was it meant to (leaving), or was it lost?
        expected: bool,
    },
    /// A worker could not be started, or was not ready in time.
    Failed {
        /// Which.
        worker: WorkerId,
        /// Its place.
        slot: SlotId,
        /// In words.
        why: String,
        /// When the next try comes, milliseconds from now; `None`: no further try.
        retry_ms: Option<u64>,
    },
    /// A reload began.
    ReloadStarted {
        /// The new generation.
        generation: Generation,
    },
    /// All workers of the new generation serve.
    ReloadDone {
        /// The new generation.
        generation: Generation,
        /// From the request on, milliseconds.
        after_ms: u64,
    },
    /// A reload failed and everything is as before.
    RolledBack {
        /// The generation that failed.
        generation: Generation,
        /// In words.
        why: String,
    },
    /// Another number of slots.
    Scaled {
        /// Before.
        from: u32,
        /// After.
        to: u32,
    },
    /// The instance stops.
    Stopping,
}
