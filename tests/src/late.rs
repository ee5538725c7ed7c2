//! Clients whose handshake is late.
//!
//! A classic socket filter on the client's socket drops what the server answers, so that the server has a half-open
//! request and goes on sending its SYN+ACK (after 1, 3 and 7 s). With the filter gone, the next one is answered:
//! the last ACK of the handshake comes seconds after its SYN. Some kernels (6.18.44 is one) ask for CAP_NET_ADMIN to
//! attach a filter.

use crate::http::{Connection, Response};
use socket2::{Domain, SockFilter, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// A client that has sent its SYN and is deaf for the answer.
#[derive(Debug)]
pub struct Client {
    socket: Option<Socket>,
    address: SocketAddr,
}

/// `BPF_RET | BPF_K` with 0: keep nothing of the packet, that is, drop it.
const DROP_ALL: [SockFilter; 1] = [SockFilter::new(0x06, 0, 0, 0)];

impl Client {
    /// Sends the SYN.
    #[track_caller]
    pub fn begin(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        socket.attach_filter(&DROP_ALL).expect("SO_ATTACH_FILTER");
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            other => panic!("connect: {other:?}"),
        }
        Self { socket: Some(socket), address }
    }

    /// Hears again: the server's next SYN+ACK will be acknowledged.
    #[track_caller]
    pub fn acknowledge(&mut self) {
        let socket = self.socket.as_ref().expect("not used up");
        socket.detach_filter().expect("SO_DETACH_FILTER");
    }

    /// Waits for the connection and asks once.
    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let socket = self.socket.take().ok_or(io::ErrorKind::NotConnected)?;
        // The next SYN+ACK may be eight seconds away.
        let bound = Timespec { tv_sec: 20, tv_nsec: 0 };
        if poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&bound))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        socket.set_nonblocking(false)?;
        let mut connection = Connection::over(socket.into(), self.address, Duration::from_secs(10))?;
        connection.send(path, false)?;
        connection.receive()
    }
}
