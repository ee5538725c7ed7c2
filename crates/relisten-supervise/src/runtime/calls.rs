//! Answering a worker's `bind` and `listen`.

use crate::caller::Calling;
use crate::core::WorkerId;
use crate::sockets::{BindAnswer, ListenAnswer, Sockets};
use relisten::address::Endpoint;
use relisten::{SlotId, SocketInode};
use relisten_diag::owner::sockets_of;
use relisten_diag::process::ProcessTable;
use relisten_sys::seccomp::{self, Call, Notification};
use relisten_sys::{epoll, memory};
use rustix::io::Errno;
use rustix::process::Pid;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// A `bind` or `listen` with what is needed to answer it.
pub(super) struct Caller<'a> {
    pub(super) worker: WorkerId,
    /// Its first process.
    pub(super) pid: u32,
    pub(super) slot: SlotId,
    pub(super) calls: BorrowedFd<'a>,
    /// Addresses that nobody named are managed too.
    pub(super) learn: bool,
    /// The worker has another user than we.
    pub(super) foreign_user: bool,
}

impl Caller<'_> {
    /// All sockets that the worker's processes have; `None` if one of them can't be looked into.
    fn has_sockets(&self) -> Option<BTreeSet<SocketInode>> {
        let Ok(table) = ProcessTable::read() else { return None };
        let tree = table.tree(self.pid, self.pid);
        let each: Result<Vec<_>, _> = tree.into_iter().map(sockets_of).collect();
        Some(each.ok()?.into_iter().flatten().collect())
    }

    /// Takes one waiting call and answers it. True: the worker listens now.
    pub(super) fn answer(&self, sockets: &mut Sockets) -> io::Result<bool> {
        let notification = match seccomp::receive(self.calls) {
            // The caller has gone: a signal or its death came first.
            Err(e) if e.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => return Ok(false),
            other => other?,
        };
        let id = notification.id;
        let verdict = self.decide(&notification, sockets).unwrap_or_else(|error| {
            tracing::warn!(worker = %self.worker, %error, "can't look at the worker's call: it goes on by itself");
            Verdict::GoOn
        });
        let (sent, listens) = match verdict {
            Verdict::GoOn => (seccomp::let_go_on(self.calls, id), false),
            Verdict::Fails(e) => (seccomp::refuse(self.calls, id, e.raw_os_error()), false),
            Verdict::Done { listens } => (seccomp::answer(self.calls, id, 0), listens),
        };
        match sent {
            Err(e) if e.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(listens),
            Err(e) => Err(e),
            Ok(()) => Ok(listens),
        }
    }

    fn decide(&self, n: &Notification, sockets: &mut Sockets) -> io::Result<Verdict> {
        let Some(calling) = Calling::of(n)? else { return Ok(Verdict::GoOn) };
        // It was that thread and not a later one with the same number.
        if !seccomp::still_waits(self.calls, n.id) {
            return Ok(Verdict::GoOn);
        }
        match calling.call {
            Call::Bind => {
                let Some(address) = read_address(n.tid, calling.args[1], calling.args[2])? else {
                    return Ok(Verdict::GoOn);
                };
                if !seccomp::still_waits(self.calls, n.id) {
                    return Ok(Verdict::GoOn);
                }
                self.bind(n.id, &calling, &address, sockets)
            }
            Call::Listen => {
                let backlog = calling.args[1] as i32;
                Ok(match sockets.listen(self.worker, self.slot, calling.socket, backlog, self.learn) {
                    ListenAnswer::GoOn => Verdict::GoOn,
                    ListenAnswer::Done => Verdict::Done { listens: true },
                    ListenAnswer::Fails(e) => Verdict::Fails(e),
                })
            }
            _ => Ok(Verdict::GoOn),
        }
    }

    fn bind(
        &self,
        id: u64,
        calling: &Calling,
        address: &Address,
        sockets: &mut Sockets,
    ) -> io::Result<Verdict> {
        let Calling { process, number, ref socket, .. } = *calling;
        let registered =
            epoll::registrations(process.as_raw_nonzero().get() as u32, number).unwrap_or_default();
        let answer = match address {
            Address::Internet(addr) => {
                if let Some(endpoint) = sockets.in_hand_at(self.worker, socket, *addr)
                    && let Some(has) = self.has_sockets()
                {
                    sockets.put_down(&endpoint, self.worker, &has);
                }
                sockets.bind((self.worker, self.slot), socket, *addr, self.learn, self.foreign_user)
            }
            Address::Unix(endpoint) => sockets.bind_unix(self.worker, endpoint),
        };
        let replace = |with: BorrowedFd<'_>| -> io::Result<()> {
            let flags = close_on_exec(process, number);
            // It would go deaf: epoll watches the socket, not the number. So watch the new one as well.
            for registration in &registered {
                epoll::register_like(registration, with, number)?;
            }
            seccomp::replace_descriptor(self.calls, id, with, number as u32, flags)
        };
        Ok(match answer {
            BindAnswer::GoOn => Verdict::GoOn,
            BindAnswer::Fails(e) => Verdict::Fails(e),
            BindAnswer::Done => Verdict::Done { listens: false },
            BindAnswer::Instead(with) => {
                replace(with.as_fd())?;
                Verdict::Done { listens: false }
            }
            BindAnswer::TakeOver(listener) => {
                sockets.prepare_take_over(listener, socket);
                if let Some(fd) = sockets.fd(listener) {
                    replace(fd)?;
                }
                sockets.taken(listener, self.slot);
                Verdict::Done { listens: false }
            }
        })
    }
}

