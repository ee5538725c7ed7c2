//! Accepting, and going on accepting whatever happens.

use super::connection;
use super::listeners::Accepting;
use super::server::Server;
use crate::say;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// At stop no more than this are taken from a queue: behind a listener that others serve too, it may never be
/// empty.
const LAST_ACCEPTS: usize = 65_536;

/// Accepts until the server stops, and then what is left in the queue. Closes the listener.
pub(super) async fn run(listener: Accepting, server: Arc<Server>) {
    tokio::select! {
        () = server.stopped() => {}
        () = accept_for_ever(&listener, &server) => {}
    }
    accept_what_waits(&listener, &server);
}

async fn accept_for_ever(listener: &Accepting, server: &Arc<Server>) {
    let mut trouble = Trouble::default();
    loop {
        while server.is_full() {
            server.one_closed().await;
        }
        let accepted = match listener {
            Accepting::Tcp(listener) => tcp(listener, server).await,
            Accepting::Unix(listener) => unix(listener, server).await,
        };
        match accepted {
            Ok(()) => trouble.is_over(),
            Err(error) => trouble.wait(&error).await,
        }
    }
}

async fn tcp(listener: &TcpListener, server: &Arc<Server>) -> io::Result<()> {
    let (stream, peer) = listener.accept().await?;
    start_tcp(stream, peer, server);
    Ok(())
}

async fn unix(listener: &UnixListener, server: &Arc<Server>) -> io::Result<()> {
    let (stream, _) = listener.accept().await?;
    start_unix(stream, server);
    Ok(())
}

fn start_tcp(stream: TcpStream, peer: SocketAddr, server: &Arc<Server>) {
    tokio::spawn(connection::run(stream, Some(peer), server.open(), Arc::clone(server)));
}

fn start_unix(stream: UnixStream, server: &Arc<Server>) {
    tokio::spawn(connection::run(stream, None, server.open(), Arc::clone(server)));
}

/// Takes what is in the queue right now. Asks the kernel itself: the event loop may not have been told of it yet.
fn accept_what_waits(listener: &Accepting, server: &Arc<Server>) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    for _ in 0..LAST_ACCEPTS {
        let accepted = match listener {
            Accepting::Tcp(listener) => accept_with(listener, flags),
            Accepting::Unix(listener) => accept_with(listener, flags),
        };
        let fd = match accepted {
            Ok(fd) => fd,
            Err(Errno::CONNABORTED | Errno::INTR) => continue,
            Err(_) => return,
        };
        let started = match listener {
            Accepting::Tcp(_) => TcpStream::from_std(fd.into()).and_then(|stream| {
                let peer = stream.peer_addr()?;
                start_tcp(stream, peer, server);
                Ok(())
            }),
            Accepting::Unix(_) => UnixStream::from_std(fd.into()).map(|stream| start_unix(stream, server)),
        };
        // A connection that is gone already has no peer.
        drop(started);
    }
}

/// What to do when `accept` fails.
#[derive(Debug, Default)]
struct Trouble {
    pause: Duration,
    said: Option<Instant>,
}

impl Trouble {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_secs(1);
    const SAY_EVERY: Duration = Duration::from_secs(10);

    fn is_over(&mut self) {
        self.pause = Duration::ZERO;
    }

    /// Waits a moment if the error will not go away by itself: at EMFILE the connection stays in the queue, and
    /// accepting at once again would burn the CPU that could close some.
    async fn wait(&mut self, error: &io::Error) {
        if concerns_one_connection(error) {
            return;
        }
        self.say(error);
        self.pause = (self.pause * 2).clamp(Self::FIRST, Self::LONGEST);
        tokio::time::sleep(self.pause).await;
    }

    fn say(&mut self, error: &io::Error) {
        if self.said.is_none_or(|said| said.elapsed() >= Self::SAY_EVERY) {
            self.said = Some(Instant::now());
            say::note(&format!("connections can't be accepted at the moment: {error}; trying again"));
        }
    }
}

/// Errors of the one connection that would have been accepted (accept(2), "Error handling").
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::INTR
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::NETUNREACH
        )
    )
}
