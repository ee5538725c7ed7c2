//! The experiments, one file each.

mod herd;
mod measure;

pub use measure::Account;

use crate::experiment::Experiment;

/// All of them, in the order of reports.
pub const ALL: &[&dyn Experiment] = &[&herd::Herd];

/// By its name.
pub fn find(name: &str) -> Option<&'static dyn Experiment> {
    ALL.iter().copied().find(|experiment| experiment.name() == name)
}
