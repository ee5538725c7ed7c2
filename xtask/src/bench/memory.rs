//! What supervisor and keeper cost: resident memory with eight workers after five reloads, and processor time when
//! nothing happens.

use super::ground::Ground;
use super::instance::Instance;
use super::pairs::Spread;
use super::process::{kib, processor_time};
use super::row::{Bar, Row, Table};
use std::time::{Duration, Instant};

const NAME: &str = "memory";
const WORKERS: usize = 8;

pub(super) fn run(ground: &Ground, table: &mut Table) -> Result<(), String> {
    let instance = Instance::start(ground, "memory", 7301, WORKERS, &[], &[])?;
    for _ in 0..5 {
        instance.reload(true)?;
    }
    instance.settle(WORKERS)?;
    let keeper = instance.keeper().ok_or("there is no keeper")?;
    let supervisor = instance.pid();
    let pids = [supervisor, keeper];
    let mb = |pid, file, field| kib(pid, file, field) as f64 * 1024.0 / 1e6;
    let resident = pids.map(|pid| mb(pid, "status", "VmRSS"));
    let share = pids.map(|pid| mb(pid, "smaps_rollup", "Pss"));
    let note = format!(
        "{WORKERS} workers, after 5 reloads; VmRSS: supervisor {:.2}, keeper {:.2}",
        resident[0], resident[1]
    );
    let row = Row::info(NAME, "supervisor and keeper, RSS", "MB", Spread::one(resident.iter().sum()));
    table.add(row.bar(Bar::AtMost(8.0)).note(note));
    let note = format!(
        "pages shared with other processes (the program itself, with the built-in workers) counted in part: \
         supervisor {:.2}, keeper {:.2}",
        share[0], share[1]
    );
    table
        .add(Row::info(NAME, "supervisor and keeper, PSS", "MB", Spread::one(share.iter().sum())).note(note));

    let (begin, before) = (Instant::now(), processor_time(&pids));
    std::thread::sleep(Duration::from_secs(10));
    let used = processor_time(&pids).saturating_sub(before);
    let percent = used.as_secs_f64() * 100.0 / begin.elapsed().as_secs_f64();
    let row = Row::info(NAME, "supervisor and keeper, idle", "% CPU", Spread::one(percent));
    table.add(row.bar(Bar::AtMost(0.2)).note(format!("{:.1} ms in 10 s", used.as_secs_f64() * 1e3)));
    Ok(())
}
