//! What `relisten status --json` says, as the contract has it. Declared here once more on purpose: a field that
//! is renamed in the product fails here.

use serde::Deserialize;

/// One instance.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's")]
pub struct Status {
    pub name: String,
    pub pid: u32,
    pub version: String,
    pub uptime_ms: u64,
    pub generation: u32,
    pub state: String,
    pub steering: Steering,
    pub listeners: Vec<Listener>,
    pub workers: Vec<Worker>,
    pub totals: Totals,
}

/// Who decides about new connections.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's")]
pub struct Steering {
    pub policy: String,
    pub backend: String,
    pub migration: bool,
    pub missing: Vec<Missing>,
}

/// Something that is not there.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's")]
pub struct Missing {
    pub feature: String,
    pub why: String,
    pub effect: String,
}

/// One address.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's")]
pub struct Listener {
    pub name: String,
    pub address: String,
    pub protocol: String,
    pub backlog: Option<u32>,
    pub slots: Vec<Slot>,
    pub foreign: Vec<Foreign>,
}

/// One listener.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's")]
pub struct Slot {
    pub slot: u32,
    pub inode: u64,
    pub state: String,
    pub weight: u32,
    pub queue: Option<u64>,
    pub drops: Option<u64>,
    pub active: Option<u64>,
    pub accepted_total: Option<u64>,
    pub rescued_total: Option<u64>,
}

/// A socket of somebody else.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's")]
pub struct Foreign {
    pub inode: u64,
    pub pid: Option<u32>,
    pub command: Option<String>,
}

/// One process.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's")]
pub struct Worker {
    pub pid: Option<u32>,
    pub slot: u32,
    pub generation: u32,
    pub state: String,
    pub since_ms: u64,
    pub restarts: u32,
    pub active: Option<u64>,
    pub rss_bytes: Option<u64>,
}

/// Counters.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's")]
pub struct Totals {
    pub reloads: u64,
    pub restarts: u64,
    pub hangs: u64,
    pub rescues: u64,
    pub rescued: u64,
    pub programs_restored: u64,
    pub cut: u64,
    pub migrated: Option<u64>,
    pub migrate_failed: Option<u64>,
}

impl Status {
    /// Workers that are ready.
    pub fn ready(&self) -> Vec<&Worker> {
        self.workers.iter().filter(|worker| worker.state == "ready").collect()
    }

    /// Process IDs of the workers that are ready.
    pub fn pids(&self) -> Vec<u32> {
        self.ready().iter().filter_map(|worker| worker.pid).collect()
    }

    /// Runs, with exactly these many workers, all ready: nobody starts or leaves.
    pub fn settled(&self, workers: usize) -> bool {
        self.state == "running" && self.workers.len() == workers && self.ready().len() == workers
    }
}
