//! The supervisor's side of a keeper.

use super::inherit::{self, Inheritance};
use super::protocol::{Kind, Refusal, Reply, Request, is_key, sequence};
use super::wire::{self, Packet};
use crate::async_fd;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

/// So many messages may be unanswered; one more waits for an answer first.
pub(super) const UNANSWERED: usize = 64;
/// How long to wait for an answer before the keeper counts as hung. It answers within microseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a keeper may take to start.
const START: Duration = Duration::from_secs(5);

/// Why something could not be done with a keeper.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The keeper is gone. Start another one and put everything again.
    #[error("the keeper is gone")]
    Closed,
    /// The keeper does not answer. [`Client::abandon`] it, start another one and put everything again.
    #[error("the keeper does not answer")]
    Stuck,
    /// The keeper said no; in its words.
    #[error("the keeper refused: {0}")]
    Refused(String),
    /// The keeper said something that makes no sense.
    #[error("what answers is no keeper")]
    Nonsense,
    /// A key is empty, longer than 512 bytes, or has a zero in it.
    #[error("{0:?} can't be a key")]
    Key(String),
    /// The process could not be started.
    #[error("can't start the keeper")]
    Start(#[source] io::Error),
    /// A system call failed.
    #[error("can't talk to the keeper")]
    Io(#[from] io::Error),
}

impl From<Errno> for Error {
    fn from(e: Errno) -> Self {
        match e {
            Errno::PIPE | Errno::CONNRESET => Self::Closed,
            e => Self::Io(e.into()),
        }
    }
}

/// What a keeper has to say by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something was not kept.
    Refused {
        /// The key of the `put`; `None` for the state and for requests without a key.
        key: Option<String>,
        /// Why.
        why: Refusal,
    },
    /// The keeper is gone. Start another one and put everything again.
    Closed,
}

/// The connection to a keeper.
///
/// [`put`](Self::put), [`drop_key`](Self::drop_key) and [`state`](Self::state) send one packet and do not wait for
/// its answer, unless 64 are unanswered; they block for at most a second then, if the keeper is hung. What was
/// refused is said by [`event`](Self::event) and [`sync`](Self::sync).
///
/// Dropping a `Client` is what the supervisor's death looks like: the keeper goes on alone. For an orderly end
/// there is [`goodbye`](Self::goodbye).
#[derive(Debug)]
pub struct Client {
    socket: AsyncFd<OwnedFd>,
    pid: u32,
    /// To kill exactly this process. `None` where the kernel has no pidfds.
    pidfd: Option<OwnedFd>,
    next: u32,
    /// Sequence number and key of what has not been answered yet, in order.
    unanswered: VecDeque<(u32, Option<String>)>,
    events: VecDeque<Event>,
    closed: bool,
}

impl Client {
    /// Start a keeper: `exe keeper NAME PATH`, and wait (5 s at most, a few milliseconds as a rule) until it
    /// listens at `path`, which must be absolute. `name` is only for the list of processes.
    ///
    /// The keeper is a child of this process; reap it like any other child.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], if it can't listen at `path`, because another keeper does, for example.
    pub fn start(exe: &Path, path: &Path, name: &str) -> Result<Self, Error> {
        Self::start_lingering(exe, path, name, super::LINGER)
    }

