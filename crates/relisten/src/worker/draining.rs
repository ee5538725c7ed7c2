use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::SIGTERM;
use signal_hook::low_level::{pipe, unregister};
use signal_hook::{SigId, flag};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The stop signal, as a flag and as a descriptor that becomes readable (and stays so: nobody reads it).
///
/// Dropping it stops the watching; the signal is then ignored, not deadly again.
#[derive(Debug)]
pub struct Draining {
    flag: Arc<AtomicBool>,
    readable: UnixStream,
    registered: [SigId; 2],
}

impl Draining {
    pub(super) fn new() -> io::Result<Self> {
        let told = Arc::new(AtomicBool::new(false));
        let (readable, writable) = UnixStream::pair()?;
        // The flag first: handlers run in the order of their registration, and who sees the descriptor readable
        // must find it set.
        let set_flag = flag::register(SIGTERM, Arc::clone(&told))?;
        let write = pipe::register(SIGTERM, writable)?;
        Ok(Self { flag: told, readable, registered: [set_flag, write] })
    }

    /// Has the stop signal come?
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Waits for the stop signal.
    pub fn wait(&self) -> io::Result<()> {
        self.poll(None)
    }

    /// Waits for the stop signal at most this long. Whether it came.
    pub fn wait_timeout(&self, time: Duration) -> io::Result<bool> {
        self.poll(Some(time))?;
        Ok(self.is_set())
    }

    fn poll(&self, time: Option<Duration>) -> io::Result<()> {
        let end = time.and_then(|t| Instant::now().checked_add(t));
        loop {
            let left = end.map(|e| e.saturating_duration_since(Instant::now()));
            let timeout =
                left.map(|l| Timespec { tv_sec: l.as_secs() as i64, tv_nsec: l.subsec_nanos().into() });
            match poll(&mut [PollFd::new(&self.readable, PollFlags::IN)], timeout.as_ref()) {
                // The signal itself interrupts the wait, before or after the descriptor became readable.
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}

impl AsFd for Draining {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        for id in self.registered {
            unregister(id);
        }
    }
}
