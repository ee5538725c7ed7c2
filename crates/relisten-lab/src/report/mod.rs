//! What a run of experiments found, on which machine; as JSON, as one HTML page, and as Markdown.

mod html;
mod machine;
mod markdown;
mod svg;

pub use html::html;
pub use machine::Machine;
pub use markdown::markdown;
pub use svg::svg;

use crate::experiment::Scale;
use crate::outcome::Outcome;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of a report's JSON: `docs/schema/lab.json`. Fields are only ever added under one version.
pub const SCHEMA: u32 = 1;

/// A run of experiments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The version of relisten.
    pub relisten: String,
    /// Where it ran.
    pub machine: Machine,
    /// How thoroughly.
    pub scale: Scale,
    /// Where chance began.
    pub seed: u64,
    /// One for each experiment, in the order in which they ran.
    pub runs: Vec<Run>,
}

/// A run of one experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// The experiment.
    pub name: String,
    /// What it shows: one sentence.
    pub shows: String,
    /// The command that runs it again.
    pub again: String,
    /// How long it took.
    pub seconds: f64,
    /// Why it has no outcome. An experiment that can't be tried on this machine has one that says so.
    pub failed: Option<String>,
    /// What was found.
    pub outcome: Outcome,
}

impl Run {
    /// It went well, and all of its checks hold.
    pub fn held(&self) -> bool {
        self.failed.is_none() && self.outcome.held()
    }
}

impl Report {
    /// All went well, and all checks hold.
    pub fn held(&self) -> bool {
        self.runs.iter().all(Run::held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `RELISTEN_BLESS=1` writes it anew.
    #[test]
    fn the_schema_is_committed() {
        let schema = serde_json::to_string_pretty(&schemars::schema_for!(Report)).unwrap() + "\n";
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema/lab.json");
        if std::env::var_os("RELISTEN_BLESS").is_some_and(|value| value == "1") {
            std::fs::write(&path, &schema).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).unwrap_or_default() == schema,
            "docs/schema/lab.json is not what the code says; RELISTEN_BLESS=1 cargo test -p relisten-lab schema"
        );
    }
}
