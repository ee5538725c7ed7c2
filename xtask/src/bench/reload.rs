//! `relisten reload` of eight built-in workers under load: how long it takes, and whether clients notice.
//!
//! The load is open-loop (so many connections per second whatever the server does, latency from the moment a
//! connection was due), because closed-loop clients would wait with the server and hide a stall. Windows without and
//! with reloads alternate, each with a load of its own. "No visible step": the 99.9th percentile of a window with
//! reloads is at most twice that of its neighbour without, in the median of the pairs.

use super::ground::Ground;
use super::instance::{Instance, Load, Loaded};
use super::pairs::{Spread, alternate};
use super::row::{Bar, Row, Table};
use std::cell::RefCell;
use std::time::{Duration, Instant};

const NAME: &str = "reload";
const WORKERS: usize = 8;
/// From the start of one reload to that of the next.
const EVERY: Duration = Duration::from_secs(1);

pub(super) fn run(ground: &Ground, table: &mut Table) -> Result<(), String> {
    let (count, length) = if table.quick() { (2, 3) } else { (8, 6) };
    let rate = "1000";
    let length = Duration::from_secs(length);
    let instance = Instance::start(ground, "reload", 7201, WORKERS, &[], &[])?;
    let address = instance.server().address;
    // Warm.
    Load::start(ground, address, Duration::from_secs(1), &["--rate", rate])?.finish()?;
    instance.reload(true)?;
    let took = RefCell::new(Vec::new());
    let quiet = || Load::start(ground, address, length, &["--rate", rate])?.finish();
    let busy = || {
        let begin = Instant::now();
        let load = Load::start(ground, address, length, &["--rate", rate])?;
        let mut due = begin + EVERY / 2;
        while due + EVERY / 2 < begin + length {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            took.borrow_mut().push(instance.reload(false)?.as_secs_f64() * 1e3);
            due += EVERY;
        }
        load.finish()
    };
    let pairs = alternate(count, busy, quiet)?;
    let took = took.into_inner();
    let reloads = took.len();
    let note =
        format!("{reloads} reloads of {WORKERS} workers at {rate} connections/s, the command included");
    let row = Row::info(NAME, "the command relisten reload", "ms", Spread::of(took));
    table.add(row.bar(Bar::AtMost(500.0)).note(note));
    let of = |f: fn(&(Loaded, Loaded)) -> f64| Spread::of(pairs.iter().map(f).collect());
    let (with, without) = (of(|p| p.0.p99_9).median, of(|p| p.1.p99_9).median);
    let note = format!(
        "{count} pairs of {} s, a reload every second against none; medians {with:.2} ms and {without:.2} ms",
        length.as_secs()
    );
    let row = Row::info(NAME, "p99.9 with reloads / without", "", of(|p| p.0.p99_9 / p.1.p99_9));
    table.add(row.bar(Bar::AtMost(2.0)).note(note));
    let lost: u64 = pairs.iter().map(|(busy, quiet)| busy.lost + quiet.lost).sum();
    let served: f64 = pairs.iter().map(|(busy, quiet)| busy.completed + quiet.completed).sum();
    let row = Row::info(NAME, "connections lost", "", Spread::one(lost as f64));
    table.add(row.bar(Bar::AtMost(0.0)).note(format!("{served:.0} served")));
    Ok(())
}
