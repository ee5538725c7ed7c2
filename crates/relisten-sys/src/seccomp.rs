//! Seccomp user notification: a supervisor answers the system calls of another process.
//!
//! Since Linux 5.0; replacing a descriptor 5.9 (`ADDFD`), 5.14 (`SEND`), `WAIT_KILLABLE_RECV` 5.19.
//! seccomp(2), seccomp_unotify(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A system call of another process that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    /// Names the call in the answer.
    pub id: u64,
    /// The calling thread, as its ID in our PID namespace.
    pub tid: u32,
    /// Which call.
    pub call: Call,
    /// Its arguments.
    pub args: [u64; 6],
}

/// The calls that the filter stops at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// bind(2): descriptor, address, length.
    Bind,
    /// listen(2): descriptor, backlog.
    Listen,
    /// The 32-bit socketcall(2) for bind or listen: call number, pointer to 32-bit arguments.
    SocketCall,
    /// Anything else (never with our filter).
    Other,
}

/// Which `bind` calls the filter stops at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binds {
    /// Those with an address of 16 or 28 bytes: IPv4 and IPv6.
    Internet,
    /// All: Unix addresses too.
    All,
}

const LD_ABS: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JEQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RET: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
/// Low half of an argument; every architecture of ours is little-endian.
const fn offset_arg(n: u32) -> u32 {
    16 + 8 * n
}

