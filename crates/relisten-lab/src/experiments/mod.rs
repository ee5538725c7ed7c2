//! The experiments, one file each.

mod balance;
mod change;
mod cost;
mod group;
mod hang;
mod herd;
mod loss;
mod measure;
mod servers;
mod steal;

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
    &steal::Steal,
    &cost::Cost,
];

/// By its name.
pub fn find(name: &str) -> Option<&'static dyn Experiment> {
    ALL.iter().copied().find(|experiment| experiment.name() == name)
}
