//! The experiments, one file each.

mod cost;
mod group;
mod herd;
mod measure;
mod steal;

pub use measure::Account;

use crate::experiment::Experiment;

/// All of them, in the order of reports.
pub const ALL: &[&dyn Experiment] = &[&herd::Herd, &steal::Steal, &cost::Cost];

/// By its name.
pub fn find(name: &str) -> Option<&'static dyn Experiment> {
    ALL.iter().copied().find(|experiment| experiment.name() == name)
}
