//! What an experiment's process says to the one that started it: one JSON object a line.

use crate::experiment::{Progress, Wishes};
use crate::outcome::Outcome;
use serde::{Deserialize, Serialize};

/// What the experiment's process is to do; its only argument.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) experiment: String,
    pub(super) isolation: Isolation,
    /// The first process of the sandbox, not the one that makes it.
    pub(super) within: bool,
    pub(super) wishes: Wishes,
}

/// What the experiment has for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Isolation {
    /// Network, processes and mounts: nothing can be left behind.
    Sandbox,
    /// The network.
    Network,
    /// Nothing, and why.
    Nothing(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Message {
    /// It can't have these namespaces.
    Refused(String),
    /// It has come so far.
    Progress(Progress),
    /// It is done.
    Outcome(Outcome),
    /// It can't be tried here.
    Skipped(String),
    /// It went wrong.
    Failed(String),
}
