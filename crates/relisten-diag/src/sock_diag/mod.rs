//! Sockets over netlink: sock_diag(7).
//!
//! A [`SockDiag`] asks about the network namespace in which it was opened, whatever the calling thread does
//! later. It sees every socket there, of every user, without privilege. The dump is no snapshot: sockets come
//! and go while it runs, and one that shares a hash bucket with others may be missed or seen twice when the
//! bucket changes between two parts of the answer. Whoever needs certainty looks twice.

mod client;
mod query;
mod socket;
mod state;
mod tcp_info;
mod wire;

pub use client::SockDiag;
pub use query::{Extensions, Family, Protocol, Query};
pub use socket::{Attribute, Memory, Socket, Timer, TimerKind};
pub use state::{State, States};
pub use tcp_info::TcpInfo;
