use super::Millis;
use serde::{Deserialize, Serialize};

/// What the core must know of the instance's options. A reload may bring new ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How many slots.
    pub workers: u32,
    /// A worker that is not ready this long after its spawn has failed.
    pub ready_timeout: Millis,
    /// How long a leaving worker may finish what it has before the stop signal.
    pub drain: Millis,
    /// From the stop signal to SIGKILL.
    pub grace: Millis,
    /// Each worker leaves and is replaced after this time, give or take a tenth.
    pub recycle_after: Option<Millis>,
    /// How a failing slot is restarted.
    pub backoff: Backoff,
    /// False where nothing can steer: the stop signal is then sent at once to whoever leaves, because
    /// successor and predecessor share the listener and waiting for quiet would never end.
    pub can_steer: bool,
}

/// Exponential back-off of restarts: the first restart after a worker that had been ready is immediate; each
/// further failure doubles the wait, from `first` up to `max`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// The first wait.
    pub first: Millis,
    /// The longest.
    pub max: Millis,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: 1,
            ready_timeout: Millis(60_000),
            drain: Millis(30_000),
            grace: Millis(10_000),
            recycle_after: None,
            backoff: Backoff { first: Millis(100), max: Millis(10_000) },
            can_steer: true,
        }
    }
}
