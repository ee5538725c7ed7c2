//! The supervisor of relisten.
//!
//! [`core`] decides: state and event in, actions out, without I/O and without a clock.
//! `runtime` talks to the world: it turns what happens into events and performs the actions.
#![forbid(unsafe_code)]

mod async_fd;
pub mod attach;
mod caller;
pub mod core;
pub mod hang;
pub mod keeper;
pub mod loader;
pub mod metrics;
pub mod runtime;
mod sockets;
pub mod spec;
pub mod status;
mod unix;
