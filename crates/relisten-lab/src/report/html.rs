//! A report as one HTML page that needs nothing else.

use super::{Report, Run, svg};
use crate::outcome::{Cell, Check, Plot, Table};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The page. Light or dark as the reader's system is; no script, no font, no image from elsewhere.
pub fn html(report: &Report) -> String {
    let checks = || report.runs.iter().flat_map(|run| &run.outcome.checks);
    let (held, all) = (checks().filter(|check| check.held).count(), checks().count());
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "relisten lab" }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body {
                h1 { "relisten lab" }
                p.soft { (report.machine.line()) }
                p.soft {
                    "relisten " (report.relisten) ", scale " (report.scale.as_str()) ", seed " (report.seed)
                    ". Figures are medians over rounds, with the lowest and the highest round in brackets."
                }
                p { (mark(report.held())) " " (held) " of " (all) " checks hold" }
                nav { @for run in &report.runs { a href={ "#" (run.name) } { (run.name) } } }
                @for run in &report.runs { (section(run)) }
            }
        }
    };
    page.into_string()
}

fn section(run: &Run) -> Markup {
    html! {
        section id=(run.name) {
            h2 { (run.name) }
            p { (run.shows) }
            p.soft { code { (run.again) } " – " (format!("{:.1} s", run.seconds)) }
            @if let Some(why) = &run.failed { p.bad { "Failed: " (why) } }
            @for table in &run.outcome.tables { (figures(table)) }
            @for plot in &run.outcome.plots { (drawing(plot)) }
            @if !run.outcome.checks.is_empty() { h3 { "Checks" } ul { @for check in &run.outcome.checks { (verdict(check)) } } }
            @if !run.outcome.notes.is_empty() { ul.soft { @for note in &run.outcome.notes { li { (note) } } } }
            @for skipped in &run.outcome.skipped { p.soft { "Not tried here: " (skipped.what) " – " (skipped.why) } }
        }
    }
}

fn figures(table: &Table) -> Markup {
    let class = |cell: Option<&Cell>| match cell {
        Some(Cell::Spread(_) | Cell::Number(_) | Cell::Unknown(())) => "figure",
        _ => "words",
    };
    html! {
        h3 { (table.title) }
        div.wide {
            table {
                thead {
                    tr {
                        @for (place, column) in table.columns.iter().enumerate() {
                            th class=(class(table.rows.first().and_then(|row| row.get(place)))) {
                                (column.name) @if !column.unit.is_empty() { ", " (column.unit) }
                            }
                        }
                    }
                }
                tbody { @for row in &table.rows { tr { @for cell in row { td class=(class(Some(cell))) { (cell.text()) } } } } }
            }
        }
    }
}

fn drawing(plot: &Plot) -> Markup {
    html! {
        h3 { (plot.title) }
        @match svg(plot) {
            Ok(text) => (PreEscaped(text)),
            Err(why) => p.bad { "This plot can't be drawn: " (why) },
        }
    }
}

fn verdict(check: &Check) -> Markup {
    html! { li { (mark(check.held)) " " (check.name) ": " (check.seen) " " span.soft { "(expected: " (check.expected) ")" } } }
}

fn mark(held: bool) -> Markup {
    if held {
        html! { span.good { "✓" } }
    } else {
        html! { span.bad { "✗" } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Scale;
    use crate::outcome::{Axis, Outcome};
    use crate::report::{Machine, SCHEMA};

    fn report() -> Report {
        let mut outcome = Outcome::new();
        let mut table = Table::new("Wake-ups", &[("model", ""), ("per connection", "1")]);
        table.row(["<script>alert(1)</script>".into(), 1.5.into()]);
        outcome.tables.push(table);
        let mut plot = Plot::bars("Drawn", vec!["a".into()], Axis::new("wake-ups", ""));
        plot.heights("threads", [1.5]);
        outcome.plots.push(plot);
        outcome.check("direction", "> 1", 0.5, false);
        outcome.skip("io_uring", "refused");
        let run = Run {
            name: "herd".into(),
            shows: "one sentence".into(),
            again: "relisten lab run herd --seed 1".into(),
            seconds: 1.0,
            failed: None,
            outcome,
        };
        let machine = Machine::read();
        Report {
            schema: SCHEMA,
            relisten: "0".into(),
            machine,
            scale: Scale::Quick,
            seed: 1,
            runs: vec![run],
        }
    }

    #[test]
    fn the_page_needs_nothing_from_outside() {
        let page = html(&report());
        for outside in ["http:", "https:", "<script", "<link", "<img", "src=", "@import", "url("] {
            // The namespace of SVG is a name, not a place.
            let page = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("prefers-color-scheme: dark") && page.contains("<svg"));
    }

    #[test]
    fn everything_is_on_the_page() {
        let page = html(&report());
        let words = [
            "one sentence",
            "relisten lab run herd --seed 1",
            "&lt;script&gt;",
            "0 of 1 checks hold",
            "refused",
        ];
        for word in words {
            assert!(page.contains(word), "{word}");
        }
    }

    #[test]
    fn a_report_comes_back_from_json() {
        let report = report();
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
