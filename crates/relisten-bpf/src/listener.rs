use crate::abi::{CountersEntry, ListenerEntry, LoadEntry, OwnerEntry};
use crate::avoid::Avoid;
use crate::counts::ListenerCounts;
use crate::key::ListenerKey;
use crate::maps::Maps;
use relisten_sys::bpf::map_type;
use relisten_sys::sockopt;
use std::io;
use std::mem::offset_of;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// One listener's place in the maps. Dropping it changes nothing; give the key back with
/// [`Steering::release`](crate::Steering::release).
#[derive(Clone, Debug)]
pub struct Listener {
    maps: Arc<Maps>,
    key: ListenerKey,
}

impl Listener {
    pub(crate) fn new(maps: Arc<Maps>, key: ListenerKey) -> Self {
        debug_assert_eq!(maps.sockets.info().kind, map_type::REUSEPORT_SOCKARRAY);
        Self { maps, key }
    }

    /// Begins anew: another incarnation, out of service, all counts zero.
    pub(crate) fn begin(&self) {
        self.state().store(Avoid::OUT.0, Ordering::SeqCst);
        // From here on ends of its predecessor's connections are not counted.
        self.incarnation().fetch_add(1, Ordering::SeqCst);
        let index = self.key.index();
        for offset in (offset_of!(ListenerEntry, open)..size_of::<ListenerEntry>()).step_by(4) {
            self.maps.listener_u32(index, offset).store(0, Ordering::SeqCst);
        }
        for offset in (offset_of!(CountersEntry, by_fallback)..size_of::<CountersEntry>()).step_by(8) {
            self.maps.counters_u64(index, offset).store(0, Ordering::Release);
        }
        for offset in [offset_of!(LoadEntry, load), offset_of!(LoadEntry, beat)] {
            self.maps.load_u64(self.key.index(), offset).store(0, Ordering::Release);
        }
    }

    /// Its key.
    pub fn key(&self) -> ListenerKey {
        self.key
    }

    /// Marks the socket as this listener's, so that its connections are counted for it. **Before** it listens: what
    /// was opened without is not counted, and if such a connection moves from its queue counts are wrong by one.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `E2BIG` when 1024 sockets are marked; `EPERM` from a process without CAP_BPF and CAP_NET_ADMIN
    /// where `kernel.unprivileged_bpf_disabled` forbids it.
    pub fn mark(&self, socket: impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd();
        let owner = self.owner().bytes();
        if self.maps.labels {
            let label = label(self.key);
            self.label().store(label, Ordering::SeqCst);
            sockopt::set_local_port_range(socket, label)?;
        } else {
            // The storage's key is the socket's descriptor.
            let number = rustix::fd::AsRawFd::as_raw_fd(&socket);
            self.maps.owners.set(&number.to_ne_bytes(), &owner)?;
        }
        let cookie = rustix::net::sockopt::socket_cookie(socket)?;
        self.maps.cookies.set(&cookie.to_ne_bytes(), &owner)
    }

    /// Takes the mark off a socket that will go on without us: connections that it opens from now on carry none.
    pub fn unmark(&self, socket: impl AsFd) -> io::Result<()> {
        if self.maps.labels {
            return sockopt::set_local_port_range(socket.as_fd(), 0);
        }
        let number = rustix::fd::AsRawFd::as_raw_fd(&socket.as_fd());
        self.maps.owners.remove(&number.to_ne_bytes()).map(drop)
    }

    /// Nobody with this cookie (`SO_COOKIE`) is this listener any more.
    pub(crate) fn forget(&self, cookie: u64) -> io::Result<()> {
        self.maps.cookies.remove(&cookie.to_ne_bytes()).map(drop)
    }

    /// Puts the socket, which must listen, where the programs can choose it. Again after each `listen` that
    /// followed a `shutdown`: that takes it out. It does not get connections before it is
    /// [put into service](Self::set) and [published](crate::Group::publish).
    ///
    /// # Errors
    ///
    /// `EINVAL` when it does not listen or has no SO_REUSEPORT, 524 (`ENOTSUPP`) when it is neither TCP nor UDP
    /// (MPTCP), `EBUSY` when it is in a map of this kind already.
    pub fn enlist(&self, socket: impl AsFd) -> io::Result<()> {
        self.maps.sockets.set_fd(&self.key.number().to_ne_bytes(), socket.as_fd())
    }

