//! Steering in the kernel: eBPF programs that choose the listener of a new connection, and count open ones.
//!
//! The programs are C (`bpf/` in this crate), and the object built from them is committed, so that nobody needs
//! clang to build relisten; `cargo xtask bpf` builds it again. They need Linux 5.17, CAP_BPF and CAP_NET_ADMIN to be
//! loaded, and nothing to be used afterwards.
//!
//! The way of a program, one type for each stage:
//!
//! 1. [`Loaded`]: programs and maps are in the kernel. Loading takes memory (aya, the object, its type information),
//!    so a short-lived process does it and passes the [`Descriptors`] on; a supervisor's successor gets them too.
//! 2. [`Steering`]: shape and version of the maps are checked, and their memory is mapped. From here on what is
//!    said to the programs is a store, not a system call.
//! 3. [`Group`], in three states: [`Empty`](group::Empty), [`Published`](group::Published) (it has a [`Table`] of
//!    listeners to choose from) and [`Attached`](group::Attached) (the program is in force).
//!
//! Dropping any of these takes nothing back. A group keeps its program, and the program its maps, as long as the
//! group has a member; it goes on steering by what was published last. When no listener that it knows is left, the
//! kernel's hash over the members takes over. Counting ends when the last descriptor of [`Counting`] is closed.

#![forbid(unsafe_code)]

pub mod abi;
mod avoid;
pub mod cgroup;
mod counting;
mod counts;
mod descriptors;
mod error;
pub mod group;
mod key;
mod listener;
mod loaded;
mod maps;
mod policy;
mod rescue;
mod steering;
mod table;
pub mod trace;

pub use avoid::Avoid;
pub use counting::Counting;
pub use counts::{GroupCounts, ListenerCounts};
pub use descriptors::{Descriptors, Kind, MissingDescriptor};
pub use error::{LoadError, OpenError};
pub use group::Group;
pub use key::{GroupId, ListenerKey};
pub use listener::Listener;
pub use loaded::{Loaded, OBJECT};
pub use policy::Policy;
pub use rescue::{RescueError, Rescued};
pub use steering::Steering;
pub use table::{Choice, Table, TableError};
