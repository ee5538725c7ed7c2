use crate::systemd::{Message, Notifier};
use relisten_sys::bpf::SharedArray;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, OnceLock, PoisonError};

/// What a packet from the supervisor begins with: the version of what follows.
pub(crate) const VERSION: u32 = 1;
/// A packet is numbers of 32 bits: version, size of an entry, number of entries, then a key for each listener.
const MOST_KEYS: usize = 64;

/// How much a worker has to do, told to the steering program in the kernel. With the policy `least-connections` new
/// connections then go by this, and not by the number of open ones: a worker with ten idle connections may have less to do
/// than one with two that are hard at work.
///
/// Telling it is two stores into shared memory, no system call; so it may be done at each turn of an event loop. Where
/// nothing can be told (no supervisor, or one that can't steer by eBPF) it does nothing.
#[derive(Debug)]
pub struct Load {
    /// Where the supervisor's answer comes, while it has not come.
    asked: Mutex<Option<OwnedFd>>,
    shared: OnceLock<Shared>,
}

#[derive(Debug)]
struct Shared {
    loads: SharedArray,
    keys: Vec<usize>,
}

impl Load {
    /// Nobody wants to know.
    pub(crate) fn nobody() -> Self {
        Self { asked: Mutex::new(None), shared: OnceLock::new() }
    }

    pub(crate) fn ask(notifier: &Notifier) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let message = Message { load: true, ..Message::default() };
        notifier.send_with(&message, theirs.as_fd())?;
        Ok(Self { asked: Mutex::new(Some(ours)), shared: OnceLock::new() })
    }

    /// From now on this is how much there is to do, in any unit that all workers of the instance share: requests under way,
    /// the length of a queue, bytes to be sent.
    pub fn set(&self, load: u64) {
        let Some(Shared { loads, keys }) = self.shared.get().or_else(|| self.receive()) else { return };
        let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
        let beat = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        for key in keys {
            loads.u64(*key, 0).store(load, Ordering::Release);
            loads.u64(*key, 8).store(beat, Ordering::Release);
        }
    }

    /// Is somebody told? `None`: that is not known yet.
    pub fn is_told(&self) -> Option<bool> {
        if self.shared.get().or_else(|| self.receive()).is_some() {
            return Some(true);
        }
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.is_none().then_some(false)
    }

    fn receive(&self) -> Option<&Shared> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        match receive(asked.as_ref()?) {
            // Steering programs may still be being loaded.
            Ok(None) => return None,
            Ok(Some(shared)) => _ = self.shared.set(shared),
            Err(_) => {}
        }
        *asked = None;
        self.shared.get()
    }
}

/// `None`: not yet.
fn receive(socket: &OwnedFd) -> io::Result<Option<Shared>> {
    let mut bytes = [0; 4 * (3 + MOST_KEYS)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)
    {
        Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
        other => other?,
    };
    let descriptor = control.drain().find_map(|m| match m {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let numbers: Vec<u32> = bytes[..message.bytes.min(bytes.len())]
        .chunks_exact(4)
        .map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    let (Some(descriptor), [VERSION, size, entries, keys @ ..]) = (descriptor, &numbers[..]) else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let fits = *size >= 16 && !keys.is_empty() && keys.iter().all(|key| key < entries);
    if !fits {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let loads = SharedArray::map_known(descriptor.as_fd(), *size as usize, *entries as usize)?;
    Ok(Some(Shared { loads, keys: keys.iter().map(|key| *key as usize).collect() }))
}
