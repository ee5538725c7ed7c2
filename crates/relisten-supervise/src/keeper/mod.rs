//! The keeper: a small process that holds duplicates of the instance's descriptors, so that the supervisor may
//! die.
//!
//! It is a store of descriptors by key and of one opaque state, and decides nothing. It is the same program,
//! started with the hidden subcommand `keeper` ([`main`]), in a session of its own, with one thread and without
//! an event loop library, and deaf to ordinary signals.
//!
//! While a supervisor is connected it only does as told. When the connection ends without a goodbye it
//! - keeps everything, so that no queue is reset;
//! - answers each seccomp notification "continue", so that workers can still bind;
//! - reads the workers' outputs, so that no worker blocks on a full pipe, keeps the last 64 KiB of each and
//!   counts the rest;
//! - waits for a successor on a socket beside the control socket, and hands everything to it.
//!
//! It stays as long as any worker lives, and for a while (60 s by default) after the last has died. Then it
//! exits, and connections that still wait in listeners are reset: with no worker and no supervisor nobody would
//! ever serve them. Somebody who restarts the supervisor within that time loses none.
//!
//! A keeper that is killed costs nothing while the supervisor lives: it is told ([`Client::event`]), starts
//! another one and puts everything again.

mod client;
mod door;
mod drain;
mod inherit;
mod process;
mod protocol;
mod store;
pub(crate) mod wire;

pub use client::{Client, Error, Event};
pub use inherit::{DrainedOutput, Inheritance, Kept};
pub use protocol::{Kind, Refusal};

use rustix::process::Resource;
use std::ffi::{CStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A packet read as a request and as a reply, and each written anew. For fuzzing.
pub(crate) fn anew(packet: &[u8]) -> [Option<Vec<u8>>; 2] {
    let number = protocol::sequence(packet);
    let request = protocol::Request::decode(packet).ok().map(|request| request.encode(number));
    [request, protocol::Reply::decode(packet).map(|reply| reply.encode(number))]
}

/// How long a keeper stays after the last worker has died and no supervisor came.
pub const LINGER: Duration = Duration::from_secs(60);

/// Where the keeper of the instance with this control socket listens for a successor.
pub fn path_beside(control: &Path) -> PathBuf {
    let mut path = control.as_os_str().to_owned();
    path.push(".keeper");
    path.into()
}

/// The name of its process.
const COMMAND: &CStr = c"relisten-keeper";

/// Is this process a keeper, of any instance? It holds listeners and accepts from none.
pub(crate) fn is_one(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| name.trim_end().as_bytes() == COMMAND.to_bytes())
}

/// The keeper's program: `keeper NAME PATH [LINGER_MS]`, the words after `keeper` being `arguments`, and the
/// connection to the supervisor being the standard input. To be called before anything that needs memory.
///
/// Exits with 2 if it was not started by a supervisor, and with 1 if it could not start (the supervisor is told
/// why).
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let (Some(_name), Some(path)) = (arguments.next(), arguments.next()) else { return ExitCode::from(2) };
    let linger =
        arguments.next().and_then(|a| a.to_str()?.parse().ok()).map_or(LINGER, Duration::from_millis);
    let Ok(supervisor) = detach() else { return ExitCode::from(2) };
    match door::Door::open(path.into()) {
        Ok(door) => {
            let keeper = process::Keeper::new(door, linger, supervisor);
            // Most of the program is of no use to a keeper.
            relisten_sys::daemon::forget_startup_code();
            keeper.run();
            ExitCode::SUCCESS
        }
        Err(e) => {
            process::refuse(&supervisor, &e.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Become independent of whoever started us: session, signals, directory, standard streams, limits.
fn detach() -> io::Result<OwnedFd> {
    relisten_sys::daemon::ignore_ordinary_signals();
    let supervisor = io::stdin().as_fd().try_clone_to_owned()?;
    if rustix::net::sockopt::socket_type(&supervisor)? != rustix::net::SocketType::SEQPACKET {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // Each of these only makes the keeper nicer: it can do its work without.
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    let _ = rustix::thread::set_name(COMMAND);
    let mut files = rustix::process::getrlimit(Resource::Nofile);
    files.current = files.maximum;
    let _ = rustix::process::setrlimit(Resource::Nofile, files);
    Ok(supervisor)
}
