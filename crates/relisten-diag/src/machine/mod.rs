//! A machine at one moment, as seen from one network namespace: listeners in groups and who holds them, connections,
//! counters, settings. What top shows and doctor judges.
//!
//! [`Machine::look`] reads it; nothing of the system is changed. Memory stays bounded however many sockets there are:
//! 16 bytes per connection that came to a listener, up to two million of them.

mod connections;
mod container;
mod descriptors;
mod destinations;
mod instance;
mod kernel;
mod linger;
mod listener;
mod look;
pub mod migration;
pub mod namespace;
mod process;
pub mod settings;
mod slab;
mod sysctl;
mod watching;

pub use connections::Connections;
pub use container::container;
pub use destinations::{Destination, Outbound, RATE_SECONDS};
pub use instance::{Instance, Slot, Worker};
pub use kernel::Kernel;
pub use listener::{Before, Group, Holder, Listener, Watch};
pub use look::Options;
pub use namespace::{Namespace, OtherNamespace, Which};
pub use process::{Linger, Process};
pub use settings::Setting;
pub use slab::{Cache, Slab};
pub use sysctl::{Sysctls, TIME_WAIT_MS};

use crate::SocketInode;
use crate::counters::Counters;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one look has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// The kernel.
    pub kernel: Kernel,
    /// Whose sockets these are.
    pub namespace: Namespace,
    /// Between the first figures and the last, milliseconds.
    pub window_ms: u64,
    /// Listeners by address.
    pub groups: Vec<Group>,
    /// All other TCP sockets, counted.
    pub connections: Connections,
    /// The namespace's counters, since it was made.
    pub counters: Counters,
    /// Connections that had come in right before and right after the walk over all sockets (`PassiveOpens`).
    pub opened_in: Option<(u64, u64)>,
    /// By how much they have grown during the window.
    pub grown: Counters,
    /// The namespace's settings.
    pub sysctls: Sysctls,
    /// Settings in configuration files.
    pub settings: Vec<Setting>,
    /// What sockets take of the kernel's memory.
    pub slab: Slab,
    /// The machine's memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Processes that hold something of interest.
    pub processes: BTreeMap<u32, Process>,
    /// relisten's own instances.
    pub instances: Vec<Instance>,
    /// What moving a queue to another listener does on this kernel, where that was tried.
    pub migration: Option<Migration>,
    /// Other network namespaces that can be seen.
    pub other_namespaces: Vec<OtherNamespace>,
    /// What could not be known, and why.
    pub missing: Vec<Missing>,
    pub(crate) peers: Option<Vec<u64>>,
}

/// What happens to the queue of a listener that is closed while another of its group lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Migration {
    /// It moves, and who waits on the other is woken.
    Works,
    /// It moves, but nobody is woken for it.
    DoesNotWake,
    /// It is reset: this kernel can't move it.
    Absent,
}

/// Something that could not be known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Missing {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
    /// What is not said because of that, and how to get it.
    pub effect: String,
}

impl Missing {
    pub(crate) fn new(what: &str, why: &str, effect: &str) -> Self {
        Self { what: what.to_owned(), why: why.to_owned(), effect: effect.to_owned() }
    }
}

impl Machine {
    /// The instance that a listener belongs to, and its place there.
    pub fn slot(&self, inode: SocketInode) -> Option<(&Instance, &Slot)> {
        self.instances.iter().find_map(|instance| Some((instance, instance.slots.get(&inode)?)))
    }

    /// `nginx (pid 17)`, with the container where there is one.
    pub fn process_name(&self, pid: u32) -> String {
        match self.processes.get(&pid) {
            Some(Process { program, container: Some(container), .. }) => {
                format!("{program} (pid {pid} in {container})")
            }
            Some(process) => format!("{} (pid {pid})", process.program),
            None => format!("pid {pid}"),
        }
    }

    /// Those who hold this listener to serve it, not to keep it for others.
    pub fn servers<'a>(&'a self, listener: &'a Listener) -> impl Iterator<Item = &'a Holder> {
        let keeps = |holder: &Holder| {
            self.processes.get(&holder.pid).is_some_and(|process| process.keeps_for_others(holder.pid))
        };
        // A supervisor's built-in worker has the supervisor's name: then nobody keeps it for others.
        let all_keep = listener.holders.iter().all(keeps);
        listener.holders.iter().filter(move |holder| all_keep || !keeps(holder))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        /// Whatever a kernel or a user has written into a file.
        #[test]
        fn parsers_never_panic(text in any::<String>(), bytes in any::<Vec<u8>>()) {
            super::sysctl::parse_anything(&text);
            super::watching::parse(&text);
            super::watching::parse(&format!("tfd:{text}"));
            super::container::of_cgroups(&format!("0::/{text}"));
            super::process::parse_anything(&bytes, &text);
            super::kernel::Kernel::parse(&text, &text);
            super::slab::Slab::parse(&format!("tw_sock_TCP {text}"));
            super::settings::parse(std::path::Path::new("/x"), &text);
        }
    }
}
