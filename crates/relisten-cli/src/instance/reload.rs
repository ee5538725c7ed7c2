//! `relisten reload`.

use super::progress::Progress;
use super::{complain, exit_of, find};
use crate::cli::ReloadArgs;
use crate::exit::Exit;
use crate::say;
use relisten_supervise::runtime::control::ClientError;

/// Reloads, and says how far it is while it waits at a terminal.
pub(crate) fn reload(args: &ReloadArgs) -> Exit {
    let target = match find(&args.reach) {
        Ok(target) => target,
        Err(error) => return complain(&error),
    };
    let answer = Progress::show_while(&target.client, || target.client.reload(args.wait));
    match answer {
        Ok(done) if args.json => say::out(format!("{{\"generation\":{}}}\n", done.generation).as_bytes()),
        Ok(done) => {
            let what = if args.wait { "serves, the old workers are gone" } else { "serves" };
            say::out(format!("{}: generation {} {what}\n", target.name, done.generation).as_bytes())
        }
        Err(error) if args.json => problem(&error),
        Err(error) => complain(&error),
    }
}

/// A failure for programs: what the instance said, or what was wrong with asking it.
pub(super) fn problem(error: &ClientError) -> Exit {
    let body = match error {
        ClientError::Refused(problem) => serde_json::to_string(problem),
        other => {
            serde_json::to_string(&serde_json::json!({ "error": other.to_string(), "cure": other.cure() }))
        }
    };
    match body {
        Ok(body) => match say::out(format!("{body}\n").as_bytes()) {
            Exit::Done => exit_of(error),
            failed => failed,
        },
        Err(_) => complain(error),
    }
}
