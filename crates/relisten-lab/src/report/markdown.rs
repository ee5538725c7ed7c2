//! A report as Markdown, for a repository.

use super::{Report, Run};
use crate::outcome::Table;
use std::fmt::Write;

/// Tables and checks; plots are for the [page](super::html).
pub fn markdown(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(
        out,
        "# What the lab found\n\n\
         Written by `relisten lab`, as [lab.md](lab.md) tells: relisten {}, scale {}, seed {}, on {}. Medians over \
         rounds, the lowest and the highest round in brackets.",
        report.relisten,
        report.scale.as_str(),
        report.seed,
        report.machine.line()
    );
    for run in &report.runs {
        section(run, &mut out);
    }
    out
}

fn section(run: &Run, out: &mut String) {
    let _ = writeln!(out, "\n## {}\n\n{} (`{}`)", run.name, escaped(&run.shows), run.again);
    if let Some(why) = &run.failed {
        let _ = writeln!(out, "\n**Failed**: {}", escaped(why));
    }
    for table in &run.outcome.tables {
        let _ = writeln!(out, "\n{}:\n", escaped(&table.title));
        figures(table, out);
    }
    let outcome = &run.outcome;
    let held = outcome.checks.iter().filter(|check| check.held).count();
    if !outcome.checks.is_empty() {
        let _ = writeln!(out, "\n{held} of {} checks hold.", outcome.checks.len());
    }
    for check in outcome.checks.iter().filter(|check| !check.held) {
        let _ = writeln!(
            out,
            "**Does not hold**: {}: {} (expected: {}).",
            escaped(&check.name),
            escaped(&check.seen),
            escaped(&check.expected)
        );
    }
    for skipped in &outcome.skipped {
        let _ = writeln!(out, "\nNot tried: {}: {}.", escaped(&skipped.what), escaped(&skipped.why));
    }
}

fn figures(table: &Table, out: &mut String) {
    let head = table.columns.iter().map(|c| match c.unit.as_str() {
        "" => escaped(&c.name),
        unit => format!("{}, {}", escaped(&c.name), escaped(unit)),
    });
    let _ = writeln!(out, "| {} |", head.collect::<Vec<_>>().join(" | "));
    let _ = writeln!(out, "|{}", "---|".repeat(table.columns.len()));
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(|cell| escaped(&cell.text())).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
}

/// A bar would end a cell, and `<` might begin HTML.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Scale;
    use crate::outcome::Outcome;
    use crate::report::{Machine, SCHEMA};

    #[test]
    fn tables_and_what_does_not_hold() {
        let mut outcome = Outcome::new();
        let mut table = Table::new("Wake-ups", &[("model", ""), ("wake-ups", "1")]);
        table.row(["a|b".into(), 1.5.into()]);
        outcome.tables.push(table);
        outcome.check("direction", "> 1", 0.5, false);
        outcome.check("other", "> 1", 1.5, true);
        outcome.skip("io_uring", "refused");
        let run = Run {
            name: "herd".into(),
            shows: "Who wakes.".into(),
            again: "relisten lab run herd".into(),
            seconds: 1.0,
            failed: None,
            outcome,
        };
        let machine = Machine::default();
        let report = Report {
            schema: SCHEMA,
            relisten: "0".into(),
            machine,
            scale: Scale::Full,
            seed: 1,
            runs: vec![run],
        };
        let text = markdown(&report);
        for line in [
            "# What the lab found\n",
            "\n## herd\n\nWho wakes. (`relisten lab run herd`)\n",
            "\nWake-ups:\n\n| model | wake-ups, 1 |\n|---|---|\n| a\\|b | 1.50 |\n",
            "\n1 of 2 checks hold.\n**Does not hold**: direction: 0.5 (expected: > 1).\n",
            "\nNot tried: io_uring: refused.\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    /// Who adds an experiment runs it once more for the repository.
    #[test]
    fn every_experiment_has_its_figures_in_the_repository() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lab-results.md");
        let text = std::fs::read_to_string(&file).unwrap();
        for experiment in crate::experiments::ALL {
            let head = format!("\n## {}\n\n{} (`", experiment.name(), escaped(experiment.shows()));
            assert!(text.contains(&head), "relisten lab run --markdown docs/lab-results.md: {head}");
        }
    }
}
