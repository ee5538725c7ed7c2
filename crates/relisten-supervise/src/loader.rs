//! Loading the eBPF programs, in a process that lives for a moment.
//!
//! Loading takes 20 MB at its peak (the object, its type information, the loader), and a supervisor stays for months. So
//! the same binary is started with the hidden subcommand `load-steering`; it loads, passes the descriptors over its
//! standard input, which is a socket, and exits.

use crate::keeper::wire;
use relisten_bpf::{Descriptors, Loaded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Signal;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "load-steering";

/// How long the programs may take to be verified. 50 ms each is usual.
const PATIENCE: Duration = Duration::from_secs(20);

/// A descriptor comes with this,
const DESCRIPTOR: u8 = b'd';
/// this says why there are none, in words,
const REFUSED: u8 = b'e';
/// and this that there are no more.
const DONE: u8 = b'k';

/// No programs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The process could not be started or talked to.
    #[error("can't start the process that loads it")]
    Start(#[from] io::Error),
    /// The kernel refused, or the object is of no use; in words.
    #[error("{0}")]
    Refused(String),
}

impl From<Errno> for LoadError {
    fn from(e: Errno) -> Self {
        Self::Start(e.into())
    }
}

/// May this process load steering programs at all? Asked before a process is started for nothing.
pub(crate) fn may_load() -> Result<(), LoadError> {
    use rustix::thread::CapabilitySet as Set;
    let effective = rustix::thread::capabilities(None)?.effective;
    if effective.contains(Set::SYS_ADMIN) || effective.contains(Set::BPF | Set::NET_ADMIN) {
        return Ok(());
    }
    Err(LoadError::Refused("it needs CAP_BPF and CAP_NET_ADMIN".to_owned()))
}

/// Programs that are being loaded.
#[derive(Debug)]
pub(crate) struct Loading {
    child: Child,
    socket: OwnedFd,
}

impl Loading {
    /// Starts `exe load-steering GROUPS`.
    pub(crate) fn start(exe: &Path, groups: usize) -> Result<Self, LoadError> {
        may_load()?;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let child = Command::new(exe)
            .arg0("relisten")
            .args([SUBCOMMAND, &groups.to_string()])
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, socket: ours })
    }

    /// Waits for them. **Blocks**, [`PATIENCE`] at most, and a fraction of a second as a rule.
    pub(crate) fn finish(mut self) -> Result<Descriptors, LoadError> {
        let received = self.receive();
        if received.is_err() {
            let _ = self.child.kill();
        }
        // Whoever reaps all children may have been quicker.
        let _ = self.child.wait();
        received
    }

    fn receive(&self) -> Result<Descriptors, LoadError> {
        let mut all = Vec::new();
        loop {
            wait_for(&self.socket, PollFlags::IN)?;
            let packet = wire::receive(&self.socket)?;
            match packet.bytes() {
                [DESCRIPTOR] => all.extend(packet.descriptors.into_iter().flatten()),
                [REFUSED, why @ ..] => {
                    return Err(LoadError::Refused(String::from_utf8_lossy(why).into_owned()));
                }
                [DONE] => {
                    return Descriptors::new(all).map_err(|e| LoadError::Refused(e.to_string()));
                }
                _ => return Err(LoadError::Refused("the process that loads it ended early".to_owned())),
            }
        }
    }
}

fn wait_for(socket: &OwnedFd, what: PollFlags) -> Result<(), LoadError> {
    let mut fds = [PollFd::new(socket, what)];
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    match rustix::io::retry_on_intr(|| poll(&mut fds, Some(&patience)))? {
        0 => Err(LoadError::Refused(format!("it took longer than {} s", PATIENCE.as_secs()))),
        _ => Ok(()),
    }
}

/// The program behind the subcommand: `load-steering GROUPS`, the word after `load-steering` being `arguments`.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // An instance that is stopped at once leaves nobody behind.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let groups = arguments.into_iter().next().and_then(|a| a.to_str()?.parse().ok());
    let (Some(groups), Ok(socket)) = (groups, io::stdin().as_fd().try_clone_to_owned()) else {
        return ExitCode::from(2);
    };
    if rustix::net::sockopt::socket_type(&socket).ok() != Some(SocketType::SEQPACKET) {
        return ExitCode::from(2);
    }
    let told = match Loaded::load(groups) {
        Ok(loaded) => tell(&socket, loaded.into_descriptors()),
        Err(error) => {
            let mut why = vec![REFUSED];
            why.extend(crate::runtime::chain(&error).into_bytes().into_iter().take(900));
            send(&socket, &why, &[])
        }
    };
    if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(socket: &OwnedFd, descriptors: Descriptors) -> Result<(), LoadError> {
    for descriptor in descriptors.into_vec() {
        send(socket, &[DESCRIPTOR], &[descriptor.as_fd()])?;
    }
    send(socket, &[DONE], &[])
}

fn send(socket: &OwnedFd, bytes: &[u8], fds: &[std::os::fd::BorrowedFd<'_>]) -> Result<(), LoadError> {
    loop {
        match wire::send(socket, bytes, fds) {
            Err(Errno::AGAIN) => wait_for(socket, PollFlags::OUT)?,
            other => return Ok(other?),
        }
    }
}
