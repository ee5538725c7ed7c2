//! What decides the slot of a new connection, and the classic BPF programs that carry it out.

mod asm;
mod exception;
#[cfg(test)]
mod interpret;
#[cfg(test)]
mod on_sockets;
mod policy;
mod program;
mod rendezvous;
#[cfg(test)]
mod tests;

pub use exception::with_exception;
pub use policy::{ForClassicBpf, Policy, UnknownPolicy};
pub use program::{MAX_TARGETS, ProgramError, Target, program};
pub use relisten_sys::filter::Instruction;
pub use rendezvous::{Draw, client_hash};