    /// Takes it out: the programs can't choose it.
    pub fn delist(&self) -> io::Result<()> {
        self.maps.sockets.remove(&self.key.number().to_ne_bytes()).map(drop)
    }

    /// A store: from this moment on it is avoided for exactly these reasons, or, with [`Avoid::NOTHING`], gets
    /// connections. A packet that a CPU is working on at this moment may still be steered by what was before;
    /// [`membarrier::global`](relisten_sys::membarrier::global) waits for those.
    pub fn set(&self, reasons: Avoid) {
        let set = |state: u32| Some(state & !Avoid::ALL.0 | reasons.0);
        let _ = self.state().fetch_update(Ordering::SeqCst, Ordering::SeqCst, set);
    }

    /// As [`set`](Self::set): these reasons, beside those that hold.
    pub fn add(&self, reasons: Avoid) {
        self.state().fetch_or(reasons.0, Ordering::SeqCst);
    }

    /// As [`set`](Self::set): not for these reasons any more.
    pub fn remove(&self, reasons: Avoid) {
        self.state().fetch_and(!reasons.0, Ordering::SeqCst);
    }

    /// Why it is avoided now.
    pub fn avoided(&self) -> Avoid {
        Avoid(self.state().load(Ordering::SeqCst) & Avoid::ALL.0)
    }

    /// Whether [`Policy::LeastConnections`](crate::Policy::LeastConnections) goes by the load that its worker
    /// publishes, not by its open connections.
    pub fn set_publishes(&self, publishes: bool) {
        if publishes {
            self.state().fetch_or(PUBLISHES, Ordering::SeqCst);
        } else {
            self.state().fetch_and(!PUBLISHES, Ordering::SeqCst);
        }
    }

    /// Publishes a load, in any unit that all listeners of the group share, and the time (`CLOCK_MONOTONIC`, ns) of
    /// the event loop's last turn. Two stores.
    pub fn publish_load(&self, load: u64, beat: u64) {
        self.maps.load_u64(self.key.index(), offset_of!(LoadEntry, load)).store(load, Ordering::Release);
        self.maps.load_u64(self.key.index(), offset_of!(LoadEntry, beat)).store(beat, Ordering::Release);
    }

    /// The time of the last [`publish_load`](Self::publish_load).
    pub fn beat(&self) -> u64 {
        self.maps.load_u64(self.key.index(), offset_of!(LoadEntry, beat)).load(Ordering::Acquire)
    }

    /// What was counted.
    pub fn counts(&self) -> ListenerCounts {
        ListenerCounts::read(&self.maps, self.key)
    }

    /// Corrects the number of open connections, for those that were open before its socket was
    /// [marked](Self::mark) or counting began.
    pub fn correct_open(&self, by: i32) {
        let open = self.maps.listener_u32(self.key.index(), offset_of!(ListenerEntry, open));
        open.fetch_add(by as u32, Ordering::AcqRel);
    }

    fn owner(&self) -> OwnerEntry {
        let incarnation = self.incarnation().load(Ordering::Acquire);
        OwnerEntry { key: self.key.number(), incarnation }
    }

    fn label(&self) -> &AtomicU32 {
        self.maps.listener_u32(self.key.index(), offset_of!(ListenerEntry, label))
    }

    fn state(&self) -> &AtomicU32 {
        self.maps.listener_u32(self.key.index(), offset_of!(ListenerEntry, state))
    }

    fn incarnation(&self) -> &AtomicU32 {
        self.maps.counters_u32(self.key.index(), offset_of!(CountersEntry, incarnation))
    }
}

/// A new label: see bpf/label.h. As a range of ports its lower half is the first, and must not be above the other. The bits
/// that are left come by chance, so that neither those who had the key before nor another instance has the same.
fn label(key: ListenerKey) -> u32 {
    let chance = fastrand::u32(..);
    0x8000_0000 | (chance & 0x7fff_7c00) | key.number()
}

/// `RELISTEN_PUBLISHES`.
const PUBLISHES: u32 = 1 << 30;
