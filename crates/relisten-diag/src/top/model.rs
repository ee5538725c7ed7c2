use super::Reset;
use crate::machine::Missing;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What `relisten top --json` prints, one object per look. Fields are only ever added; what can't be known is `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Top {
    /// The kernel's release.
    pub kernel: String,
    /// The inode of the network namespace.
    pub namespace: u64,
    /// Rates are taken over this time, milliseconds.
    pub interval_ms: u64,
    /// Of the whole network namespace.
    pub totals: Totals,
    /// By address.
    pub groups: Vec<TopGroup>,
    /// What could not be known.
    pub missing: Vec<Missing>,
}

/// Of a whole network namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Totals {
    /// TCP sockets that are not listeners.
    pub sockets: u64,
    /// Established ones, both ends counted where both are here.
    pub established: u64,
    /// Half-open requests.
    pub half_open: u64,
    /// TIME_WAIT entries of connections that came to a listener.
    pub time_wait_in: u64,
    /// Other TIME_WAIT entries.
    pub time_wait_out: u64,
    /// Connections that came in, per second.
    pub opened_in_per_s: Option<f64>,
    /// Connections that were begun here, per second.
    pub opened_out_per_s: Option<f64>,
    /// How often a connection found an accept queue full, per second.
    pub overflows_per_s: Option<f64>,
    /// SYNs and final ACKs dropped at listeners, per second.
    pub drops_per_s: Option<f64>,
    /// Resets, by cause.
    pub resets: Vec<Reset>,
}

/// All listeners on one address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TopGroup {
    /// "tcp" or "udp".
    pub protocol: String,
    /// As bound.
    pub address: SocketAddr,
    /// The instance of relisten that runs it.
    pub instance: Option<InstanceLine>,
    /// TCP: connections that wait for accept. UDP: bytes that unread datagrams take.
    pub queue: u64,
    /// The limits of the queues, together.
    pub limit: u64,
    /// How long the oldest of those that wait has waited, milliseconds.
    pub oldest_ms: Option<u64>,
    /// Open connections that came here.
    pub active: Option<u64>,
    /// Half-open requests.
    pub half_open: Option<u64>,
    /// TIME_WAIT entries of connections that came here.
    pub time_wait: Option<u64>,
    /// Connections that came since the look before.
    pub accepted: Option<Accepts>,
    /// SYNs (UDP: datagrams) dropped since the listeners were opened.
    pub drops: Option<u64>,
    /// The same per second.
    pub drops_per_s: Option<f64>,
    /// One by one.
    pub listeners: Vec<TopListener>,
}

/// How many connections came: counted by relisten, or seen by looking twice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Accepts {
    /// Connections per second that were seen at the end of the interval and not at its beginning. What came and went
    /// in between, with this side not closing first, has left no trace: so there were at least so many.
    pub at_least_per_s: f64,
    /// And at most so many: the kernel counts all connections that come in to the network namespace, and those that were
    /// not seen may all have come here.
    pub at_most_per_s: Option<f64>,
    /// All were counted: there were exactly so many.
    pub exact: bool,
}

/// What an instance of relisten says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InstanceLine {
    /// Its name.
    pub name: String,
    /// The generation in force.
    pub generation: u32,
    /// "starting", "running", "reloading", "stopping".
    pub state: String,
    /// The steering policy in force.
    pub policy: String,
    /// Who carries it out.
    pub backend: String,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TopListener {
    /// Its inode.
    pub inode: u64,
    /// Its slot in an instance of relisten.
    pub slot: Option<u32>,
    /// "hung" (its queue does not shrink and somebody has waited for a second), "full", "foreign", "serving", or what
    /// the instance says, such as "draining".
    pub state: String,
    /// Its share of new connections in the instance, relative to the others.
    pub weight: Option<u32>,
    /// See [`TopGroup::queue`].
    pub queue: u64,
    /// The limit of that.
    pub limit: u64,
    /// Dropped since it was opened.
    pub drops: Option<u64>,
    /// The same per second.
    pub drops_per_s: Option<f64>,
    /// Connections accepted from it so far, where relisten counts them.
    pub accepted_total: Option<u64>,
    /// The same per second.
    pub accepted_per_s: Option<f64>,
    /// Connections moved away from it while its worker hung.
    pub rescued_total: Option<u64>,
    /// Those who hold it to serve it.
    pub workers: Vec<TopWorker>,
}

/// A process that serves a listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TopWorker {
    /// Its number.
    pub pid: u32,
    /// Its program's name.
    pub program: String,
    /// Its command line.
    pub command: String,
    /// The container it runs in.
    pub container: Option<String>,
    /// Its generation in an instance of relisten.
    pub generation: Option<u32>,
    /// Its state there.
    pub state: Option<String>,
    /// Open connections that came to this address and that it holds.
    pub active: Option<u64>,
    /// Its part of all those that the servers of this address hold, from 0 to 1.
    pub share: Option<f64>,
    /// The part that would be fair, from 0 to 1.
    pub fair_share: Option<f64>,
}
