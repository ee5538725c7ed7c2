//! Making one listener like another.

use super::{get, get_bytes, set, set_bytes};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// An option that could not be copied.
#[derive(Debug)]
pub struct Uncopied {
    /// Its C name.
    pub option: &'static str,
    /// What the kernel said.
    pub error: io::Error,
}

enum Kind {
    Int,
    /// The kernel doubles what is set and tells the double.
    Doubled,
    Bytes,
    Linger,
    Time,
}

struct Entry {
    name: &'static str,
    level: libc::c_int,
    option: libc::c_int,
    kind: Kind,
}

macro_rules! options {
    ($($level:ident: $($name:ident $(= $value:literal)? $kind:ident),+;)+) => {
        &[$($(Entry {
            name: stringify!($name),
            level: libc::$level,
            option: options!(@value $name $($value)?),
            kind: Kind::$kind,
        }),+),+]
    };
    (@value $name:ident) => { libc::$name };
    (@value $name:ident $value:literal) => { $value };
}

/// Everything that a server may have set on its listener before `listen` and that can be read back. Not among
/// them: TCP-MD5 and TCP-AO keys, attached programs, multicast membership.
static OPTIONS: &[Entry] = options! {
    SOL_SOCKET:
        SO_REUSEADDR Int, SO_REUSEPORT Int, SO_KEEPALIVE Int, SO_RCVBUF Doubled, SO_SNDBUF Doubled,
        SO_RCVLOWAT Int, SO_LINGER Linger, SO_RCVTIMEO Time, SO_SNDTIMEO Time, SO_PRIORITY Int, SO_MARK Int,
        SO_OOBINLINE Int, SO_DONTROUTE Int, SO_BROADCAST Int, SO_BUSY_POLL Int, SO_PREFER_BUSY_POLL = 69 Int,
        SO_INCOMING_CPU Int, SO_ZEROCOPY = 60 Int, SO_MAX_PACING_RATE = 47 Int, SO_PASSCRED Int, SO_RXQ_OVFL Int,
        SO_TIMESTAMP Int, SO_TIMESTAMPNS = 35 Int, SO_TXREHASH = 74 Int, SO_BINDTODEVICE Bytes;
    IPPROTO_IP:
        IP_TOS Int, IP_TTL Int, IP_MINTTL = 21 Int, IP_FREEBIND Int, IP_TRANSPARENT Int, IP_PKTINFO Int,
        IP_RECVTOS Int, IP_RECVTTL Int, IP_RECVERR Int, IP_RECVORIGDSTADDR = 20 Int, IP_MTU_DISCOVER Int;
    IPPROTO_IPV6:
        IPV6_V6ONLY Int, IPV6_UNICAST_HOPS Int, IPV6_MINHOPCOUNT = 73 Int, IPV6_TCLASS Int, IPV6_FREEBIND = 78 Int,
        IPV6_TRANSPARENT Int, IPV6_RECVPKTINFO Int, IPV6_RECVTCLASS Int, IPV6_RECVHOPLIMIT Int, IPV6_RECVERR Int,
        IPV6_MTU_DISCOVER Int, IPV6_DONTFRAG Int, IPV6_AUTOFLOWLABEL = 70 Int;
    IPPROTO_TCP:
        TCP_NODELAY Int, TCP_CORK Int, TCP_DEFER_ACCEPT Int, TCP_FASTOPEN Int, TCP_FASTOPEN_NO_COOKIE = 34 Int,
        TCP_KEEPIDLE Int, TCP_KEEPINTVL Int, TCP_KEEPCNT Int, TCP_USER_TIMEOUT Int, TCP_SYNCNT Int,
        TCP_LINGER2 Int, TCP_MAXSEG Int, TCP_WINDOW_CLAMP Int, TCP_CONGESTION Bytes,
        TCP_NOTSENT_LOWAT = 25 Int, TCP_SAVE_SYN = 27 Int, TCP_THIN_LINEAR_TIMEOUTS Int, TCP_RTO_MAX_MS = 44 Int,
        TCP_RTO_MIN_US = 45 Int, TCP_DELACK_MAX_US = 46 Int;
    IPPROTO_UDP:
        UDP_CORK Int, UDP_SEGMENT = 103 Int, UDP_GRO = 104 Int;
};

/// Gives `to` the options of `from`, and its O_NONBLOCK. What already agrees is left alone (a default must not
/// turn into a setting), and so is what neither socket knows. Both are to be of one family and protocol, `to`
/// not yet bound (IPV6_V6ONLY can't be set later).
///
/// Returns what could not be copied, SO_MARK without CAP_NET_ADMIN for one.
pub fn copy_listener_options(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Vec<Uncopied> {
    let mut uncopied = Vec::new();
    if let Err(error) = copy_nonblocking(from, to) {
        uncopied.push(Uncopied { option: "O_NONBLOCK", error });
    }
    for entry in OPTIONS {
        match copy(entry, from, to) {
            Err(error) if !is_absent(&error) => uncopied.push(Uncopied { option: entry.name, error }),
            _ => {}
        }
    }
    uncopied
}

/// The option does not exist for this kind of socket, or on this kernel.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP))
}

fn copy(entry: &Entry, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let &Entry { level, option, ref kind, .. } = entry;
    // An error in reading says that there is nothing to copy; only one in setting (below) is of interest.
    match kind {
        Kind::Int | Kind::Doubled => {
            let Ok(have) = get::<i32>(from, level, option) else { return Ok(()) };
            if get::<i32>(to, level, option).is_ok_and(|is| is == have) {
                return Ok(());
            }
            if matches!(kind, Kind::Doubled) {
                return set_buffer(to, level, option, have);
            }
            set(to, level, option, &have)
        }
        Kind::Bytes => {
            let Ok(have) = get_bytes::<64>(from, level, option) else { return Ok(()) };
            if get_bytes::<64>(to, level, option).is_ok_and(|is| is == have) {
                return Ok(());
            }
            set_bytes(to, level, option, &have)
        }
        Kind::Linger => {
            let Ok(have) = get::<libc::linger>(from, level, option) else { return Ok(()) };
            if have.l_onoff == 0 { Ok(()) } else { set(to, level, option, &have) }
        }
        Kind::Time => {
            let Ok(have) = get::<libc::timeval>(from, level, option) else { return Ok(()) };
            if have.tv_sec == 0 && have.tv_usec == 0 { Ok(()) } else { set(to, level, option, &have) }
        }
    }
}

/// Sets a buffer's size and looks whether it holds: what is above `net.core.rmem_max` is cut without an error.
fn set_buffer(to: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, doubled: i32) -> io::Result<()> {
    set(to, level, option, &(doubled / 2))?;
    let now: i32 = get(to, level, option)?;
    if now >= doubled {
        return Ok(());
    }
    Err(io::Error::other(format!("cut from {doubled} to {now} bytes: raise net.core.rmem_max or wmem_max")))
}

fn copy_nonblocking(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let wanted = status_flags(from)? & libc::O_NONBLOCK;
    let flags = status_flags(to)? & !libc::O_NONBLOCK | wanted;
    // SAFETY: F_SETFL takes an integer; the descriptor is borrowed and so open.
    if unsafe { libc::fcntl(to.as_raw_fd(), libc::F_SETFL, flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn status_flags(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: F_GETFL takes no argument; the descriptor is borrowed and so open.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 { Err(io::Error::last_os_error()) } else { Ok(flags) }
}
