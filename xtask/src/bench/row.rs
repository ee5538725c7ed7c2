//! Results: rows with a bar, on the terminal, as JSON and as Markdown.

use super::pairs::Spread;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// What a figure must reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bar {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

impl Bar {
    fn holds(self, value: f64) -> bool {
        match self {
            Bar::AtLeast(bar) => value >= bar,
            Bar::AtMost(bar) => value <= bar,
            Bar::Below(bar) => value < bar,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bar::AtLeast(bar) => write!(f, "≥ {bar}"),
            Bar::AtMost(bar) => write!(f, "≤ {bar}"),
            Bar::Below(bar) => write!(f, "< {bar}"),
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Pass,
    Fail,
    /// Nothing was promised.
    Info,
    /// It could not be measured here; `note` says why.
    Missing,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::Info => "",
            Verdict::Missing => "missing",
        })
    }
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    bench: String,
    what: String,
    unit: String,
    spread: Option<Spread>,
    bar: Option<Bar>,
    verdict: Verdict,
    /// How it came about.
    note: String,
}

impl Row {
    /// A figure that nothing is promised of. The unit of ratios is empty.
    pub(super) fn info(bench: &str, what: impl Into<String>, unit: &str, spread: Spread) -> Row {
        Row {
            bench: bench.to_owned(),
            what: what.into(),
            unit: unit.to_owned(),
            spread: Some(spread),
            bar: None,
            verdict: Verdict::Info,
            note: String::new(),
        }
    }

    /// Its median must reach the bar.
    pub(super) fn bar(mut self, bar: Bar) -> Row {
        let holds = self.spread.is_some_and(|spread| bar.holds(spread.median));
        self.bar = Some(bar);
        self.verdict = if holds { Verdict::Pass } else { Verdict::Fail };
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Row {
        self.note = note.into();
        self
    }

    /// It could not be measured here, and that is no failure.
    pub(super) fn missing(bench: &str, what: &str, why: &str) -> Row {
        Row { spread: None, verdict: Verdict::Missing, ..Row::failed(bench, why) }.named(what)
    }

    /// It broke.
    pub(super) fn failed(bench: &str, why: &str) -> Row {
        Row {
            bench: bench.to_owned(),
            what: "the benchmark itself".to_owned(),
            unit: String::new(),
            spread: None,
            bar: None,
            verdict: Verdict::Fail,
            note: why.to_owned(),
        }
    }

    fn named(mut self, what: &str) -> Row {
        what.clone_into(&mut self.what);
        self
    }

    fn figures(&self) -> [String; 3] {
        let shown = |value: f64| match value.abs() {
            v if v != 0.0 && v < 0.01 => format!("{value:.4}"),
            v if v < 10.0 => format!("{value:.3}"),
            v if v < 1000.0 => format!("{value:.1}"),
            _ => format!("{value:.0}"),
        };
        self.spread.map_or_else(Default::default, |s| [s.median, s.lowest, s.highest].map(shown))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, lowest, highest] = self.figures();
        let bar = self.bar.map(|bar| bar.to_string()).unwrap_or_default();
        write!(
            f,
            "{:7} {:58} {median:>8} {:6} [{lowest} .. {highest}]",
            self.verdict.to_string(),
            format!("{}: {}", self.bench, self.what),
            self.unit,
        )?;
        if !bar.is_empty() {
            write!(f, "  bar {bar}")?;
        }
        if !self.note.is_empty() {
            write!(f, "\n          {}", self.note)?;
        }
        Ok(())
    }
}

/// All results of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Table {
    quick: bool,
    cpus: usize,
    kernel: String,
    rows: Vec<Row>,
}

impl Table {
    pub(super) fn new(quick: bool) -> Table {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        // The release only: what follows the first hyphen names a distribution's or a host's build.
        let kernel = kernel.split('-').next().unwrap_or_default().to_owned();
        Table { quick, cpus, kernel, rows: Vec::new() }
    }

    pub(super) fn quick(&self) -> bool {
        self.quick
    }

    pub(super) fn about(&self) -> String {
        let Table { quick, cpus, kernel, .. } = self;
        let rounds = if *quick { "shortened rounds (--quick)" } else { "whole rounds" };
        format!("Linux {kernel}, {cpus} CPUs, {rounds}")
    }

    /// Adds a row and shows it.
    pub(super) fn add(&mut self, row: Row) {
        println!("{row}");
        self.rows.push(row);
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.verdict != Verdict::Fail)
    }

    pub(super) fn write(&self, file: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        std::fs::write(file, text + "\n").map_err(|error| format!("{}: {error}", file.display()))
    }

    pub(super) fn read(file: &Path) -> Result<Table, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// The table for the documentation.
    pub(super) fn markdown(&self) -> String {
        use fmt::Write;
        let mut text = format!("{}. Median, and lowest to highest of the rounds.\n\n", self.about());
        text +=
            "| benchmark | figure | median | spread | bar | verdict | how |\n|---|---|--:|---|---|---|---|\n";
        for row in &self.rows {
            let [median, lowest, highest] = row.figures();
            let unit = if row.unit.is_empty() { String::new() } else { format!(" {}", row.unit) };
            let (median, spread) = match row.spread {
                Some(_) => (format!("{median}{unit}"), format!("{lowest} to {highest}")),
                None => Default::default(),
            };
            let bar = row.bar.map(|bar| bar.to_string()).unwrap_or_default();
            let note = row.note.replace('|', "\\|").replace('\n', " ");
            writeln!(
                text,
                "| {} | {} | {median} | {spread} | {bar} | {} | {note} |",
                row.bench, row.what, row.verdict
            )
            .unwrap_or_default();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_decides_and_json_keeps_everything() {
        let spread = Spread::of(vec![0.9, 0.99, 1.2]);
        let mut table = Table::new(true);
        table.add(Row::info("b", "ratio", "", spread).bar(Bar::AtLeast(0.98)).note("a|b"));
        table.add(Row::missing("b", "peer", "not installed"));
        assert!(table.passed());
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = directory.path().join("r.json");
        table.write(&file).expect("written");
        assert_eq!(Table::read(&file).expect("read"), table);
        assert!(table.markdown().contains("| b | ratio | 0.990 | 0.900 to 1.200 | ≥ 0.98 | PASS | a\\|b |"));
        table.add(Row::info("b", "time", "ms", spread).bar(Bar::Below(0.5)));
        assert!(!table.passed());
    }
}
