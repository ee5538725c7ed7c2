//! Listening for requests, within limits.

use super::route::{self, Scope};
use super::{Problem, ProblemKind, Requests};
use crate::unix;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::SocketType;
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// So many connections may be in the middle of their request; others wait in the listener's queue.
const READING: usize = 256;
/// So many may wait for their answer; others are refused.
const WAITING: usize = 64;
/// How long the header of a request may take.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// How many fields it may have, and how many bytes altogether.
const HEADERS: usize = 64;
const BUFFER: usize = 16 * 1024;
/// How long somebody may take to read an answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// After an error of `accept` (the limit of open files, as a rule).
const PAUSE: Duration = Duration::from_millis(200);

/// The control socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
}

impl Server {
    /// Bind to `path`, mode 0600 from the first moment on. Whoever calls this holds the instance's lock
    /// ([`Place::claim`](super::Place::claim)), so a socket that is there is a leftover. Must be called within a
    /// tokio runtime.
    pub fn bind(path: &Path) -> io::Result<Self> {
        unix::remove_leftover(path)?;
        let socket = unix::listen_private(path, SocketType::STREAM, 64)?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(Self { listener })
    }

    /// Accept and answer for ever. Requests go to the dispatcher through `requests`.
    pub async fn run(self, requests: Requests) {
        let limits = Limits::new();
        loop {
            let permit = limits.reading().await;
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let trusted = stream.peer_cred().is_ok_and(|peer| unix::is_trusted(peer.uid()));
                    let scope = trusted.then_some(Scope::All);
                    tokio::spawn(connection(stream, scope, requests.clone(), limits.clone(), permit));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// Serve `GET /metrics`, and nothing else, on a TCP listener (made by the caller, who also says why that failed)
/// for ever.
pub async fn serve_metrics(listener: OwnedFd, requests: Requests) -> io::Result<Infallible> {
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let limits = Limits::new();
    loop {
        let permit = limits.reading().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(
                    stream,
                    Some(Scope::Metrics),
                    requests.clone(),
                    limits.clone(),
                    permit,
                ));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// One connection with full rights, from its beginning to its end; what `run` does for each.
pub(in crate::runtime) async fn served(stream: impl AsyncRead + AsyncWrite + Unpin, requests: Requests) {
    let limits = Limits::new();
    let permit = limits.reading().await;
    connection(stream, Some(Scope::All), requests, limits, permit).await;
}

#[derive(Clone, Debug)]
struct Limits {
    reading: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Limits {
    fn new() -> Self {
        Self { reading: Arc::new(Semaphore::new(READING)), waiting: Arc::new(Semaphore::new(WAITING)) }
    }

    /// `None` only if somebody closed the semaphore, which nobody does.
    async fn reading(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.reading).acquire_owned().await.ok()
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    scope: Option<Scope>,
    requests: Requests,
    limits: Limits,
    reading: Option<OwnedSemaphorePermit>,
) {
    // Given back when the request is read: it may wait for its answer for as long as a reload takes.
    let reading = Mutex::new(reading);
    let waiting = Mutex::new(None);
    let answered = Notify::new();
    let service = service_fn(|request| {
        let requests = requests.clone();
        let (reading, waiting, answered, limits) = (&reading, &waiting, &answered, &limits);
        async move {
            let Some(scope) = scope else {
                let cure = "use the account that the instance runs under, or root";
                let problem =
                    Problem::new(ProblemKind::Forbidden, "the instance belongs to another user", cure);
                answered.notify_one();
                return Ok::<_, Infallible>(route::refuse(&problem));
            };
            let parsed = || {
                let Ok(permit) = Arc::clone(&limits.waiting).try_acquire_owned() else {
                    let cure = "wait for those that are under way";
                    return Err(Problem::new(
                        ProblemKind::Busy,
                        "too many requests wait for an answer",
                        cure,
                    ));
                };
                *waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
                drop(reading.lock().unwrap_or_else(PoisonError::into_inner).take());
                Ok(())
            };
            let answer = route::answer(request, scope, requests, parsed).await;
            answered.notify_one();
            Ok(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let too_long = async {
        answered.notified().await;
        tokio::time::sleep(ANSWER_TIME).await;
    };
    tokio::select! {
        // Whatever is wrong with a connection is the other end's to see.
        _ = served => {},
        () = too_long => {},
    }
}