enum Verdict {
    GoOn,
    Fails(Errno),
    Done { listens: bool },
}

pub(super) enum Address {
    Internet(SocketAddr),
    Unix(Endpoint),
}

fn close_on_exec(process: Pid, number: i32) -> bool {
    const O_CLOEXEC: u32 = 0o2_000_000;
    let info = fs::read_to_string(format!("/proc/{}/fdinfo/{number}", process.as_raw_nonzero()));
    let flags = info.ok().and_then(|text| {
        let field = text.lines().find_map(|l| l.strip_prefix("flags:"))?;
        u32::from_str_radix(field.trim(), 8).ok()
    });
    flags.is_some_and(|f| f & O_CLOEXEC != 0)
}

/// `None`: of a kind that is none of ours.
fn read_address(tid: u32, at: u64, length: u64) -> io::Result<Option<Address>> {
    let mut raw = [0u8; 128];
    let length = (length as usize).min(raw.len());
    let bytes = &mut raw[..length];
    if length < 2 {
        return Ok(None);
    }
    memory::read(tid, at, bytes)?;
    Ok(parse_address(bytes))
}

pub(super) fn parse_address(bytes: &[u8]) -> Option<Address> {
    const UNIX: u16 = 1;
    const INET: u16 = 2;
    const INET6: u16 = 10;
    let family = u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]);
    let port = || Some(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    match family {
        INET => {
            let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(Address::Internet(SocketAddrV4::new(Ipv4Addr::from(ip), port()?).into()))
        }
        INET6 => {
            let flow = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
            let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            let scope = u32::from_ne_bytes(bytes.get(24..28)?.try_into().ok()?);
            Some(Address::Internet(SocketAddrV6::new(Ipv6Addr::from(ip), port()?, flow, scope).into()))
        }
        UNIX => match bytes.get(2..)? {
            [] => None,
            [0, name @ ..] => Some(Address::Unix(Endpoint::Abstract(name.to_vec()))),
            path => {
                let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
                Some(Address::Unix(Endpoint::Unix(OsStr::from_bytes(&path[..end]).into())))
            }
        },
        _ => None,
    }
}

/// The descriptor on which calls are announced has no more callers: nobody is under the filter any more.
pub(super) fn is_over(calls: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(calls, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    debug_assert!(calls.as_raw_fd() >= 0);
    poll(&mut fds, Some(&now)).is_ok_and(|_| fds[0].revents().contains(PollFlags::HUP))
}
