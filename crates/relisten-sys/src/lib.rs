//! The only unsafe code of relisten: one typed function per kernel facility that rustix does not have.
//!
//! Linux only. Each function names its system call, the kernel it needs and its errors.
#![allow(unsafe_code, reason = "so that no other crate needs any")]

pub mod bpf;
pub mod calls;
pub mod daemon;
pub mod epoll;
pub mod fd;
pub mod filter;
pub mod membarrier;
pub mod memory;
pub mod netns;
pub mod reuseport;
pub mod seccomp;
pub mod sockopt;
pub mod spawn;
pub mod still;
pub mod stray;
pub mod tcp;
pub mod urgent;
#[cfg(feature = "uring")]
pub mod uring;
