//! Handshakes, packet by packet: which listener each packet was looked up to, and how that came about.

mod collect;
mod model;

pub use collect::Handshakes;
pub use model::{
    Choosing, End, Handshake, HandshakePacket, Header, Lookup, Picked, RanIn, RequestSeen, ResetSeen,
    SocketSeen,
};
