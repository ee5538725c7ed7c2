//! Commands to a running instance: find it, ask it, say what came of it.

mod progress;
mod reload;
mod scale;
mod status;
mod steer;
mod stop;

pub(crate) use reload::reload;
pub(crate) use scale::scale;
pub(crate) use status::status;
pub(crate) use steer::{steer, weight};
pub(crate) use stop::stop;

use crate::cli::Reach;
use crate::exit::Exit;
use crate::render::printable;
use crate::say;
use relisten_supervise::runtime::control::{Client, ClientError, InstanceState, instance_of, list_instances};
use std::time::Duration;

/// An instance answers questions about itself at once; if it doesn't, it is stopped or worse.
const PATIENCE: Duration = Duration::from_secs(5);

/// An instance that was found.
struct Target {
    /// As it is called in messages.
    name: String,
    client: Client,
    /// Its supervisor, where the kernel could tell.
    pid: Option<u32>,
}

/// The instance that is meant.
fn find(reach: &Reach) -> Result<Target, ClientError> {
    if let Some(control) = &reach.control {
        let client = Client::new(control);
        // Names are for people; one that can't be had now is no obstacle.
        let status = client.clone().timeout(PATIENCE).status()?;
        return Ok(Target { name: status.name, client, pid: Some(status.pid) });
    }
    let found = instance_of(reach.name.as_deref())?;
    let pid = match found.state {
        InstanceState::Runs(pid) => pid,
        InstanceState::Forbidden => return Err(ClientError::Permission { path: found.control }),
        InstanceState::Kept | InstanceState::Dead => None,
    };
    Ok(Target { name: found.name, client: Client::new(found.control), pid })
}

/// Says why an instance did not do as asked.
pub(crate) fn complain(error: &ClientError) -> Exit {
    let lines = match error {
        ClientError::Refused(problem) => &problem.lines[..],
        _ => &[],
    };
    say::error(&printable(&say::chain(error)), None);
    if !lines.is_empty() {
        say::line("\nthe last lines of the worker:");
        for line in lines {
            say::line(&format!("  | {}", printable(line)));
        }
    }
    let cure = error.cure();
    if !cure.is_empty() {
        say::tip(&printable(&cure));
    }
    if matches!(error, ClientError::NoInstance { name: None, .. }) {
        say_who_is_kept();
    }
    exit_of(error)
}

fn exit_of(error: &ClientError) -> Exit {
    match error {
        ClientError::NoInstance { .. }
        | ClientError::Ambiguous { .. }
        | ClientError::Stale { .. }
        | ClientError::Kept { .. } => Exit::NoInstance,
        _ => Exit::Failed,
    }
}

/// Instances without a supervisor don't run, but their workers may: nobody should take that for nothing.
fn say_who_is_kept() {
    for instance in list_instances().iter().filter(|instance| instance.state == InstanceState::Kept) {
        let error = ClientError::Kept { name: instance.name.clone() };
        say::note(&format!("{error}: {}", error.cure()));
    }
}
