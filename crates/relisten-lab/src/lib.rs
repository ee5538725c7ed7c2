//! Phenomena of listeners reproduced on this kernel, measured and drawn; and the load client.
//!
//! An [`Experiment`](experiment::Experiment) gives an [`Outcome`](outcome::Outcome): tables, plots and checks as data.
//! [`run`](run::run) runs each in a process and namespaces of its own and makes a [`Report`](report::Report) of them.
#![forbid(unsafe_code)]

pub mod crew;
pub mod experiment;
pub mod experiments;
pub mod load;
pub mod models;
pub mod outcome;
pub mod report;
pub mod run;
pub mod simulate;
pub mod steered;
