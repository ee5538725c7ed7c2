//! What is meant by `PORT|PID`, and what it is called.

use super::error::{AttachError, system};
use super::members;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// The port that is meant.
pub(super) fn port_of(target: u32) -> Result<u16, AttachError> {
    let port = u16::try_from(target).ok().filter(|port| *port > 0);
    if let Some(port) = port
        && !members::listening(port).map_err(system("look at the sockets"))?.is_empty()
    {
        return Ok(port);
    }
    let ports: Vec<u16> =
        members::ports_of(target).map_err(system("look at the processes"))?.into_iter().collect();
    match (&ports[..], port) {
        ([one], _) => Ok(*one),
        ([], Some(port)) => Err(AttachError::NoListener(port)),
        ([], None) => Err(AttachError::Nothing(target)),
        _ => Err(AttachError::Ambiguous { pid: target, ports }),
    }
}

/// By which it is found, as an instance is by its name. A port is a network namespace's own, so elsewhere than in the one
/// of the first process its number belongs to the name.
pub(super) fn name(port: u16) -> String {
    let namespace = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/net")).map(|file| file.ino());
    match (namespace("self"), namespace("1")) {
        (Ok(own), Ok(first)) if own != first => format!("port-{port}-{own}"),
        _ => format!("port-{port}"),
    }
}
