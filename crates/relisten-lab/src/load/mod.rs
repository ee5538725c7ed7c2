//! An HTTP/1.1 load client that accounts for every connection.
//!
//! Ordinary load tools hide losses: they connect again in silence. This one gives every attempt exactly one
//! [`Fate`] and checks at the end that the fates add up to the attempts, and the ends of the connections to
//! the connections. It speaks HTTP/1.1 by itself over plain sockets (or TLS), because a client library
//! reports many different fates as one error.
//!
//! The words: a *request* is what the user wants done. It takes one *attempt*, or several with
//! [`Plan::retry`]. An attempt runs on a *connection*, a new one or, with [`Plan::keep_alive`], one that
//! answered before.
//!
//! ```no_run
//! use relisten_lab::load::{Plan, Runner};
//! use std::time::Duration;
//!
//! let plan = Plan::get("http://127.0.0.1:8080/")?;
//! let runner = Runner::start(plan)?;
//! runner.wait_until(Duration::from_secs(5), |seen| seen.completed >= 1000);
//! // … the fault that is to be tried …
//! let report = runner.stop();
//! assert_eq!(report.lost, 0, "{report}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod attempt;
mod engine;
mod fate;
mod pacer;
mod plan;
mod report;
mod runner;
#[doc(hidden)]
pub mod seam;
mod source;
mod stream;
mod tally;
mod target;
mod tls;

pub use fate::{ConnectionEnd, Fate, FateCounts};
pub use plan::{Expect, KeepAlive, Pace, Plan, PlanError};
pub use report::{Attempts, Connections, Interval, Percentiles, Report, Requests};
pub use runner::{Runner, Snapshot, StartError, run};
pub use source::{SourceError, SourceRange};
pub use target::{Target, TargetAddress, TargetError};
pub use tls::{TlsError, Trust};
