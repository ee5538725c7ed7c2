//! What the kernel says about sockets.
//!
//! - [`sock_diag`]: every socket of a network namespace, with queue lengths and the times of its last data, over
//!   netlink. No privilege needed.
//! - [`process`] and [`owner`]: which processes belong to a worker, and which of them hold a socket.
//! - [`unix`]: the connections of Unix sockets, by name.
//! - [`counters`]: `/proc/net/snmp` and `/proc/net/netstat`.
//! - [`trace`]: what became of a connection that was refused, reset, dropped or moved, and why.
//! - [`machine`]: all of it at one moment, for `relisten top` and `relisten doctor`.
//! - [`doctor`]: what is wrong with it. [`top`]: how it changes.
//! - [`quiet`]: has a leaving worker anything left to lose?
//!
//! Everything here only reads; nothing of the system is changed.
#![forbid(unsafe_code)]

pub mod counters;
pub mod doctor;
mod endpoint;
mod error;
pub mod machine;
pub mod owner;
pub mod process;
mod queue_age;
pub mod quiet;
#[cfg(test)]
mod schema;
pub mod sock_diag;
pub mod top;
pub mod trace;
pub mod unix;
pub mod waiting;

pub use endpoint::Endpoint;
pub use error::DiagError;
pub use queue_age::oldest_waiting;
pub use relisten::{SocketCookie, SocketInode};
