//! Who makes a `bind` or `listen`, and with which socket.

use relisten_sys::memory;
use relisten_sys::seccomp::{Call, Notification};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

/// A call with the socket that it is about.
#[derive(Debug)]
pub(crate) struct Calling {
    pub(crate) call: Call,
    /// Its arguments; those of the 32-bit socketcall(2) stand in memory and have been read.
    pub(crate) args: [u64; 3],
    pub(crate) process: Pid,
    /// The caller's number of the socket.
    pub(crate) number: i32,
    /// Our duplicate.
    pub(crate) socket: OwnedFd,
}

impl Calling {
    /// `None`: neither `bind` nor `listen`, or on a nonsense descriptor; the kernel's own answer is the right one.
    pub(crate) fn of(n: &Notification) -> io::Result<Option<Self>> {
        let Some((call, args)) = arguments(n)? else { return Ok(None) };
        let process = process_of(n.tid)?;
        let pidfd = pidfd_open(process, PidfdFlags::empty())?;
        let number = args[0] as i32;
        match pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()) {
            Err(Errno::BADF) => Ok(None),
            socket => Ok(Some(Self { call, args, process, number, socket: socket? })),
        }
    }
}

fn arguments(n: &Notification) -> io::Result<Option<(Call, [u64; 3])>> {
    match n.call {
        Call::Bind | Call::Listen => Ok(Some((n.call, [n.args[0], n.args[1], n.args[2]]))),
        Call::SocketCall => {
            let mut raw = [0u8; 12];
            let call = if n.args[0] == 2 { Call::Bind } else { Call::Listen };
            let length = if call == Call::Bind { 12 } else { 8 };
            memory::read(n.tid, n.args[1], &mut raw[..length])?;
            let word = |i: usize| u64::from(u32::from_ne_bytes([raw[i], raw[i + 1], raw[i + 2], raw[i + 3]]));
            Ok(Some((call, [word(0), word(4), word(8)])))
        }
        Call::Other => Ok(None),
    }
}

/// The process of a thread.
fn process_of(tid: u32) -> io::Result<Pid> {
    let status = fs::read_to_string(format!("/proc/{tid}/status"))?;
    let tgid = status.lines().find_map(|l| l.strip_prefix("Tgid:")).and_then(|t| t.trim().parse().ok());
    tgid.and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::NotFound.into())
}
