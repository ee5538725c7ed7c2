//! Looks at real sockets: each test in a network namespace of its own, in which it is root (or as good as).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod isolate;
mod look;
mod rules;
