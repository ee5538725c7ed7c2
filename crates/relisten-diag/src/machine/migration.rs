//! What becomes of a closed listener's queue on this kernel: tried, not looked up.

use super::Migration;
use crate::DiagError;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SendFlags, SocketAddrV4, SocketFlags, SocketType, sockopt};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// So many connections are made: the chance that all of them come to the same listener is 2 to the power of -31.
const CONNECTIONS: usize = 32;
/// Who is not woken after this time is not woken at all.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Enters a network namespace of its own and tries it there: two listeners of one group, connections that wait on the
/// first, an epoll instance that watches the second; then the first is closed. Call it in a process with one thread
/// that is to end afterwards: there is no way back.
pub fn try_in_own_namespace() -> Result<Migration, DiagError> {
    let failed = |what: &'static str| move |e: std::io::Error| DiagError::proc(what, e);
    relisten_sys::netns::unshare_network().map_err(failed("a network namespace of its own"))?;
    bring_up_loopback().map_err(|e| failed("loopback")(e.into()))?;
    if std::fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "1").is_err() {
        return Ok(Migration::Absent);
    }
    try_here().map_err(|e| failed("two listeners on loopback")(e.into()))
}

/// Brings up loopback in this thread's network namespace: `RTM_NEWLINK` with `IFF_UP` for interface 1, which is `lo` in
/// every namespace (rtnetlink(7)). Needs CAP_NET_ADMIN there.
pub fn bring_up_loopback() -> Result<(), Errno> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_ACK: u16 = 5;
    const IFF_UP: u32 = 1;
    // NETLINK_ROUTE is 0.
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let mut message = Vec::with_capacity(32);
    message.extend_from_slice(&32u32.to_ne_bytes());
    message.extend_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message.extend_from_slice(&NLM_F_REQUEST_ACK.to_ne_bytes());
    message.extend_from_slice(&[0; 12]); // sequence, port; family, padding, type
    message.extend_from_slice(&1i32.to_ne_bytes());
    message.extend_from_slice(&IFF_UP.to_ne_bytes());
    message.extend_from_slice(&IFF_UP.to_ne_bytes());
    net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 1024];
    let (_, length) = net::recv(&socket, &mut answer[..], net::RecvFlags::empty())?;
    // `struct nlmsgerr` begins with the negative error number.
    let number = answer.get(16..20).filter(|_| length >= 20).and_then(|bytes| bytes.try_into().ok());
    match number.map_or(0, i32::from_ne_bytes) {
        0 => Ok(()),
        number => Err(Errno::from_raw_os_error(number.wrapping_neg())),
    }
}

fn listener(port: u16) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    net::listen(&socket, CONNECTIONS as i32 * 2)?;
    Ok(socket)
}

/// The namespace's setting must be on.
fn try_here() -> Result<Migration, Errno> {
    let leaving = listener(0)?;
    let address = SocketAddr::try_from(net::getsockname(&leaving)?).map_err(|_| Errno::AFNOSUPPORT)?;
    let staying = listener(address.port())?;
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&set, &staying, epoll::EventData::new_u64(1), epoll::EventFlags::IN)?;
    let connect =
        |_| TcpStream::connect_timeout(&address, Duration::from_secs(2)).map_err(|_| Errno::CONNREFUSED);
    let _clients: Vec<TcpStream> = (0..CONNECTIONS).map(connect).collect::<Result<_, _>>()?;
    accept_all(&staying)?;
    // What is on the ready list only because of what has been accepted goes from it.
    while woken(&set, Timespec { tv_sec: 0, tv_nsec: 0 })? {}
    drop(leaving);
    let was_woken = woken(&set, PATIENCE)?;
    Ok(match (accept_all(&staying)?, was_woken) {
        (0, _) => Migration::Absent,
        (_, true) => Migration::Works,
        (_, false) => Migration::DoesNotWake,
    })
}

fn woken(set: &OwnedFd, timeout: Timespec) -> Result<bool, Errno> {
    let mut events = Vec::with_capacity(1);
    loop {
        match epoll::wait(set.as_fd(), rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

fn accept_all(listener: &OwnedFd) -> Result<usize, Errno> {
    let mut count = 0;
    loop {
        match net::accept(listener) {
            Ok(_) => count += 1,
            Err(Errno::AGAIN) => return Ok(count),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_setting_the_queue_is_lost() {
        // In the namespace that the tests run in, whose setting is off unless somebody has changed it.
        let on = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req").unwrap_or_default();
        let found = try_here().unwrap();
        assert_eq!(found == Migration::Absent, on.trim() != "1", "{found:?}, {on:?}");
    }
}
