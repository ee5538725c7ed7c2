//! A run of an experiment, as text.

use crate::render::{Cell, Paint, Table};
use relisten_lab::outcome;
use relisten_lab::report::Run;
use std::fmt::Write;

/// What it shows, its tables, its checks. Plots are for the HTML page.
pub(super) fn run(run: &Run, paint: Paint) -> String {
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(out, "{}  {}", paint.bold(&run.name), run.shows);
    for table in &run.outcome.tables {
        let _ = writeln!(out, "\n  {}", table.title);
        show(table, paint, &mut out);
    }
    if let Some(why) = &run.failed {
        let _ = writeln!(out, "  {} {why}", paint.error("failed:"));
    }
    let outcome = &run.outcome;
    if !outcome.checks.is_empty() || !outcome.skipped.is_empty() || !outcome.notes.is_empty() {
        out.push('\n');
    }
    for check in &outcome.checks {
        let mark = if check.held { paint.good("ok") } else { paint.error("NOT HELD") };
        let _ = writeln!(out, "  {mark}  {}: {} (expected: {})", check.name, check.seen, check.expected);
    }
    for skipped in &outcome.skipped {
        let _ = writeln!(out, "  {} {}: {}", paint.warning("not tried:"), skipped.what, skipped.why);
    }
    for note in &outcome.notes {
        let _ = writeln!(out, "  {} {note}", paint.dim("note:"));
    }
    let _ = writeln!(out, "  {} {}\n", paint.dim("again:"), run.again);
    out
}

fn show(table: &outcome::Table, paint: Paint, out: &mut String) {
    let head: Vec<String> = table
        .columns
        .iter()
        .map(|c| if c.unit.is_empty() { c.name.clone() } else { format!("{}, {}", c.name, c.unit) })
        .collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let mut shown = Table::new("  ", paint, &head);
    for row in &table.rows {
        shown.row(row.iter().map(|cell| Cell::from(cell.text())));
    }
    shown.render(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use outcome::{Outcome, Spread};

    #[test]
    fn a_run_as_text() {
        let mut outcome = Outcome::new();
        let mut table = outcome::Table::new("Wake-ups per connection", &[("model", ""), ("wake-ups", "1")]);
        table.row(["epoll".into(), Spread::of([1.8, 1.9, 2.0]).into()]);
        table.row(["accept".into(), 1.0.into()]);
        outcome.tables.push(table);
        outcome.check("epoll wakes more than once", "> 1.05", "1.90", true);
        outcome.check("accept wakes once", "<= 1.01", "1.20", false);
        outcome.skip("io_uring", "the kernel refused");
        outcome.note("on two processors");
        let run = Run {
            name: "herd".into(),
            shows: "Who wakes.".into(),
            again: "relisten lab run herd --seed 1".into(),
            seconds: 1.25,
            failed: None,
            outcome,
        };
        insta::assert_snapshot!(super::run(&run, Paint::plain()));
    }
}
