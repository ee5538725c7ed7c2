//! What becomes of connections, told by programs in the kernel as it happens (`bpf/trace.bpf.c`).
//!
//! [`Tracer::load`] puts the maps into the kernel. Nothing is attached then: each [`Probe`] is attached by itself,
//! because each may be refused by itself, and because some cost something for every packet and are needed for a
//! while only. What they tell is a [`Record`], read from a ring that is 4 MiB large; what does not fit is counted
//! ([`Lost`]). Dropping the tracer detaches everything.
//!
//! Needs Linux 5.17, its type information (`/sys/kernel/btf/vmlinux`), CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN);
//! for the probes on cgroups also CAP_NET_ADMIN.
//!
//! [`Tracer::load_packets`] does the same for the packets of one port's handshakes, one by one ([`Sighting`]).

mod config;
mod error;
mod probe;
mod record;
mod sighting;
mod tracer;

pub use config::{Config, Lost, REASONS};
pub use error::{ProbeError, TraceError};
pub use probe::Probe;
pub use record::{Kind, Malformed, Packet, Record, Way};
pub use sighting::{ByHash, Program, Request, Sighting, What};
pub use tracer::Tracer;

/// The object file. Built by `cargo xtask bpf`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/trace.bpf.o");

/// The object file with the programs for single packets.
pub static PACKETS_OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/packets.bpf.o");
