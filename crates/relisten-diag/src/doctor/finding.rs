//! What a rule says.

use crate::SocketInode;
use crate::machine::{Missing, OtherNamespace};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is lost by it.
    Notice,
    /// It can cost connections, or will when more come.
    Warning,
    /// Connections are being lost, or are about to be.
    Serious,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Serious => "serious",
        })
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// The rule that found it.
    pub rule: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: an address, a process, a setting.
    pub subject: String,
    /// What is wrong, in a sentence.
    pub summary: String,
    /// What shows it.
    pub evidence: Vec<Evidence>,
    /// What it costs.
    pub effect: String,
    /// What to do: commands, settings, changes; the simplest first.
    pub fix: Vec<String>,
}

/// Something that can be checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Evidence {
    /// In words, with its numbers.
    pub text: String,
    /// The number, where there is one that matters.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<f64>,
    /// The inode of the socket that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub socket: Option<u64>,
    /// The process that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
}

/// What `relisten doctor --json` prints. Fields are only ever added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// The inode of the network namespace that was looked at.
    pub namespace: u64,
    /// How long it was looked at, milliseconds.
    pub window_ms: u64,
    /// Addresses with listeners.
    pub groups: u64,
    /// TCP sockets that are not listeners.
    pub sockets: u64,
    /// Other network namespaces that can be seen; each has sockets and settings of its own.
    pub other_namespaces: Vec<OtherNamespace>,
    /// The most severe first.
    pub findings: Vec<Finding>,
    /// What could not be known.
    pub missing: Vec<Missing>,
}

impl Report {
    /// Is there a serious finding?
    pub fn serious(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Serious)
    }
}

impl Finding {
    pub(super) fn new(rule: &str, severity: Severity, subject: impl Into<String>) -> Self {
        Self {
            rule: rule.to_owned(),
            severity,
            subject: subject.into(),
            summary: String::new(),
            evidence: Vec::new(),
            effect: String::new(),
            fix: Vec::new(),
        }
    }

    pub(super) fn says(mut self, summary: impl Into<String>) -> Self {
        self.summary = summary.into();
        self
    }

    pub(super) fn effect(mut self, effect: impl Into<String>) -> Self {
        self.effect = effect.into();
        self
    }

    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix.push(fix.into());
        self
    }

    pub(super) fn shown_by(mut self, evidence: Evidence) -> Self {
        self.evidence.push(evidence);
        self
    }
}

impl Evidence {
    pub(super) fn of(text: impl Into<String>) -> Self {
        Self { text: text.into(), value: None, socket: None, pid: None }
    }

    pub(super) fn number(text: impl Into<String>, value: f64) -> Self {
        Self { value: Some(value), ..Self::of(text) }
    }

    pub(super) fn socket(mut self, inode: SocketInode) -> Self {
        self.socket = Some(inode.0);
        self
    }

    pub(super) fn pid(mut self, pid: u32) -> Self {
        self.pid = Some(pid);
        self
    }
}
