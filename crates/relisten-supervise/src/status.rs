//! What `relisten status --json` says. Fields are only ever added. What can't be known with the privileges at
//! hand is `null`, never a guess.

use serde::{Deserialize, Serialize};

/// One instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Process ID of the supervisor.
    pub pid: u32,
    /// Version of relisten.
    pub version: String,
    /// Since its first start, milliseconds; a take-over does not reset it.
    pub uptime_ms: u64,
    /// The generation in force.
    pub generation: u32,
    /// "starting", "running", "reloading", "stopping".
    pub state: String,
    /// Who decides about new connections.
    pub steering: Steering,
    /// By address.
    pub listeners: Vec<Listener>,
    /// Every process, those that leave included.
    pub workers: Vec<Worker>,
    /// Since the first start.
    pub totals: Totals,
}

/// Who decides about new connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Steering {
    /// The policy in force.
    pub policy: String,
    /// "ebpf", "cbpf" or "kernel".
    pub backend: String,
    /// Can waiting connections move to another listener?
    pub migration: bool,
    /// What this machine or these privileges lack.
    pub missing: Vec<Missing>,
}

/// Something that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Its name, as `--require` takes it.
    pub feature: String,
    /// Why it is missing.
    pub why: String,
    /// What that costs, and how to get it.
    pub effect: String,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// As given with `--listen NAME=…`, else the address.
    pub name: String,
    /// As `--listen` would take it, with the port in force.
    pub address: String,
    /// "tcp", "udp" or "unix".
    pub protocol: String,
    /// The limit of the accept queue that is in force (somaxconn considered), connections.
    pub backlog: Option<u32>,
    /// How long the oldest of the connections that wait there has waited, milliseconds; 0: none waits.
    #[serde(default)]
    pub oldest_ms: Option<u64>,
    /// The instance's listeners on it.
    pub slots: Vec<Slot>,
    /// Sockets of others on it.
    pub foreign: Vec<Foreign>,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// The place.
    pub slot: u32,
    /// The socket's inode.
    pub inode: u64,
    /// "serving", "starting", "draining", "waiting" (its worker is lost), …
    pub state: String,
    /// Share of new connections, relative to the other slots.
    pub weight: u32,
    /// Connections that wait for `accept` now.
    pub queue: Option<u64>,
    /// SYNs and datagrams dropped on it.
    pub drops: Option<u64>,
    /// Open connections of its worker.
    pub active: Option<u64>,
    /// Connections accepted from it.
    pub accepted_total: Option<u64>,
    /// Connections moved away from it while its worker hung.
    pub rescued_total: Option<u64>,
}

/// A socket on the instance's address that the instance neither made nor adopted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// Its inode.
    pub inode: u64,
    /// A process that holds it.
    pub pid: Option<u32>,
    /// That process's command line.
    pub command: Option<String>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its process ID.
    pub pid: Option<u32>,
    /// Its place.
    pub slot: u32,
    /// Its generation.
    pub generation: u32,
    /// "starting", "ready", "draining", "stopping", "lost".
    pub state: String,
    /// How long it has been in that state, milliseconds.
    pub since_ms: u64,
    /// What a draining worker still has, in words.
    #[serde(default)]
    pub left: Option<String>,
    /// How often its slot was restarted after a loss.
    pub restarts: u32,
    /// Open connections.
    pub active: Option<u64>,
    /// Resident memory, bytes.
    pub rss_bytes: Option<u64>,
}

/// Counters since the first start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Reloads that were carried through.
    pub reloads: u64,
    /// Reloads that were rolled back.
    pub rollbacks: u64,
    /// Workers started because another was lost.
    pub restarts: u64,
    /// Workers found hung.
    pub hangs: u64,
    /// Queues moved away from a hung worker.
    pub rescues: u64,
    /// Connections moved by that.
    pub rescued: u64,
    /// Times that somebody had taken our steering program off a group, and it was put back.
    pub programs_restored: u64,
    /// Connections the kernel moved to another listener (of the whole network namespace).
    pub migrated: Option<u64>,
    /// Connections it could not move.
    pub migrate_failed: Option<u64>,
    /// Connections cut because `--drain` was over.
    pub cut: u64,
    /// Lines of worker output that had to be dropped.
    pub output_dropped: u64,
}
