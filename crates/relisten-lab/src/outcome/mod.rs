//! What an experiment found: tables, plots and checks, as data. How they are shown is decided elsewhere.

mod check;
mod plot;
mod spread;
mod table;

pub use check::Check;
pub use plot::{Axis, Plot, Series, Shape};
pub use spread::Spread;
pub use table::{Cell, Column, Table};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an experiment found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// What was measured.
    pub tables: Vec<Table>,
    /// The same, to look at.
    pub plots: Vec<Plot>,
    /// Directions that must hold on every machine. The run has failed if one does not.
    pub checks: Vec<Check>,
    /// What one should know to read the figures.
    pub notes: Vec<String>,
    /// What this machine or these privileges do not allow: what, and why.
    pub skipped: Vec<Skipped>,
}

/// A part of an experiment, or all of it, that can't be tried here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Skipped {
    /// What was not tried.
    pub what: String,
    /// Why.
    pub why: String,
}

impl Outcome {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Do all checks hold?
    pub fn held(&self) -> bool {
        self.checks.iter().all(|check| check.held)
    }

    /// Says that something could not be tried here.
    #[allow(clippy::needless_pass_by_value, reason = "callers give what they have")]
    pub fn skip(&mut self, what: impl Into<String>, why: impl ToString) {
        self.skipped.push(Skipped { what: what.into(), why: why.to_string() });
    }

    /// Something one should know.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// A direction that must hold.
    #[allow(clippy::needless_pass_by_value, reason = "callers give what they have")]
    pub fn check(
        &mut self,
        name: impl Into<String>,
        expected: impl Into<String>,
        seen: impl ToString,
        held: bool,
    ) {
        self.checks.push(Check {
            name: name.into(),
            expected: expected.into(),
            seen: seen.to_string(),
            held,
        });
    }
}