const fn op(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

#[cfg(target_arch = "x86_64")]
mod arch {
    /// AUDIT_ARCH_X86_64
    pub(super) const NATIVE: u32 = 0xc000_003e;
    /// AUDIT_ARCH_I386
    pub(super) const COMPAT: u32 = 0x4000_0003;
    pub(super) const COMPAT_BIND: u32 = 361;
    pub(super) const COMPAT_LISTEN: u32 = 363;
    pub(super) const COMPAT_SOCKETCALL: u32 = 102;
    /// The x32 ABI marks its calls with this bit.
    pub(super) const X32: u32 = 0x4000_0000;
}

#[cfg(target_arch = "aarch64")]
mod arch {
    /// AUDIT_ARCH_AARCH64
    pub(super) const NATIVE: u32 = 0xc000_00b7;
    /// AUDIT_ARCH_ARM
    pub(super) const COMPAT: u32 = 0x4000_0028;
    pub(super) const COMPAT_BIND: u32 = 282;
    pub(super) const COMPAT_LISTEN: u32 = 284;
    /// The EABI has no socketcall; a number that no call has.
    pub(super) const COMPAT_SOCKETCALL: u32 = 0x000f_ffff;
    pub(super) const X32: u32 = 0;
}

const SYS_BIND: u32 = libc::SYS_bind as u32;
const SYS_LISTEN: u32 = libc::SYS_listen as u32;

/// The filter: `bind` and `listen` are sent to the supervisor, everything else goes on. Calls that are decided
/// by their number alone cost next to nothing, because the kernel keeps a bitmap of them (Linux 5.11).
fn program(binds: Binds) -> Vec<libc::sock_filter> {
    use arch::{COMPAT, COMPAT_BIND, COMPAT_LISTEN, COMPAT_SOCKETCALL, NATIVE, X32};
    // Positions of the four ends, counted from the start of the program.
    const CHECK: u8 = 13;
    const NOTIFY: u8 = 18;
    const ALLOW: u8 = 17;
    let to = |target: u8, from: u8| target - from - 1;
    let checked = match binds {
        Binds::Internet => CHECK,
        Binds::All => NOTIFY,
    };
    vec![
        /* 0 */ op(LD_ABS, 0, 0, OFFSET_ARCH),
        /* 1 */ op(JEQ, to(4, 1), 0, NATIVE),
        /* 2 */ op(JEQ, to(9, 2), 0, COMPAT),
        /* 3 */ op(RET, 0, 0, libc::SECCOMP_RET_ALLOW),
        /* 4 */ op(LD_ABS, 0, 0, OFFSET_NR),
        /* 5 */ op(JEQ, to(checked, 5), 0, SYS_BIND),
        /* 6 */ op(JEQ, to(NOTIFY, 6), 0, SYS_LISTEN),
        /* 7 */ op(JEQ, to(checked, 7), 0, X32 | SYS_BIND),
        /* 8 */ op(JEQ, to(NOTIFY, 8), to(ALLOW, 8), X32 | SYS_LISTEN),
        /* 9 */ op(LD_ABS, 0, 0, OFFSET_NR),
        /* 10 */ op(JEQ, to(checked, 10), 0, COMPAT_BIND),
        /* 11 */ op(JEQ, to(NOTIFY, 11), 0, COMPAT_LISTEN),
        /* 12 */ op(JEQ, to(19, 12), to(ALLOW, 12), COMPAT_SOCKETCALL),
        /* 13, CHECK */ op(LD_ABS, 0, 0, offset_arg(2)),
        /* 14 */ op(JEQ, to(NOTIFY, 14), 0, size_of::<libc::sockaddr_in>() as u32),
        /* 15 */ op(JEQ, to(NOTIFY, 15), 0, size_of::<libc::sockaddr_in6>() as u32),
        /* 16 */ op(RET, 0, 0, libc::SECCOMP_RET_ALLOW),
        /* 17, ALLOW */ op(RET, 0, 0, libc::SECCOMP_RET_ALLOW),
        /* 18, NOTIFY */ op(RET, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        /* 19, socketcall */ op(LD_ABS, 0, 0, offset_arg(0)),
        /* 20: SYS_BIND */ op(JEQ, 1, 0, 2),
        /* 21: SYS_LISTEN */ op(JEQ, 0, 1, 4),
        /* 22 */ op(RET, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        /* 23 */ op(RET, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

/// A filter made ready before a fork, so that installing it allocates nothing.
pub struct Filter {
    program: Vec<libc::sock_filter>,
}

impl Filter {
    /// Stops `listen` and the `bind` calls asked for.
    pub fn new(binds: Binds) -> Self {
        Self { program: program(binds) }
    }

    /// Puts the calling thread, and all it will execute, under the filter and gives the descriptor on which its
    /// calls are announced. Needs CAP_SYS_ADMIN or `no_new_privs`. There is no way back.
    ///
    /// Allocates nothing and takes no lock: may be called between fork and exec.
    ///
    /// Errors: EBUSY, another notifier exists above; EACCES, neither CAP_SYS_ADMIN nor `no_new_privs`;
    /// EINVAL or ENOSYS, the kernel has no user notification.
    pub fn install(&self) -> io::Result<OwnedFd> {
        let program = libc::sock_fprog {
            len: self.program.len() as libc::c_ushort,
            filter: self.program.as_ptr().cast_mut(),
        };
        // SPEC_ALLOW: before 5.16 a filter otherwise turns on costly mitigations for the whole process.
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        let install = |flags: libc::c_ulong| {
            // SAFETY: seccomp(2) reads `program`, which points to an array of `len` instructions that lives in
            // `self` for the whole call; it writes nothing.
            let r = unsafe {
                libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_SET_MODE_FILTER as libc::c_ulong,
                    flags,
                    &raw const program,
                )
            };
            RawFd::try_from(r).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)
        };
        // WAIT_KILLABLE_RECV (5.19): signals such as Go's SIGURG can't restart the call for ever.
        let fd = match install(flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => install(flags)?,
            other => other?,
        };
        // SAFETY: the call has just made this descriptor for us; nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// Takes the next waiting call. Wait for `POLLIN` first: this blocks when nothing waits.
///
/// Errors: ENOENT, the caller has gone (its signal or its death came first), or all users of the filter have
/// (then for ever: watch for `POLLHUP`). Before 6.11 it does not return at all in that case.
pub fn receive(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    // SAFETY: all-zero is a valid value of this plain structure, and the kernel demands it.
    let mut raw: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: NOTIF_RECV writes one `seccomp_notif` to the address given, which is large enough: the ioctl's
    // number carries the size.
    let r = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut raw) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Notification { id: raw.id, tid: raw.pid, call: call(&raw.data), args: raw.data.args })
}

fn call(data: &libc::seccomp_data) -> Call {
    let nr = data.nr as u32;
    match data.arch {
        arch::NATIVE if nr & !arch::X32 == SYS_BIND => Call::Bind,
        arch::NATIVE if nr & !arch::X32 == SYS_LISTEN => Call::Listen,
        arch::COMPAT if nr == arch::COMPAT_BIND => Call::Bind,
        arch::COMPAT if nr == arch::COMPAT_LISTEN => Call::Listen,
        arch::COMPAT if nr == arch::COMPAT_SOCKETCALL => Call::SocketCall,
        _ => Call::Other,
    }
}

/// Does the call still wait? To be asked after its process's memory or descriptors were looked at by process
/// ID: if yes, it was that process and not a later one with the same number.
pub fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: NOTIF_ID_VALID reads one u64 at the address given.
    let r =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID as _, &raw const id) };
    r == 0
}

fn send(listener: BorrowedFd<'_>, id: u64, value: i64, error: i32, flags: u32) -> io::Result<()> {
    let mut answer = libc::seccomp_notif_resp { id, val: value, error: -error, flags };
    // SAFETY: NOTIF_SEND reads one `seccomp_notif_resp` at the address given.
    let r =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw mut answer) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets the kernel carry out the call as it was made. ENOENT: the caller has gone.
pub fn let_go_on(listener: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    send(listener, id, 0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32)
}

/// The call returns `value` without having been carried out.
pub fn answer(listener: BorrowedFd<'_>, id: u64, value: i64) -> io::Result<()> {
    send(listener, id, value, 0, 0)
}

/// The call fails with this error number (positive, as EADDRINUSE).
pub fn refuse(listener: BorrowedFd<'_>, id: u64, errno: i32) -> io::Result<()> {
    send(listener, id, 0, errno, 0)
}

/// Puts a duplicate of `source` in place of the caller's descriptor `target`; the call still waits for its
/// answer. Since Linux 5.9.
pub fn replace_descriptor(
    listener: BorrowedFd<'_>,
    id: u64,
    source: impl AsFd,
    target: u32,
    close_on_exec: bool,
) -> io::Result<()> {
    let mut request = libc::seccomp_notif_addfd {
        id,
        flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
        srcfd: source.as_fd().as_raw_fd() as u32,
        newfd: target,
        newfd_flags: if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 },
    };
    // SAFETY: NOTIF_ADDFD reads one `seccomp_notif_addfd` at the address given; `srcfd` is open for the call.
    let r =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD as _, &raw mut request) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small interpreter of the instructions that the filter uses.
    fn verdict(program: &[libc::sock_filter], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            0 => nr,
            4 => arch,
            o => args[((o - 16) / 8) as usize] as u32,
        };
        let (mut at, mut acc) = (0, 0);
        loop {
            let i = program[at];
            at += 1;
            match i.code {
                LD_ABS => acc = word(i.k),
                JEQ => at += usize::from(if acc == i.k { i.jt } else { i.jf }),
                RET => return i.k,
                c => panic!("unexpected instruction {c:#x}"),
            }
        }
    }

    #[test]
    fn stops_only_at_bind_and_listen() {
        let p = program(Binds::Internet);
        let len = |n: u64| [3, 0, n, 0, 0, 0];
        let (notify, allow) = (libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_RET_ALLOW);
        assert_eq!(verdict(&p, arch::NATIVE, SYS_BIND, len(16)), notify);
        assert_eq!(verdict(&p, arch::NATIVE, SYS_BIND, len(28)), notify);
        assert_eq!(verdict(&p, arch::NATIVE, SYS_BIND, len(110)), allow, "a Unix address");
        assert_eq!(verdict(&p, arch::NATIVE, SYS_BIND, len(12)), allow, "a netlink address");
        assert_eq!(verdict(&p, arch::NATIVE, SYS_LISTEN, len(0)), notify);
        assert_eq!(verdict(&p, arch::NATIVE, libc::SYS_read as u32, len(16)), allow);
        assert_eq!(verdict(&p, 0xdead_beef, SYS_BIND, len(16)), allow, "an unknown architecture");
        assert_eq!(verdict(&p, arch::COMPAT, arch::COMPAT_BIND, len(16)), notify);
        assert_eq!(verdict(&p, arch::COMPAT, arch::COMPAT_BIND, len(17)), allow);
        assert_eq!(verdict(&p, arch::COMPAT, arch::COMPAT_LISTEN, len(0)), notify);
        assert_eq!(verdict(&p, arch::COMPAT, arch::COMPAT_SOCKETCALL, [2, 0, 0, 0, 0, 0]), notify);
        assert_eq!(verdict(&p, arch::COMPAT, arch::COMPAT_SOCKETCALL, [4, 0, 0, 0, 0, 0]), notify);
        assert_eq!(verdict(&p, arch::COMPAT, arch::COMPAT_SOCKETCALL, [5, 0, 0, 0, 0, 0]), allow);
        let all = program(Binds::All);
        assert_eq!(verdict(&all, arch::NATIVE, SYS_BIND, len(110)), notify);
    }
}
