//! Talks to the world: turns what happens into events and performs the core's actions.

mod calls;
mod clock;
pub mod control;
mod descriptors;
mod dispatcher;
mod happening;
mod launch;
mod leave;
mod log;
pub mod notify;
mod orphans;
pub mod output;
mod plan;
mod probe;
mod process;
mod readiness;
mod report;
mod resume;
#[doc(hidden)]
pub mod seam;
mod start;
mod stopped;
mod traced;

pub(crate) use clock::now;
pub(crate) use report::{oldest, resident};
pub use start::{RunError, RunOptions, run};
pub(crate) use stopped::Stopped;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd;

/// An error with its causes, in one line. Some errors say their cause themselves; it is not said twice.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// Would reading it give something now?
fn is_readable(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|_| fds[0].revents().contains(PollFlags::IN))
}
