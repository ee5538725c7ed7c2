//! Harness of the end-to-end tests.
//!
//! Every test runs in network, process and mount namespaces of its own ([`Test::run`]): it can use any port, and
//! nothing that it started can outlive it. Real servers are described by [`Server`]; [`Relisten`] is a running
//! instance; [`load`] accounts for every connection's fate.
//!
//! Environment:
//!
//! | variable | meaning |
//! |---|---|
//! | `RELISTEN_BIN` | the binary under test; without it the harness builds one (profile `e2e`) |
//! | `RELISTEN_FULL` | whole rounds instead of shortened ones |
//! | `RELISTEN_E2E_UNPRIVILEGED` | run the tests as an ordinary user with `no_new_privs`, also when started by root |
//! | `RELISTEN_ALLOW_MISSING` | a test whose server is not installed is skipped (and listed), it does not fail |
//! | `RELISTEN_SKIPPED` | file to which skipped tests are appended, one per line |
//! | `RELISTEN_E2E_VERBOSE` | show the output of tests that pass |
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "the harness talks to whoever reads the test's output")]

pub mod attached;
mod binary;
pub mod campaign;
pub mod capture;
pub mod http;
mod isolate;
pub mod late;
pub mod load;
mod per_server;
pub mod process;
pub mod puppet;
mod relisten;
pub mod rogue;
mod scene;
pub mod server;
mod skip;
pub mod sockets;
pub mod status;
pub mod trace;
mod traces;
mod wait;
pub mod wire;

pub use isolate::Test;
pub use relisten::{Builder, Finished, Relisten, cli};
pub use scene::Scene;
pub use server::{Kind, Server};
pub use status::Status;
pub use traces::Traces;
pub use wait::{wait_for, wait_until};

use std::time::Duration;

/// Whole rounds instead of shortened ones?
pub fn full() -> bool {
    std::env::var_os("RELISTEN_FULL").is_some_and(|value| value == "1")
}

/// `long` when whole rounds are asked for, else `short`.
pub fn rounds<T>(short: T, long: T) -> T {
    if full() { long } else { short }
}

/// Shorthand.
pub fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Shorthand.
pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
