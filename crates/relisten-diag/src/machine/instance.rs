//! What relisten's own instances say of themselves, as far as it matters here.

use crate::SocketInode;
use std::collections::{BTreeMap, BTreeSet};

/// One instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Its supervisor.
    pub pid: u32,
    /// The generation in force.
    pub generation: u32,
    /// "starting", "running", "reloading", "stopping".
    pub state: String,
    /// The steering policy in force.
    pub policy: String,
    /// Who carries it out.
    pub backend: String,
    /// Its listeners.
    pub slots: BTreeMap<SocketInode, Slot>,
    /// Members of its groups that it neither made nor adopted.
    pub foreign: BTreeSet<SocketInode>,
    /// Its workers, by process number.
    pub workers: BTreeMap<u32, Worker>,
}

/// A listener of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// The place.
    pub slot: u32,
    /// "serving", "draining", …
    pub state: String,
    /// Its share of new connections, relative to the others.
    pub weight: u32,
    /// Connections accepted from it so far.
    pub accepted_total: Option<u64>,
    /// Connections moved away from it so far.
    pub rescued_total: Option<u64>,
}

/// A worker of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worker {
    /// Its place.
    pub slot: u32,
    /// Its generation.
    pub generation: u32,
    /// "starting", "ready", "draining", "stopping", "hung", "lost".
    pub state: String,
}
