//! A network of its own for each case, so that none finds the entries of another, and connections in it.

use crate::experiment::Failure;
use relisten_diag::sock_diag::{Query, SockDiag, State};
use rustix::net::SocketAddrV4;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Ports of the small range that exhaustion is shown with.
pub(super) const PORTS: usize = 2048;
pub(super) const FIRST_PORT: u16 = 20_000;
/// Servers listen here, outside of the range.
pub(super) const SERVER: u16 = 9_000;

/// Runs something in a network namespace that is made for it, loopback up, with these settings; it is gone afterwards.
pub(super) fn in_own<T: Send>(
    settings: &[(&str, String)],
    body: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let inside = || {
        relisten_sys::netns::unshare_network()
            .map_err(|e| Failure::Skip(format!("a network of its own: {e}")))?;
        relisten_diag::machine::migration::bring_up_loopback()?;
        for (name, value) in settings {
            // `/proc/sys/net` is that of the thread's namespace.
            std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).map_err(|error| {
                Failure::Skip(format!("net.ipv4.{name} can't be set to {value}: {error}"))
            })?;
        }
        body()
    };
    thread::scope(|scope| scope.spawn(inside).join())
        .unwrap_or_else(|_| Err(Failure::Unexpected("a case panicked".to_owned())))
}

/// So many ports for outgoing connections.
pub(super) fn range(ports: usize) -> (&'static str, String) {
    ("ip_local_port_range", format!("{FIRST_PORT} {}", usize::from(FIRST_PORT) + ports - 1))
}

/// Whether, and from whom, TIME_WAIT entries may be taken over: 0 never, 1 always, 2 on loopback (the default).
pub(super) fn reuse(mode: u8) -> (&'static str, String) {
    ("tcp_tw_reuse", mode.to_string())
}

pub(super) fn listen(address: Ipv4Addr, port: u16) -> Result<TcpListener, Failure> {
    TcpListener::bind((address, port)).map_err(Failure::kernel("listen"))
}

/// How the client's end is made and ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    /// Bind this address first.
    pub(super) source: Option<Ipv4Addr>,
    /// With `IP_BIND_ADDRESS_NO_PORT`.
    pub(super) port_later: bool,
    /// `SO_LINGER` with 0: reset instead of close.
    pub(super) reset: bool,
    /// The server's end is closed first.
    pub(super) server_first: bool,
}

/// One connection, made and closed by both. How long `connect` took; `None`: there was no port.
pub(super) fn connect(server: &TcpListener, manner: Manner) -> Result<Option<Duration>, Failure> {
    let address = server.local_addr()?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = manner.source {
        if manner.port_later {
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)
                .map_err(|errno| Failure::kernel("IP_BIND_ADDRESS_NO_PORT")(errno.into()))?;
        }
        match socket.bind(&std::net::SocketAddr::from((source, 0)).into()) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Ok(None),
            bound => bound.map_err(Failure::kernel("bind a source address"))?,
        }
    }
    let begin = Instant::now();
    match socket.connect(&address.into()) {
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => return Ok(None),
        connected => connected.map_err(Failure::kernel("connect"))?,
    }
    let took = begin.elapsed();
    let (accepted, _) = server.accept().map_err(Failure::kernel("accept"))?;
    if manner.reset {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    let client = TcpStream::from(socket);
    if manner.server_first {
        close(accepted, client);
    } else {
        close(client, accepted);
    }
    Ok(Some(took))
}

/// Closes one end, waits until the other knows, and closes that.
fn close(first: TcpStream, mut second: TcpStream) {
    drop(first);
    // 0 bytes, or an error after a reset: it knows either way.
    let _ = second.read(&mut [0]);
}

/// TIME_WAIT entries of clients, and of the server's port, in this namespace.
pub(super) fn time_wait() -> Result<(usize, usize), Failure> {
    let (mut clients, mut server) = (0, 0);
    SockDiag::new()?.dump(&Query::tcp(State::TimeWait), |socket| {
        if socket.local.port() == SERVER { server += 1 } else { clients += 1 }
    })?;
    Ok((clients, server))
}

/// Of a socket, as it is bound.
pub(super) fn local(socket: &impl rustix::fd::AsFd) -> Result<SocketAddrV4, Failure> {
    let address = rustix::net::getsockname(socket)?;
    SocketAddrV4::try_from(address).map_err(|_| Failure::Unexpected("an address that is not IPv4".to_owned()))
}
