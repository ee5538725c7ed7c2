//! `relisten scale`.

use super::progress::Progress;
use super::reload::problem;
use super::{PATIENCE, complain, find};
use crate::cli::ScaleArgs;
use crate::exit::Exit;
use crate::say;

/// Asks for another number of workers, and waits until all of them serve.
pub(crate) fn scale(args: &ScaleArgs) -> Exit {
    let target = match find(&args.reach) {
        Ok(target) => target,
        Err(error) => return complain(&error),
    };
    let workers = args.workers.0;
    let answer = if args.no_wait {
        target.client.timeout(PATIENCE).scale(workers, false)
    } else {
        Progress::show_while(&target.client, || target.client.scale(workers, true))
    };
    match answer {
        Ok(done) if args.json => {
            say::out(format!("{{\"generation\":{},\"workers\":{workers}}}\n", done.generation).as_bytes())
        }
        Ok(_) => {
            let noun = if workers == 1 { "worker" } else { "workers" };
            let what = match (args.no_wait, workers) {
                (true, _) => "from now on",
                (false, 1) => "serves",
                (false, _) => "serve",
            };
            say::out(format!("{}: {workers} {noun} {what}\n", target.name).as_bytes())
        }
        Err(error) if args.json => problem(&error),
        Err(error) => complain(&error),
    }
}
