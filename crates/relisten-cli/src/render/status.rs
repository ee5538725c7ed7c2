//! One instance, as `relisten status` shows it.

use super::style::Paint;
use super::table::{Cell, Table};
use super::units::{bytes, count, figure, printable, span};
use relisten_supervise::status::{Listener, Missing, Status, Totals, Worker};
use std::fmt::Write;

/// The whole picture. Ends with a newline.
pub(crate) fn status(status: &Status, paint: Paint) -> String {
    let mut out = String::new();
    // A server that is only steered has none.
    let generation = match status.generation {
        0 => String::new(),
        number => format!("generation {number}  "),
    };
    let _ = writeln!(
        out,
        "{}  {}  {generation}{}  up {}  pid {}",
        paint.bold(&printable(&status.name)),
        paint.state(&printable(&status.state)),
        workers_in_short(&status.workers),
        span(status.uptime_ms),
        status.pid,
    );
    let steering = &status.steering;
    let migration = if steering.migration { "waiting connections can migrate" } else { "no migration" };
    let _ = writeln!(
        out,
        "steering: {} by {}, {migration}",
        printable(&steering.policy),
        printable(&steering.backend)
    );
    for missing in &steering.missing {
        one_missing(&mut out, missing, paint);
    }
    for listener in &status.listeners {
        out.push('\n');
        one_listener(&mut out, listener, paint);
    }
    if !status.workers.is_empty() {
        out.push('\n');
        all_workers(&mut out, &status.workers, paint);
    }
    out.push('\n');
    totals(&mut out, &status.totals, paint);
    out
}

/// `4 workers, 3 ready`.
fn workers_in_short(workers: &[Worker]) -> String {
    let ready = workers.iter().filter(|worker| worker.state == "ready").count();
    let all = count(workers.len(), "worker");
    if ready == workers.len() { all } else { format!("{all}, {ready} ready") }
}

fn one_missing(out: &mut String, missing: &Missing, paint: Paint) {
    let _ = writeln!(
        out,
        "{}: {}: {}",
        paint.warning("missing"),
        printable(&missing.feature),
        printable(&missing.why)
    );
    let _ = writeln!(out, "         {}", printable(&missing.effect));
}

fn one_listener(out: &mut String, listener: &Listener, paint: Paint) {
    let _ = write!(out, "{}  {}", paint.bold(&printable(&listener.address)), printable(&listener.protocol));
    if listener.name != listener.address {
        let _ = write!(out, "  name {}", printable(&listener.name));
    }
    if let Some(backlog) = listener.backlog {
        let _ = write!(out, "  backlog {backlog}");
    }
    out.push('\n');
    let head = ["SLOT", "STATE", "WEIGHT", "QUEUE", "ACTIVE", "ACCEPTED", "DROPS", "RESCUED"];
    let mut table = Table::new("  ", paint, &head);
    for slot in &listener.slots {
        let drops = figure(slot.drops);
        table.row([
            slot.slot.to_string().into(),
            Cell::painted(&printable(&slot.state), |state| paint.state(state)),
            slot.weight.to_string().into(),
            figure(slot.queue).into(),
            figure(slot.active).into(),
            figure(slot.accepted_total).into(),
            Cell::painted(
                &drops,
                |text| if slot.drops > Some(0) { paint.warning(text) } else { text.into() },
            ),
            figure(slot.rescued_total).into(),
        ]);
    }
    table.render(out);
    for foreign in &listener.foreign {
        let holder = match (foreign.pid, &foreign.command) {
            (Some(pid), Some(command)) => format!("held by process {pid} ({})", printable(command)),
            (Some(pid), None) => format!("held by process {pid}"),
            (None, _) => "held by a process that can't be seen".into(),
        };
        let _ = writeln!(
            out,
            "  {}: inode {}, {holder}",
            paint.warning("a foreign socket is in the group"),
            foreign.inode
        );
    }
}

fn all_workers(out: &mut String, workers: &[Worker], paint: Paint) {
    let head = ["SLOT", "PID", "GENERATION", "STATE", "SINCE", "RESTARTS", "ACTIVE", "MEMORY"];
    let mut table = Table::new("", paint, &head);
    let mut sorted: Vec<&Worker> = workers.iter().collect();
    sorted.sort_by_key(|worker| (worker.slot, std::cmp::Reverse(worker.generation), worker.pid));
    for worker in sorted {
        table.row([
            worker.slot.to_string().into(),
            figure(worker.pid.map(u64::from)).into(),
            worker.generation.to_string().into(),
            Cell::painted(&printable(&worker.state), |state| paint.state(state)),
            span(worker.since_ms).into(),
            worker.restarts.to_string().into(),
            figure(worker.active).into(),
            worker.rss_bytes.map_or_else(|| "-".into(), bytes).into(),
        ]);
    }
    table.render(out);
}

/// What happened so far; what never happened is left out, unless nothing did.
fn totals(out: &mut String, totals: &Totals, paint: Paint) {
    // Destructured, so that a new counter can't be forgotten here.
    let Totals {
        reloads,
        rollbacks,
        restarts,
        hangs,
        rescues,
        rescued,
        programs_restored,
        migrated,
        migrate_failed,
        cut,
        output_dropped,
    } = *totals;
    let all = [
        (reloads, "reload", false),
        (rollbacks, "rolled back reload", true),
        (restarts, "restart", true),
        (hangs, "hang", true),
        (rescues, "rescue", false),
        (rescued, "rescued connection", false),
        (programs_restored, "restored steering program", true),
        (migrated.unwrap_or(0), "migrated connection", false),
        (migrate_failed.unwrap_or(0), "failed migration", true),
        (cut, "connection cut after --drain", true),
        (output_dropped, "dropped line of output", true),
    ];
    let said: Vec<String> = all
        .into_iter()
        .filter(|(number, ..)| *number > 0)
        .map(|(number, what, bad)| {
            let text = plural(number, what);
            if bad { paint.warning(&text) } else { text }
        })
        .collect();
    let said = if said.is_empty() { "nothing yet".into() } else { said.join(", ") };
    let _ = writeln!(out, "so far: {said}");
}

/// The first noun takes the s: `2 connections cut after --drain`.
fn plural(number: u64, what: &str) -> String {
    if number == 1 {
        return format!("1 {what}");
    }
    if let Some((noun, rest)) = what.split_once(" cut ") {
        return format!("{number} {noun}s cut {rest}");
    }
    if let Some((noun, rest)) = what.split_once(" of ") {
        return format!("{number} {noun}s of {rest}");
    }
    format!("{number} {what}s")
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
