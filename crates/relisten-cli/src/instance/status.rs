//! `relisten status`.

use super::{PATIENCE, Target, complain, find};
use crate::cli::{Reach, StatusArgs};
use crate::exit::Exit;
use crate::render::{self, Paint};
use crate::say;
use relisten_supervise::runtime::control::{Client, ClientError, InstanceState, list_instances};
use std::io::IsTerminal;
use std::time::Duration;

/// From one look to the next of `--watch`.
const EVERY: Duration = Duration::from_secs(1);

/// Shows it once, or again and again.
pub(crate) fn status(args: &StatusArgs) -> Exit {
    loop {
        let shown = match look(&args.reach, args.json) {
            Ok(text) => text,
            Err(error) => return complain(&error),
        };
        let clear = args.watch && !args.json && std::io::stdout().is_terminal();
        let text = if clear { format!("\x1b[H\x1b[2J{shown}") } else { shown };
        let exit = say::out(text.as_bytes());
        if !args.watch || exit != Exit::Done {
            return exit;
        }
        std::thread::sleep(EVERY);
    }
}

fn look(reach: &Reach, json: bool) -> Result<String, ClientError> {
    let targets = match find(reach) {
        Ok(target) => vec![target],
        // Without a name that is no mistake here, but a wish to see them all.
        Err(ClientError::Ambiguous { .. }) => running(),
        Err(error) => return Err(error),
    };
    let alone = targets.len() == 1;
    let mut lines = String::new();
    let mut all = Vec::new();
    for target in targets {
        let client = target.client.timeout(PATIENCE);
        let one = if json {
            raw(&client).map(|line| lines.push_str(&line))
        } else {
            client.status().map(|s| all.push(s))
        };
        match one {
            Ok(()) => {}
            Err(error) if alone => return Err(error),
            // One that ends while we look is not in the way of the others.
            Err(error) => say::note(&format!("{}: {error}", target.name)),
        }
    }
    Ok(match &all[..] {
        _ if json => lines,
        [status] if alone => render::status(status, Paint::stdout()),
        several => render::list(several, Paint::stdout()),
    })
}

fn running() -> Vec<Target> {
    list_instances()
        .into_iter()
        .filter_map(|instance| match instance.state {
            InstanceState::Runs(pid) => {
                Some(Target { name: instance.name, client: Client::new(instance.control), pid })
            }
            _ => None,
        })
        .collect()
}

/// What the instance says, as it says it, on one line: a newer instance may say more than this program knows.
fn raw(client: &Client) -> Result<String, ClientError> {
    let body = client.request("GET", "/status", "")?;
    let value: Box<serde_json::value::RawValue> =
        serde_json::from_slice(&body).map_err(|error| ClientError::Nonsense(error.to_string()))?;
    Ok(format!("{}\n", value.get().replace(['\n', '\r'], " ")))
}
