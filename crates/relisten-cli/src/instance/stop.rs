//! `relisten stop`.

use super::progress::Progress;
use super::{Target, complain, find};
use crate::cli::StopArgs;
use crate::exit::Exit;
use crate::say;
use relisten_supervise::runtime::control::{Client, ClientError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How often to look whether the instance is gone where its process can't be watched.
const LOOK: Duration = Duration::from_millis(50);

/// Asks for the end, and waits for it.
pub(crate) fn stop(args: &StopArgs) -> Exit {
    let target = match find(&args.reach) {
        Ok(target) => target,
        Err(error) => return complain(&error),
    };
    let until = args.timeout.map(|timeout| Instant::now() + timeout.0);
    // Before the request: afterwards the number could belong to another process.
    let process = watch(&target);
    let client = match args.timeout {
        // A timeout of zero would mean none to the kernel.
        Some(timeout) => target.client.clone().timeout(timeout.0.max(Duration::from_millis(1))),
        None => target.client.clone(),
    };
    let answer = Progress::show_while(&target.client, || client.stop(args.now));
    match answer {
        // It may be gone before its answer is.
        Ok(_) | Err(ClientError::Ended) => {}
        Err(ClientError::TimedOut) if args.timeout.is_some() => return still_there(&target, args.now),
        Err(error) => return complain(&error),
    }
    if gone(process.as_ref(), &target.client, until) {
        say::out(format!("{}: stopped\n", target.name).as_bytes())
    } else {
        still_there(&target, args.now)
    }
}

fn watch(target: &Target) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(target.pid?).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Waits until the supervisor has ended; false if it has not by then.
fn gone(process: Option<&OwnedFd>, client: &Client, until: Option<Instant>) -> bool {
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if let Some(process) = process {
            let mut watched = [PollFd::new(process, PollFlags::IN)];
            // A time that the kernel can't count to is no limit.
            let limit = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut watched, limit.as_ref()) {
                Ok(ready) if ready > 0 => return true,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return false,
            }
        } else {
            // The process is in another PID namespace: the end of its socket is what can be seen.
            let answer = client.clone().timeout(Duration::from_secs(1)).status();
            if matches!(answer, Err(ClientError::NoInstance { .. } | ClientError::Stale { .. })) {
                return true;
            }
            std::thread::sleep(LOOK.min(left.unwrap_or(LOOK)));
        }
        if left.is_some_and(|left| left.is_zero()) {
            return false;
        }
    }
}

fn still_there(target: &Target, now: bool) -> Exit {
    let tip = if now {
        "its workers get SIGKILL when --grace of `relisten run` is over".to_owned()
    } else {
        format!(
            "`relisten status {0}` shows who is not quiet yet; `relisten stop {0} --now` does not wait for them",
            target.name
        )
    };
    say::error(&format!("{} is still stopping", target.name), Some(&tip));
    Exit::Failed
}
