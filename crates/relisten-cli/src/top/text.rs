//! As text, for `--once` and `--batch`.

use super::rows::{HEAD, Row, rows, short};
use super::view::View;
use crate::render::{Cell, Paint, Table};
use relisten_diag::top::Top;
use std::fmt::Write;

/// One look. Ends with a newline.
pub(super) fn render(view: &View, top: &Top, time: Option<&str>, paint: Paint) -> String {
    let chosen = view.chosen(top);
    let mut out = String::new();
    if let Some(time) = time {
        // Writing to a String can't fail.
        let _ = write!(out, "{time}  ");
    }
    let _ = writeln!(out, "{}", summary(&chosen));
    if let Some(line) = resets(&chosen) {
        let _ = writeln!(out, "{line}");
    }
    let mut table = Table::new("", paint, &HEAD);
    for row in rows(&chosen, view.workers) {
        table.row(cells(&row, paint));
    }
    table.render(&mut out);
    for missing in &chosen.missing {
        let _ = writeln!(
            out,
            "{} {}: {}; {}",
            paint.warning("not known:"),
            missing.what,
            missing.why,
            missing.effect
        );
    }
    if time.is_some() {
        out.push('\n');
    }
    out
}

fn cells(row: &Row, paint: Paint) -> Vec<Cell> {
    let indented = format!("{}{}", "  ".repeat(row.depth), row.cells[0]);
    let mut last = row.cells.len();
    // No blanks at the end of a line.
    while last > 1 && row.cells[last - 1].is_empty() {
        last -= 1;
    }
    std::iter::once(&indented)
        .chain(&row.cells[1..last])
        .map(|text| match (row.bad, row.depth) {
            (true, _) => Cell::painted(text, |text| paint.error(text)),
            (false, 0) => Cell::painted(text, |text| paint.bold(text)),
            _ => text.as_str().into(),
        })
        .collect()
}

/// `120 open, 3 half open, 45 TIME_WAIT, in 12/s, out 3/s, full 0/s, drops 0/s`: fits into 80 columns.
pub(super) fn summary(top: &Top) -> String {
    let totals = &top.totals;
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), short);
    format!(
        "{} open, {} half open, {} TIME_WAIT, in {}/s, out {}/s, full {}/s, drops {}/s",
        short(totals.established as f64),
        short(totals.half_open as f64),
        short((totals.time_wait_in + totals.time_wait_out) as f64),
        rate(totals.opened_in_per_s),
        rate(totals.opened_out_per_s),
        rate(totals.overflows_per_s),
        rate(totals.drops_per_s),
    )
}

/// `resets per second: sent 3, unread-data 2`; nothing if there are none.
pub(super) fn resets(top: &Top) -> Option<String> {
    let now: Vec<String> = top
        .totals
        .resets
        .iter()
        .filter(|reset| reset.per_s > 0.0)
        .map(|reset| format!("{} {}", reset.cause, short(reset.per_s)))
        .collect();
    (!now.is_empty()).then(|| format!("resets per second: {}", now.join(", ")))
}
