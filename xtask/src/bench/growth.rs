//! Many reloads and many deaths: descriptors, zombies and memory of supervisor and keeper after warming up and at the
//! end.

use super::ground::Ground;
use super::instance::Instance;
use super::pairs::Spread;
use super::process::{self, kib, wait_for};
use super::row::{Bar, Row, Table};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const NAME: &str = "growth";
const WORKERS: usize = 4;
/// Memory of its own (RssAnon) that both together may have more at the end than after warming up. An allocator does
/// not give back everything at once; a leak of 64 bytes for each of 10,000 deaths would be seen.
const LEEWAY_KIB: f64 = 384.0;

/// What may grow.
#[derive(Clone, Copy, Debug)]
struct Size {
    descriptors: usize,
    zombies: usize,
    own_kib: u64,
    resident_kib: u64,
}

pub(super) fn run(ground: &Ground, table: &mut Table) -> Result<(), String> {
    let (reloads, deaths) = if table.quick() { (30, 200) } else { (1000, 10_000) };
    let instance = Instance::start(ground, "growth", 7401, WORKERS, &[], &[])?;
    let keeper = instance.keeper().ok_or("there is no keeper")?;
    let first = instance.settle(WORKERS)?.generation;

    let begin = Instant::now();
    let (before, after) = around(&instance, keeper, reloads, || instance.reload(false).map(|_| 1))?;
    let generation = instance.settle(WORKERS)?.generation;
    if (generation - first) as usize != reloads {
        return Err(format!("{reloads} reloads made {} generations", generation - first));
    }
    report(table, &format!("{reloads} reloads"), before, after, begin.elapsed());

    let begin = Instant::now();
    let (before, after) = around(&instance, keeper, deaths, || kill_all(&instance))?;
    report(table, &format!("{deaths} deaths"), before, after, begin.elapsed());
    if process::words(keeper).get(1).is_none_or(|word| word != "keeper") {
        return Err("the keeper has gone".to_owned());
    }
    Ok(())
}

/// Does something until `count` is reached; sizes after a tenth of it and at the end.
fn around(
    instance: &Instance,
    keeper: u32,
    count: usize,
    mut act: impl FnMut() -> Result<usize, String>,
) -> Result<(Size, Size), String> {
    let mut done = 0;
    let mut warm = None;
    while done < count {
        done += act()?;
        if warm.is_none() && done * 10 >= count {
            warm = Some(measure(instance, keeper)?);
        }
    }
    let end = measure(instance, keeper)?;
    Ok((warm.unwrap_or(end), end))
}

/// Kills all workers that serve, and waits until others do. Readiness resets the back-off.
fn kill_all(instance: &Instance) -> Result<usize, String> {
    let pids = instance.settle(WORKERS)?.ready();
    for pid in &pids {
        process::signal(*pid, Signal::KILL);
    }
    wait_for("others serve in the place of those killed", Duration::from_secs(30), || {
        let now = instance.status().ok()?.ready();
        (now.len() == WORKERS && !now.iter().any(|pid| pids.contains(pid))).then_some(pids.len())
    })
}

/// When nobody leaves any more and what takes a moment has been done.
fn measure(instance: &Instance, keeper: u32) -> Result<Size, String> {
    instance.settle(WORKERS)?;
    let pids = [instance.pid(), keeper];
    // A descriptor is closed, a zombie waited for, a moment after the event that allows it: the least of two seconds
    // counts, and growth is never taken back by that.
    let end = Instant::now() + Duration::from_secs(2);
    let sum = |file: &str, field: &str| pids.iter().map(|pid| kib(*pid, file, field)).sum();
    let mut size = Size { descriptors: usize::MAX, zombies: usize::MAX, own_kib: 0, resident_kib: 0 };
    while Instant::now() < end {
        size.descriptors = size.descriptors.min(pids.iter().map(|pid| process::descriptors(*pid)).sum());
        size.zombies = size.zombies.min(process::zombies());
        size.own_kib = sum("status", "RssAnon");
        size.resident_kib = sum("status", "VmRSS");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(size)
}

fn report(table: &mut Table, what: &str, before: Size, after: Size, took: Duration) {
    let took = took.as_secs_f64();
    let grown = after.descriptors as f64 - before.descriptors as f64;
    let row = Row::info(NAME, format!("{what}: descriptors"), "more", Spread::one(grown));
    let note =
        format!("{} after a tenth, {} at the end; {took:.0} s in all", before.descriptors, after.descriptors);
    table.add(row.bar(Bar::AtMost(0.0)).note(note));
    let row = Row::info(NAME, format!("{what}: zombies"), "", Spread::one(after.zombies as f64));
    table.add(row.bar(Bar::AtMost(0.0)));
    let grown = after.own_kib as f64 - before.own_kib as f64;
    let row = Row::info(NAME, format!("{what}: own memory (RssAnon)"), "KiB more", Spread::one(grown));
    let note = format!(
        "{} KiB after a tenth, {} at the end; VmRSS {} and {}",
        before.own_kib, after.own_kib, before.resident_kib, after.resident_kib
    );
    table.add(row.bar(Bar::AtMost(LEEWAY_KIB)).note(note));
}