    /// Like [`start`](Self::start), with another time than [`LINGER`](super::LINGER).
    pub fn start_lingering(exe: &Path, path: &Path, name: &str, linger: Duration) -> Result<Self, Error> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|e| Error::Start(e.into()))?;
        // What we inherited by accident must not stay open in the keeper for ever. Old kernels can't do it at
        // once; our own descriptors are close-on-exec in any case.
        let _ = relisten_sys::daemon::close_on_exec_from(3);
        let mut child = Command::new(exe)
            .arg0("relisten")
            .args(["keeper".as_ref(), name.as_ref(), path.as_os_str()])
            .arg(linger.as_millis().to_string())
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::Start)?;
        let pid = child.id();
        let begun = begin(&ours, START).and_then(|_| Self::new(ours, pid));
        if begun.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        begun
    }

    /// Become the supervisor of what a keeper holds. `None`: there is no keeper at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], while its supervisor is still connected.
    pub fn take_over(path: &Path) -> Result<Option<Inheritance>, Error> {
        inherit::take_over(path)
    }

    pub(super) fn new(socket: OwnedFd, pid: u32) -> Result<Self, Error> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let pidfd = Pid::from_raw(pid as i32)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        let socket = async_fd::watch(socket, Interest::READABLE)?;
        let (unanswered, events) = Default::default();
        Ok(Self { socket, pid, pidfd, next: 1, unanswered, events, closed: false })
    }

    /// The keeper's process ID.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Keep a duplicate of this descriptor under this key; another one under the same key is closed.
    pub fn put(&mut self, key: &str, kind: Kind, descriptor: impl AsFd) -> Result<(), Error> {
        let request = Request::Put { kind, key: checked(key)? };
        self.send(&request, Some(key.to_owned()), &[descriptor.as_fd()])
    }

    /// Close what is kept under this key, if anything is.
    pub fn drop_key(&mut self, key: &str) -> Result<(), Error> {
        self.send(&Request::Drop { key: checked(key)? }, Some(key.to_owned()), &[])
    }

    /// Keep this as the state. It travels in a sealed memfd, so it may be of any size and costs the keeper no
    /// memory of its own.
    pub fn state(&mut self, state: &[u8]) -> Result<(), Error> {
        let memfd =
            rustix::fs::memfd_create("relisten-state", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut rest = state;
        while !rest.is_empty() {
            let n = rustix::io::retry_on_intr(|| rustix::io::write(&memfd, rest))?;
            rest = &rest[n..];
        }
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&memfd, seals)?;
        self.send(&Request::State, None, &[memfd.as_fd()])
    }

    /// Wait until everything before is done. A second at most; microseconds as a rule.
    ///
    /// What was refused is left to [`event`](Self::event).
    pub fn sync(&mut self) -> Result<(), Error> {
        self.send(&Request::Sync, None, &[])?;
        let until = Instant::now() + PATIENCE;
        while !self.unanswered.is_empty() {
            self.hear_until(until)?;
        }
        Ok(())
    }

    /// The orderly end: the keeper closes everything and exits. Only after all workers are gone: what still
    /// waits in listeners is reset. Waits for the keeper's end, a second at most.
    pub fn goodbye(mut self) -> Result<(), Error> {
        self.send(&Request::Goodbye, None, &[])?;
        let until = Instant::now() + PATIENCE;
        while !self.closed {
            match self.hear_until(until) {
                Ok(()) | Err(Error::Closed) => {}
                Err(e) => return Err(e),
            }
        }
        self.wait_for_end(until);
        Ok(())
    }

    /// Give up on a keeper that does not answer: it is killed (SIGKILL), so that it can't wake up later and
    /// answer for the next one.
    pub fn abandon(self) {
        if let Some(pidfd) = &self.pidfd {
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
            self.wait_for_end(Instant::now() + PATIENCE);
        }
    }

    /// What the keeper has to say next. Pending while everything is in order; safe to drop and to call again.
    pub async fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            if self.closed {
                return Event::Closed;
            }
            match self.socket.readable().await {
                Ok(mut guard) => guard.clear_ready_matching(Ready::READABLE),
                Err(_) => return Event::Closed,
            }
            self.hear();
        }
    }

    fn send(
        &mut self,
        request: &Request<'_>,
        key: Option<String>,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        let until = Instant::now() + PATIENCE;
        self.hear();
        while self.unanswered.len() >= UNANSWERED {
            self.hear_until(until)?;
        }
        let number = self.next;
        let packet = request.encode(number);
        loop {
            if self.closed {
                return Err(Error::Closed);
            }
            match wire::send(&self.socket, &packet, descriptors) {
                Ok(()) => break,
                Err(Errno::AGAIN) => self.hear_until(until)?,
                // Too many descriptors of this user are on their way: wait until it has read some.
                Err(Errno::TOOMANYREFS) if !self.unanswered.is_empty() => self.hear_until(until)?,
                Err(e) => {
                    self.closed |= matches!(e, Errno::PIPE | Errno::CONNRESET);
                    return Err(e.into());
                }
            }
        }
        self.next = self.next.wrapping_add(1).max(1);
        self.unanswered.push_back((number, key));
        Ok(())
    }

    /// Wait for the next answers.
    fn hear_until(&mut self, until: Instant) -> Result<(), Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        if !readable(self.socket.get_ref(), until)? {
            return Err(Error::Stuck);
        }
        self.hear();
        Ok(())
    }

    /// Take in all answers that are there.
    fn hear(&mut self) {
        while !self.closed {
            match wire::receive(&self.socket) {
                Ok(packet) if packet.bytes().is_empty() => self.closed = true,
                Ok(packet) => self.take_in(&packet),
                Err(Errno::AGAIN) => return,
                // Said once, if it went before it read everything; its last words are still there.
                Err(Errno::CONNRESET) => {}
                Err(_) => self.closed = true,
            }
        }
    }

    fn take_in(&mut self, packet: &Packet) {
        let Some(Reply::Ack { refusal }) = Reply::decode(packet.bytes()) else { return };
        let number = sequence(packet.bytes());
        // Answers come in order; one that was lost is none that we wait for for ever.
        while let Some((asked, _)) = self.unanswered.front() {
            let behind = number.wrapping_sub(*asked) as i32;
            if behind < 0 {
                return;
            }
            let key = self.unanswered.pop_front().and_then(|(_, key)| key);
            if behind == 0 {
                self.events.extend(refusal.map(|why| Event::Refused { key, why }));
                return;
            }
        }
    }

    /// Wait for the process, and reap it if it is our child and nobody else has.
    fn wait_for_end(&self, until: Instant) {
        let Some(pidfd) = &self.pidfd else { return };
        if readable(pidfd, until).unwrap_or(false) {
            let _ = Pid::from_raw(self.pid as i32)
                .map(|pid| rustix::process::waitpid(Some(pid), WaitOptions::NOHANG));
        }
    }
}

