//! Resets by cause, as far as the kernel's counters tell.

use crate::counters::Counters;
use crate::machine::Machine;
use serde::{Deserialize, Serialize};

/// One cause.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reset {
    /// Its name: one word for scripts.
    pub cause: String,
    /// What it means.
    pub meaning: String,
    /// Since the network namespace was made.
    pub total: u64,
    /// Per second, lately.
    pub per_s: f64,
}

/// Group, counter, cause, meaning. `sent` counts all, so the others don't add up to it: resets for a closed port, and
/// those of queued connections when a listener closes, have no counter of their own.
const CAUSES: [(&str, &str, &str, &str); 8] = [
    ("Tcp", "OutRsts", "sent", "all resets sent"),
    ("Tcp", "EstabResets", "established", "established connections that ended by a reset, from either side"),
    ("TcpExt", "TCPAbortOnClose", "unread-data", "closed while data was unread"),
    ("TcpExt", "TCPAbortOnData", "linger-0", "closed with SO_LINGER 0, or data came after the close"),
    ("TcpExt", "TCPAbortOnMemory", "memory", "no memory for an orphan"),
    ("TcpExt", "TCPAbortOnTimeout", "timeout", "the other side did not answer any more"),
    ("TcpExt", "TCPAbortOnLinger", "linger-time", "the time of SO_LINGER or TCP_LINGER2 was over"),
    ("TcpExt", "TCPAbortFailed", "failed", "a reset could not be sent"),
];

pub(super) fn by_cause(machine: &Machine, grown: &Counters, seconds: f64) -> Vec<Reset> {
    let reset = |(group, name, cause, meaning): &(&str, &str, &str, &str)| {
        Some(Reset {
            cause: (*cause).to_owned(),
            meaning: (*meaning).to_owned(),
            total: machine.counters.get(group, name)?,
            per_s: grown.get(group, name).unwrap_or(0) as f64 / seconds,
        })
    };
    let mut all: Vec<Reset> = CAUSES.iter().filter_map(reset).collect();
    if machine.sysctls.abort_on_overflow == Some(true) {
        let overflow =
            ("TcpExt", "ListenOverflows", "queue-full", "the accept queue was full (tcp_abort_on_overflow)");
        all.extend(reset(&overflow));
    }
    all
}
