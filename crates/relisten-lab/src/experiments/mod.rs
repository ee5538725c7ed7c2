//! The experiments, one file each.

mod balance;
mod change;
mod connect_udp;
mod cost;
mod group;
mod hang;
mod herd;
mod loss;
mod measure;
mod moving;
mod peers;
mod servers;
mod steal;
mod stopped;
mod timewait;
mod walk;

pub use measure::Account;

use crate::experiment::Experiment;

/// All of them, in the order of reports.
pub const ALL: &[&dyn Experiment] = &[
    &herd::Herd,
    &balance::Balance,
    &loss::Loss,
    &hang::Hang,
    &change::Reload,
    &change::Scale,
    &peers::Peers,
    &steal::Steal,
    &cost::Cost,
    &walk::Walk,
    &moving::Remap,
    &moving::Udp,
    &connect_udp::ConnectUdp,
    &timewait::TimeWait,
];

/// By its name.
pub fn find(name: &str) -> Option<&'static dyn Experiment> {
    ALL.iter().copied().find(|experiment| experiment.name() == name)
}