/// The first word of a keeper: its process ID and how many items it will send.
pub(super) fn begin(socket: &OwnedFd, patience: Duration) -> Result<(u32, u32), Error> {
    let packet = next_packet(socket, Instant::now() + patience)?;
    match Reply::decode(packet.bytes()).ok_or(Error::Nonsense)? {
        // Every version so far understands us.
        Reply::Welcome { version: _, pid, items } => Ok((pid, items)),
        Reply::Refused { why } => Err(Error::Refused(why.to_owned())),
        _ => Err(Error::Nonsense),
    }
}

/// Wait for the next packet.
pub(super) fn next_packet(socket: &OwnedFd, until: Instant) -> Result<Packet, Error> {
    loop {
        if !readable(socket, until)? {
            return Err(Error::Stuck);
        }
        match wire::receive(socket) {
            Ok(packet) if packet.bytes().is_empty() => return Err(Error::Closed),
            Ok(packet) => return Ok(packet),
            // The second is said once, if it hung up before it read everything; what it said is still there.
            Err(Errno::AGAIN | Errno::CONNRESET) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn readable(descriptor: &OwnedFd, until: Instant) -> Result<bool, Errno> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match rustix::event::poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            other => return Ok(other? > 0),
        }
    }
}

fn checked(key: &str) -> Result<&str, Error> {
    if is_key(key) { Ok(key) } else { Err(Error::Key(key.to_owned())) }
}
