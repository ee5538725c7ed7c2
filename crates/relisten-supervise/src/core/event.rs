use super::{RequestId, Settings, WorkerId};
use serde::{Deserialize, Serialize};

/// What happens to an instance. Events about a worker that the core no longer knows are answered by nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody asks for something, over the control socket or by a signal.
    Request {
        /// To be named in the answer; `None` where nobody waits for one (signals).
        id: Option<RequestId>,
        /// What is asked for.
        request: Request,
    },
    /// The worker's process exists and has executed its command.
    Spawned {
        /// Which.
        worker: WorkerId,
        /// Its process ID.
        pid: u32,
    },
    /// The worker's process could not be made, or its command not executed.
    SpawnFailed {
        /// Which.
        worker: WorkerId,
        /// In words, with the cure where one is known.
        why: String,
    },
    /// The first `listen` of the worker was seen, or it uses the listeners passed to it.
    Listening {
        /// Which.
        worker: WorkerId,
    },
    /// The worker accepts: proven by sd_notify, a probe or a settling time, whatever the instance was told.
    Ready {
        /// Which.
        worker: WorkerId,
    },
    /// The worker announced (sd_notify `STOPPING=1`) that it leaves by itself.
    Stopping {
        /// Which.
        worker: WorkerId,
    },
    /// The worker has nothing left to lose: no half-open request, an empty queue, every connection closed or
    /// idle. Said only after [`AwaitQuiet`](super::Action::AwaitQuiet), and only if it was proven under the
    /// steering that is in force at this very moment.
    Quiet {
        /// Which.
        worker: WorkerId,
    },
    /// The worker failed its health probe, or missed its watchdog, for as long as is allowed.
    Unhealthy {
        /// Which.
        worker: WorkerId,
        /// In words.
        why: String,
    },
    /// The worker's process is gone.
    Exited {
        /// Which.
        worker: WorkerId,
        /// How it ended.
        status: ExitStatus,
    },
    /// Time has come for what [`Instance::deadline`](super::Instance::deadline) promised.
    Tick,
}

/// What can be asked of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Start a new generation and let the old one leave as it takes over.
    ///
    /// During an unfinished reload, one with an identity takes the unfinished one back and begins at once (the
    /// first is refused as superseded); one without (a signal) begins when the unfinished one is over, once for
    /// all that came. So [`Record::ReloadStarted`](super::Record::ReloadStarted) may come with a later event:
    /// its generation runs with what was given last until then.
    Reload {
        /// Answer only when the old generation is gone; else when the new one serves.
        wait: bool,
        /// What the new generation runs with, when the configuration changed. `None`: what the last reload
        /// that has not failed was given, else what is in force.
        settings: Option<Settings>,
    },
    /// This many slots from now on.
    Scale {
        /// At least 1.
        workers: u32,
        /// Answer only when each slot's worker serves, or one failed; else at once.
        wait: bool,
    },
    /// One slot more or fewer (TTIN, TTOU).
    ScaleBy {
        /// +1 or -1; less than one slot is never left.
        difference: i32,
    },
    /// Let one worker leave and put another in its place.
    Replace {
        /// Which.
        worker: WorkerId,
    },
    /// Stop the instance; every worker leaves in the orderly way. A second one: at once.
    Stop,
    /// Stop the instance now: stop signal, then SIGKILL after the grace time, waiting for nothing else.
    StopNow,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It is gone, but was not our child any more (the supervisor was replaced in between).
    Unknown,
}
