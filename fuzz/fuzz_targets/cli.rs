//! What the parser of the configuration file needs of the command line.

#[path = "../../crates/relisten-cli/src/cli/address.rs"]
mod address;
#[path = "../../crates/relisten-cli/src/cli/run.rs"]
mod run;
#[path = "../../crates/relisten-cli/src/cli/values.rs"]
mod values;

pub(crate) use run::RunOptions;
