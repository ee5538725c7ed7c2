//! Running a plan: to its end, or in the background while something else happens.

use super::engine::{Shared, drive};
use super::{FateCounts, Plan, PlanError, Report, TlsError};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why a run could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The plan cannot be carried out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// TLS can't be spoken as the plan asks for it.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The kernel refused a thread, an event loop or a timer.
    #[error("cannot start the load client")]
    Io(#[from] io::Error),
}

/// Runs the plan on the present tokio runtime (its clock and I/O must be enabled) until it is done.
///
/// With neither duration nor number of requests it never ends; use a [`Runner`] then.
pub async fn run(plan: &Plan) -> Result<Report, StartError> {
    plan.check()?;
    let shared = Arc::new(Shared::new(plan.clone())?);
    drive(&shared).await?;
    Ok(report(&shared))
}

/// A run in the background, on a thread and event loop of its own, so that the latencies are not those of the
/// caller's event loop. Dropping it stops the run and throws the report away.
#[derive(Debug)]
pub struct Runner {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// The counts of a run that goes on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Since the start.
    pub elapsed: Duration,
    /// Attempts begun.
    pub started: u64,
    /// Attempts completed.
    pub completed: u64,
    /// Attempts lost so far.
    pub lost: u64,
    /// Attempts that have no fate yet.
    pub in_flight: u64,
    /// How many had which fate.
    pub fates: FateCounts,
    /// How often each value of the label header came.
    pub labels: BTreeMap<String, u64>,
}

impl Runner {
    /// Starts the plan.
    pub fn start(plan: Plan) -> Result<Runner, StartError> {
        plan.check()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared::new(plan)?);
        let driven = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || runtime.block_on(drive(&driven)))?;
        Ok(Runner { shared, thread: Some(thread) })
    }

    /// The counts as they are now.
    pub fn snapshot(&self) -> Snapshot {
        let tally = self.shared.tally();
        Snapshot {
            elapsed: tally.elapsed(),
            started: tally.attempts,
            completed: tally.fates.completed,
            lost: tally.fates.lost(),
            in_flight: tally.attempts - tally.fates.sum(),
            fates: tally.fates,
            labels: tally.labels.clone(),
        }
    }

    /// Waits until the counts are as wanted, at most `bound`. Returns whether they are.
    pub fn wait_until(&self, bound: Duration, mut wanted: impl FnMut(&Snapshot) -> bool) -> bool {
        let end = Instant::now() + bound;
        loop {
            if wanted(&self.snapshot()) {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until `more` further attempts have completed, at most `bound`. Returns whether they have.
    pub fn wait_for_more(&self, more: u64, bound: Duration) -> bool {
        let goal = self.snapshot().completed + more;
        self.wait_until(bound, |seen| seen.completed >= goal)
    }

    /// Whether the run has come to its end by itself.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Starts no new requests, but does not wait.
    pub fn request_stop(&self) {
        self.shared.stop();
    }

    /// Starts no new requests, waits until those in flight have their fate, and reports.
    ///
    /// Panics when the run itself failed, as the counts are worth nothing then.
    pub fn stop(self) -> Report {
        self.request_stop();
        self.wait()
    }

    /// Waits until the plan is done and reports. Panics as [`stop`](Runner::stop) does.
    pub fn wait(mut self) -> Report {
        if let Some(thread) = self.thread.take() {
            match thread.join() {
                Ok(result) => result.expect("the load client's timer works once it has been made"),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        report(&self.shared)
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the run has been printed by its thread; there is no report to spoil.
            let _ = thread.join();
        }
    }
}

fn report(shared: &Shared) -> Report {
    let target = shared.plan.target.to_string();
    let mut tally = shared.tally();
    std::mem::replace(&mut *tally, super::tally::Tally::new()).report(target)
}
