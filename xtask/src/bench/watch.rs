//! When is a program executed? The kernel opens its file for that, and inotify(7) tells. The file must be a copy that
//! nobody else executes or reads.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Watches one program.
pub(super) struct Watch(OwnedFd);

impl Watch {
    pub(super) fn new(program: &Path) -> Result<Watch, String> {
        let failed = |error| format!("inotify on {}: {error}", program.display());
        let fd =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(failed)?;
        inotify::add_watch(&fd, program, inotify::WatchFlags::OPEN).map_err(failed)?;
        Ok(Watch(fd))
    }

    /// Forgets what has happened, and waits for the next execution on a thread of its own, at most `bound`. The
    /// moment given is that of the thread waking up: a little late, never early.
    pub(super) fn next(&self, bound: Duration) -> Result<JoinHandle<Option<Instant>>, String> {
        let fd = self.0.try_clone().map_err(|error| error.to_string())?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        while rustix::io::read(&fd, &mut buffer).is_ok() {}
        let (ready, started) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let timeout = Timespec::try_from(bound).ok()?;
            let _ = ready.send(());
            let mut fds = [PollFd::new(&fd, PollFlags::IN)];
            let events = poll(&mut fds, Some(&timeout)).ok()?;
            (events > 0).then(Instant::now)
        });
        let _ = started.recv();
        Ok(thread)
    }
}
