use super::{Fate, Handshake, Summary};
use schemars::JsonSchema;
use serde::Serialize;

/// A level of evidence, and whether it is at hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Level {
    /// Its name: `sock-diag`, `tracepoints`, `raw-tracepoints`, `cgroup-programs`, `fentry`.
    pub name: String,
    /// Is it used?
    pub used: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What is hidden without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hides: Option<String>,
}

/// One line of `relisten trace --json`. Fields and kinds of lines are only ever added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Line {
    /// The first line: what the following ones are based on.
    Begin {
        /// The levels of evidence.
        levels: Vec<Level>,
    },
    /// What became of a connection.
    Fate(Box<Fate>),
    /// The packets of a handshake (`--packets`).
    Handshake(Box<Handshake>),
    /// The last line.
    Summary(Summary),
}
