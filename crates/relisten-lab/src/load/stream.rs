//! One connection: TCP, with or without TLS, or Unix.

use super::TargetAddress;
use super::tls::Tls;
use rustix::net::RecvFlags;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectFailure {
    /// No socket could be made: our own shortage.
    NoSocket(io::Error),
    /// The socket could not be connected.
    Connect(io::Error),
}

impl Stream {
    /// Connects, from `source` if given.
    pub(super) async fn connect(
        address: &TargetAddress,
        source: Option<IpAddr>,
    ) -> Result<Stream, ConnectFailure> {
        match address {
            TargetAddress::Tcp(address) => {
                let socket = tcp_socket(*address)?;
                if let Some(source) = source {
                    bind(&socket, source).map_err(ConnectFailure::Connect)?;
                }
                let socket = TcpSocket::from_std_stream(socket.into());
                socket.connect(*address).await.map(Stream::Tcp).map_err(ConnectFailure::Connect)
            }
            TargetAddress::Unix(path) => loop {
                match UnixStream::connect(path).await {
                    // The queue is full. A blocking client would wait in `connect`; so do we, by asking again.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Err(error) if is_shortage(&error) => return Err(ConnectFailure::NoSocket(error)),
                    result => return result.map(Stream::Unix).map_err(ConnectFailure::Connect),
                }
            },
        }
    }

    /// Makes TLS of a TCP connection; what else there is stays as it is.
    pub(super) async fn secure(self, tls: &Tls) -> io::Result<Stream> {
        match self {
            Stream::Tcp(stream) => Ok(Stream::Tls(Box::new(tls.handshake(stream).await?))),
            other => Ok(other),
        }
    }

    pub(super) async fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.write_all(data).await,
            Stream::Tls(stream) => {
                stream.write_all(data).await?;
                stream.flush().await
            }
            Stream::Unix(stream) => stream.write_all(data).await,
        }
    }

    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer).await,
            Stream::Tls(stream) => stream.read(buffer).await,
            Stream::Unix(stream) => stream.read(buffer).await,
        }
    }

    /// Whether an idle connection can no longer be used: closed or reset by the server, or it said something
    /// that nobody asked for. Asks the kernel, because the event loop may not have been told yet.
    pub(super) fn is_stale(&mut self) -> bool {
        let mut byte = [0_u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = match self {
            Stream::Tcp(stream) => rustix::net::recv(stream, &mut byte, flags),
            Stream::Tls(stream) => {
                let (socket, session) = stream.get_mut();
                // What has been read from the socket already: more answer than asked for, or the announced close.
                let read = session.process_new_packets();
                if read.is_err()
                    || read.is_ok_and(|state| state.plaintext_bytes_to_read() > 0 || state.peer_has_closed())
                {
                    return true;
                }
                rustix::net::recv(socket, &mut byte, flags)
            }
            Stream::Unix(stream) => rustix::net::recv(stream, &mut byte, flags),
        };
        !matches!(peeked, Err(rustix::io::Errno::AGAIN))
    }

    /// Closes in good order. With TLS the server is told first, if that needs no waiting.
    pub(super) fn close(self) {
        if let Stream::Tls(mut stream) = self {
            let (socket, session) = stream.get_mut();
            session.send_close_notify();
            // It may have closed already, and then it doesn't want to know.
            let _ = session.write_tls(&mut Now(socket));
        }
    }
}

/// Writes what the kernel takes at once.
struct Now<'a>(&'a TcpStream);

impl io::Write for Now<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.try_write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tcp_socket(address: SocketAddr) -> Result<Socket, ConnectFailure> {
    Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))
        .map_err(ConnectFailure::NoSocket)
}

/// Binds the address but not a port: with IP_BIND_ADDRESS_NO_PORT (Linux 4.2, ip(7)) `connect` chooses it,
/// knowing the whole four-tuple, so that one port serves many destinations.
fn bind(socket: &Socket, source: IpAddr) -> io::Result<()> {
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::new(source, 0).into())
}

/// Whether the error is our own lack of descriptors or memory.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}
