//! What became of a connection that was refused, reset, dropped or moved, and why.
//!
//! The [`Engine`] takes in what the kernel's programs tell ([`relisten_bpf::trace::Record`]) and what is looked up
//! from time to time (a [`Look`]: listeners with their owners, counters, settings), and gives out [`Fate`]s. It does no
//! I/O and has no clock of its own; time comes in with records and looks. Without records it works from looks alone
//! and knows numbers instead of clients.
//!
//! Names of the kernel's reasons come from the kernel itself ([`Names`]): their numbers differ from version to version.

mod btf;
mod cause;
mod classic;
mod closing;
mod counted;
mod drops;
mod engine;
mod explain;
mod fate;
mod handshake;
mod line;
mod look;
mod names;
mod resets;
mod seen;
mod summary;
mod symbols;
mod words;

pub use cause::Cause;
pub use classic::Classic;
pub use engine::Engine;
pub use fate::{Fate, Outcome, Owner, Phase, Place, Transport, Worker};
pub use handshake::{
    Choosing, End, Handshake, HandshakePacket, Handshakes, Header, Lookup, Picked, RanIn, RequestSeen,
    ResetSeen, SocketSeen,
};
pub use line::{Level, Line};
pub use look::{KnownListener, Look, Settings};
pub use names::Names;
pub use summary::{FailedConnects, Summary};
pub use symbols::Symbols;
