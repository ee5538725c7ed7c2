//! `GET` on a worker's own listener.

use crate::sockets::ProbeTarget;
use rustix::net::sockopt;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

/// A probe for readiness that takes longer has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What came of a probe.
#[derive(Debug)]
pub(super) struct Probed {
    /// The worker accepted it; else it may wait in the queue still.
    pub(super) answered: bool,
    /// Well, if the answer's status is 200 to 399. Otherwise in words what is wrong.
    pub(super) result: Result<(), String>,
}

/// The worker has so long to answer.
pub(super) async fn get(target: ProbeTarget, path: &str, patience: Duration) -> Probed {
    let failed = |why| Probed { answered: false, result: Err(why) };
    match tokio::time::timeout(patience, exchange(target, path)).await {
        Err(_) => failed(format!("no answer within {} ms", patience.as_millis())),
        Ok(Err(error)) => failed(error.to_string()),
        Ok(Ok(200..400)) => Probed { answered: true, result: Ok(()) },
        Ok(Ok(status)) => Probed { answered: true, result: Err(format!("status {status}")) },
    }
}

async fn exchange(target: ProbeTarget, path: &str) -> io::Result<u16> {
    let socket = TcpSocket::from_std_stream(TcpStream::from(target.socket));
    // Given up, it must not look like a client that waits for its answer: the worker could never be quiet.
    let reset = |socket: BorrowedFd<'_>, yes: bool| {
        sockopt::set_socket_linger(socket, yes.then_some(Duration::ZERO)).map_err(io::Error::from)
    };
    reset(socket.as_fd(), true)?;
    let mut stream = socket.connect(target.to).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: relisten\r\nConnection: close\r\n\r\n",
        target.to
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(256);
    // "HTTP/1.1 200" is all that is needed; the rest is read, so that the worker sees a client that listens.
    let mut piece = [0; 512];
    loop {
        let n = stream.read(&mut piece).await?;
        if n == 0 || head.len() > 64 * 1024 {
            break;
        }
        head.extend_from_slice(&piece[..n]);
    }
    reset(stream.as_fd(), false)?;
    status(&head).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(rest).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_the_status() {
        assert_eq!(super::status(b"HTTP/1.1 204 No Content\r\n\r\n"), Some(204));
        assert_eq!(super::status(b"HTTP/1.0 200 OK"), Some(200));
        for bad in [&b"SSH-2.0"[..], b"HTTP/1.1 ", b"", b"HTTP/1.1 x00"] {
            assert_eq!(super::status(bad), None);
        }
    }
}
