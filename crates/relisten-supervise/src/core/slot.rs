use super::{Backoff, Millis, WorkerId};
use serde::{Deserialize, Serialize};

/// A place for one worker.
///
/// Workers that leave are not named here any more: they only know which slot they came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// How often a worker was started here because another was lost.
    pub restarts: u32,
    /// Who has the place: in service, starting, failing, or lost with its listeners kept.
    pub incumbent: Option<WorkerId>,
    /// Who will take it over when ready, in a reload or a replacement.
    pub candidate: Option<WorkerId>,
    /// In a reload, who had the place before: out of service, but held for a roll-back.
    pub previous: Option<WorkerId>,
    /// Failures in a row before readiness.
    pub(super) failures: u32,
    /// When the incumbent may be started again.
    pub(super) retry_at: Option<Millis>,
}

impl Slot {
    pub(super) fn is_empty(&self) -> bool {
        self.incumbent.is_none() && self.candidate.is_none() && self.previous.is_none()
    }

    /// The incumbent failed before it was ready: how long to wait before the next try.
    pub(super) fn failed(&mut self, now: Millis, backoff: &Backoff) -> Millis {
        self.failures = self.failures.saturating_add(1);
        let wait = backoff.wait(self.failures);
        self.retry_at = Some(now + wait);
        wait
    }

    /// A new incumbent serves.
    pub(super) fn served_by(&mut self, worker: WorkerId) {
        self.incumbent = Some(worker);
        self.candidate = self.candidate.filter(|&candidate| candidate != worker);
        self.failures = 0;
        self.retry_at = None;
    }
}

impl Backoff {
    /// The wait after so many failures in a row.
    pub(super) fn wait(&self, failures: u32) -> Millis {
        let doublings = failures.saturating_sub(1).min(63);
        Millis(self.first.0.saturating_mul(1 << doublings).min(self.max.0))
    }
}
