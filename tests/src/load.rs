//! Load whose every connection is accounted for: `relisten_lab::load`, in this process.

use crate::server::Server;
use relisten_lab::load::{KeepAlive, Pace, Plan, Report, Runner, Snapshot};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use relisten_lab::load as lab;

/// How many clients the closed loop has.
pub const CLIENTS: usize = 64;

/// Load that is running.
#[derive(Debug)]
pub struct Load {
    runner: Runner,
    begin: Instant,
}

/// A closed loop of [`CLIENTS`], a new connection per request.
pub fn plan(address: SocketAddr, path: &str) -> Plan {
    let mut plan = Plan::get(&format!("http://{address}{path}")).expect("a plan");
    plan.pace = Pace::Clients(CLIENTS);
    plan.keep_alive = KeepAlive::Off;
    plan.timeout = Duration::from_secs(20);
    plan
}

impl Load {
    /// The usual closed loop against a server. Returns when it has begun to be served.
    #[track_caller]
    pub fn on(server: &Server) -> Self {
        Self::start(plan(server.address, server.path))
    }

    /// Returns when a first hundred requests are served.
    #[track_caller]
    pub fn start(plan: Plan) -> Self {
        let load = Self::launch(plan);
        load.more(100, Duration::from_secs(20));
        load
    }

    /// Does not wait for anything.
    #[track_caller]
    pub fn launch(plan: Plan) -> Self {
        Self { runner: Runner::start(plan).expect("start the load"), begin: Instant::now() }
    }

    /// Since its start.
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// The counts so far.
    pub fn snapshot(&self) -> Snapshot {
        self.runner.snapshot()
    }

    /// Waits until it has run for so long, the pace of a test's rounds.
    pub fn run_until(&self, elapsed: Duration) {
        self.runner.wait_until(elapsed.saturating_sub(self.begin.elapsed()), |_| false);
    }

    /// Waits until so many more requests are served.
    #[track_caller]
    pub fn more(&self, more: u64, bound: Duration) {
        let served = self.runner.wait_for_more(more, bound);
        assert!(served, "no {more} more requests were served within {bound:?}: {:?}", self.runner.snapshot());
    }

    /// Starts no new request, waits for those under way, and reports.
    pub fn finish(self) -> Report {
        let report = self.runner.stop();
        eprintln!("{report}");
        report
    }

    /// The same, and nothing may have been lost.
    #[track_caller]
    pub fn finish_clean(self) -> Report {
        let report = self.finish();
        if !report.is_clean() {
            show_listeners();
        }
        assert_nothing_lost(&report);
        report
    }
}

/// Who waits where, and which listeners have a filter: while it can still be seen.
fn show_listeners() {
    for arguments in [&["-ltnpe", "--bpf"][..], &["-tnpe"]] {
        if let Ok(shown) = std::process::Command::new("ss").args(arguments).output() {
            eprintln!("{}", String::from_utf8_lossy(&shown.stdout));
        }
    }
    eprintln!("{}", crate::cli(&["status"]).text());
}

/// # Panics
/// When any connection had another fate than to be served, or there was none at all.
#[track_caller]
pub fn assert_nothing_lost(report: &Report) {
    assert!(report.attempts.fates.completed > 0, "nobody was served:\n{report}");
    assert_eq!(report.attempts.started, report.attempts.fates.sum(), "the fates don't add up:\n{report}");
    if !report.is_clean() {
        let bad: Vec<String> =
            report.series.iter().filter(|step| step.lost > 0).map(|s| format!("{s:?}")).collect();
        panic!("connections were lost:\n{report}errors: {:?}\nwhen:\n{}", report.errors, bad.join("\n"));
    }
}
