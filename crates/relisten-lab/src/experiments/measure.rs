//! What experiments with workers have in common.

use crate::crew::{Crew, Tally};
use crate::experiment::Failure;
use crate::load::{Pace, Plan, Report, Runner, Target};
use crate::models::Ground;
use relisten::address::Address;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Nothing that is waited for takes longer.
pub(super) const BOUND: Duration = Duration::from_secs(20);

/// A port of 127.0.0.1 that the kernel picks.
pub(super) fn ground(workers: usize) -> Result<Ground, Failure> {
    let mut endpoints = "127.0.0.1:0".parse::<Address>()?.resolve()?;
    match endpoints.pop() {
        Some(endpoint) => Ok(Ground { endpoint, workers }),
        None => Err(Failure::Unexpected("127.0.0.1 leads nowhere".to_owned())),
    }
}

/// A plan for load on these workers.
pub(super) fn plan(address: SocketAddr, pace: Pace) -> Result<Plan, Failure> {
    Ok(Plan { pace, timeout: BOUND, ..Plan::get(&format!("http://{address}/"))? })
}

/// So many connections, one after the other, with a pause between: who served the last one waits again.
pub(super) fn sequential(address: SocketAddr, count: u64, pause: Duration) -> Result<Report, Failure> {
    let plan = Plan { requests: Some(count), pause, ..plan(address, Pace::Clients(1))? };
    Ok(Runner::start(plan)?.wait())
}

/// The same with another path.
pub(super) fn with_path(plan: Plan, path: &str) -> Result<Plan, Failure> {
    let target: Target = plan.target.with_path(path).map_err(crate::load::PlanError::from)?;
    Ok(Plan { target, ..plan })
}

/// Waits for a condition.
pub(super) fn until(what: &str, mut met: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let end = Instant::now() + BOUND;
    while !met()? {
        if Instant::now() >= end {
            return Err(Failure::Unexpected(format!("{what}: not within {BOUND:?}")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Waits until nothing is left in the queues of a crew's listeners.
pub(super) fn until_accepted(crew: &Crew) -> Result<(), Failure> {
    until("all connections are accepted", || {
        let mut waiting = 0;
        for listener in crew.listeners() {
            waiting += listener.queue()?.waiting;
        }
        Ok(waiting == 0)
    })
}

/// Both sides' accounts of one load: what clients had, and what workers accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Connections that clients tried.
    pub offered: u64,
    /// Those that were served.
    pub served: u64,
    /// Those that were lost, in whatever way.
    pub lost: u64,
    /// Connections that workers accepted.
    pub accepted: u64,
}

impl Account {
    /// Adds both sides up.
    pub fn of(report: &Report, tallies: &[Option<Tally>]) -> Self {
        Self {
            offered: report.attempts.started,
            served: report.attempts.fates.completed,
            lost: report.lost,
            accepted: tallies.iter().flatten().map(|tally| tally.accepted).sum(),
        }
    }

    /// Nothing is lost, and what was served is what was accepted.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.served == self.offered && self.accepted == self.served
    }
}

/// Shares of the whole, in percent: the smallest and the largest.
pub(super) fn shares(counts: impl IntoIterator<Item = u64>) -> (f64, f64) {
    let counts: Vec<u64> = counts.into_iter().collect();
    let all = counts.iter().sum::<u64>().max(1) as f64;
    let percent = |count: Option<&u64>| *count.unwrap_or(&0) as f64 * 100.0 / all;
    (percent(counts.iter().min()), percent(counts.iter().max()))
}
