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
/// Long enough for everything that is done some seconds after a reload.
const REST: Duration = Duration::from_secs(15);

pub(super) fn run(ground: &Ground, table: &mut Table) -> Result<(), String> {
    let instance = Instance::start(ground, "memory", 7301, WORKERS, &[], &[])?;
    for _ in 0..5 {
        instance.reload(true)?;
    }
    instance.settle(WORKERS)?;
    let keeper = instance.keeper().ok_or("there is no keeper")?;
    let supervisor = instance.pid();
    let pids = [supervisor, keeper];
    resident(table, pids, "right after 5 reloads", false);
    let (begin, before) = (Instant::now(), processor_time(&pids));
    std::thread::sleep(REST);
    let used = processor_time(&pids).saturating_sub(before);
    // What only starting needed has been given back by now.
    resident(table, pids, "at rest", true);
    let percent = used.as_secs_f64() * 100.0 / begin.elapsed().as_secs_f64();
    let row = Row::info(NAME, "supervisor and keeper, idle", "% CPU", Spread::one(percent));
    let note = format!("{:.1} ms in {} s", used.as_secs_f64() * 1e3, REST.as_secs());
    table.add(row.bar(Bar::AtMost(0.2)).note(note));
    Ok(())
}

/// What the kernel says they have in memory.
fn resident(table: &mut Table, pids: [u32; 2], when: &str, judged: bool) {
    let mb = |pid, file, field| kib(pid, file, field) as f64 * 1024.0 / 1e6;
    let figures = [("RSS", "status", "VmRSS"), ("PSS", "smaps_rollup", "Pss")];
    for (what, file, field) in figures {
        let each = pids.map(|pid| mb(pid, file, field));
        let name = format!("supervisor and keeper, {what}, {when}");
        let row = Row::info(NAME, &name, "MB", Spread::one(each.iter().sum()));
        let note = format!("{WORKERS} workers; supervisor {:.2}, keeper {:.2}", each[0], each[1]);
        let row = if judged && what == "RSS" { row.bar(Bar::AtMost(8.0)) } else { row };
        table.add(row.note(note));
    }
}
