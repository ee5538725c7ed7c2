//! A segment that belongs to no connection.

use crate::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// `setsockopt(IPPROTO_TCP, TCP_REPAIR)`, `connect`, and repair off again: sends one bare ACK to this address, from an
/// address of this machine, as if a connection were open. A listener there is looked up for it, by the group's program if
/// there is one, and answers with RST. The listener's process sees nothing. Linux 3.5; TCP_REPAIR needs CAP_NET_ADMIN.
///
/// # Errors
///
/// `EPERM` without the capability; those of `connect` that have to do with addresses and ports.
pub fn acknowledge(to: SocketAddr) -> io::Result<()> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_repair(socket.as_fd(), true)?;
    // Under repair it is open at once, and nothing is sent.
    rustix::net::connect(&socket, &to)?;
    // To come back from repair is to say so: with a probe of the window, which is that ACK.
    sockopt::set_repair(socket.as_fd(), false)?;
    // Goes in silence if nobody answered; has gone already if somebody did.
    let _ = sockopt::set_repair(socket.as_fd(), true);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn needs_net_admin_nobody_sees_it() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            listener.set_nonblocking(true).unwrap();
            acknowledge(listener.local_addr().unwrap()).expect("this test needs CAP_NET_ADMIN");
            assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            // And the listener is none the worse.
            let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            listener.set_nonblocking(false).unwrap();
            listener.accept().unwrap();
        }
    }
}
