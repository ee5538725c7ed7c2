//! Looks before leaping: what would fail later, deep in a worker's start, is found here, with its cause.

pub(crate) mod command;
pub(crate) mod name;
pub(crate) mod privilege;
pub(crate) mod user;
