//! One port, many workers.
//!
//! Addresses, listeners, reuseport groups and their steering, the systemd socket protocol in both directions,
//! and the worker's side of relisten. Linux only.
//!
//! Several threads that share a port, without any supervisor:
//!
//! ```no_run
//! use relisten::address::Address;
//! use relisten::listener::{ListenOptions, Listener};
//! use std::net::TcpListener;
//!
//! let endpoints = "127.0.0.1:8080".parse::<Address>()?.resolve()?;
//! for _ in 0..4 {
//!     let listener: TcpListener = Listener::open(&endpoints[0], &ListenOptions::default())?.into();
//!     std::thread::spawn(move || for connection in listener.incoming() { /* serve */ });
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod address;
pub mod dispatch;
pub mod group;
pub mod id;
pub mod listener;
pub mod steer;
pub mod systemd;
pub mod worker;

pub use id::{Generation, SlotId, SocketCookie, SocketInode};
