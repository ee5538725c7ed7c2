//! One connection, from accept to close, and what a stop means for it.
//!
//! Server libraries close idle connections at once when they are told to stop, and take a connection that was
//! accepted a moment ago for an idle one, although its request may be waiting in the socket: the client then gets
//! a reset. So a connection is not closed but let go: whatever request still comes is answered with
//! `Connection: close`, and only who sends nothing for a while is closed.

use super::server::{Open, Server};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long a client may take for the TLS handshake, or for the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// How long a connection may stay between two requests.
const IDLE_TIME: Duration = Duration::from_secs(75);
/// How long a client may take no data of an answer.
const SEND_TIME: Duration = Duration::from_secs(60);
/// At stop: how long a connection without any request yet may still send one.
pub(super) const LAST_FIRST_REQUEST: Duration = Duration::from_secs(2);
/// At stop: how long an idle connection may still send a request.
const LAST_REQUEST: Duration = Duration::from_millis(300);
/// At stop: how often a connection is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a connection is doing. Shared with its requests and their bodies.
#[derive(Debug)]
pub(super) struct Progress {
    began: Instant,
    requests: AtomicU32,
    busy: AtomicU32,
    is_http2: AtomicBool,
    /// When something last happened, in milliseconds since `began`.
    last: AtomicU64,
}

/// A request being served; it counts until this is dropped.
#[derive(Debug)]
pub(super) struct Busy(Arc<Progress>);

impl Progress {
    fn new() -> Progress {
        Progress {
            began: Instant::now(),
            requests: AtomicU32::new(0),
            busy: AtomicU32::new(0),
            is_http2: AtomicBool::new(false),
            last: AtomicU64::new(0),
        }
    }

    fn request(self: &Arc<Self>, version: Version) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.is_http2.store(version == Version::HTTP_2, Ordering::Relaxed);
        self.moved();
        Busy(Arc::clone(self))
    }

    fn moved(&self) {
        self.last.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// Until when the connection may go on as it does. `stopped`: since when the server stops.
    fn deadline(&self, stopped: Option<Instant>) -> Instant {
        let last = self.last();
        if self.is_busy() {
            return last + SEND_TIME;
        }
        let fresh = self.requests.load(Ordering::Relaxed) == 0;
        match (stopped, fresh) {
            (None, true) => last + HEAD_TIME,
            (None, false) => last + IDLE_TIME,
            (Some(stopped), true) => last.max(stopped) + LAST_FIRST_REQUEST,
            (Some(stopped), false) => last.max(stopped) + LAST_REQUEST,
        }
    }
}

impl Busy {
    /// The client has taken data.
    pub(super) fn moved(&self) {
        self.0.moved();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
        self.0.moved();
    }
}

/// How all connections speak HTTP.
pub(super) fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    // Time is kept here, for both versions and from the first byte on.
    http.http1().timer(TokioTimer::new()).header_read_timeout(None).max_headers(100).max_buf_size(64 * 1024);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(128)
        .max_header_list_size(64 * 1024)
        .max_send_buf_size(256 * 1024);
    http
}

/// Serves one connection to its end.
pub(super) async fn run<S>(stream: S, peer: Option<SocketAddr>, open: Open, server: Arc<Server>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match &server.tls {
        None => serve(stream, peer, &server).await,
        Some(tls) => {
            // Who can't finish the handshake is not served; that is between him and his settings.
            if let Some(stream) = in_time(tls.accept(stream), &server).await {
                serve(stream, peer, &server).await;
            }
        }
    }
    drop(open);
}

/// The TLS handshake, for which there is less time when the server stops.
async fn in_time<T>(handshake: impl Future<Output = io::Result<T>>, server: &Server) -> Option<T> {
    let hurried = async {
        server.stopped().await;
        sleep(LAST_FIRST_REQUEST).await;
    };
    tokio::select! {
        result = timeout(HEAD_TIME, handshake) => result.ok()?.ok(),
        () = hurried => None,
    }
}

async fn serve<S>(stream: S, peer: Option<SocketAddr>, server: &Arc<Server>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let progress = Arc::new(Progress::new());
    let service = service_fn(|request: Request<Incoming>| {
        let busy = progress.request(request.version());
        let answer = server.site.answer(&request, peer, server.is_stopping(), busy);
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let connection = server.http.serve_connection(TokioIo::new(stream), service);
    let stop = server.stopped();
    let timer = sleep_until(progress.deadline(None));
    tokio::pin!(connection, stop, timer);
    let mut stopped = None;
    let mut told = None;
    loop {
        tokio::select! {
            // What has come is looked at before the time.
            biased;
            // Errors are the client's affair: it went away, or does not speak HTTP.
            _ = connection.as_mut() => return,
            () = stop.as_mut(), if stopped.is_none() => stopped = Some(Instant::now()),
            () = timer.as_mut() => {}
        }
        let now = Instant::now();
        let deadline = match told {
            Some(told) if !progress.is_busy() => progress.last().max(told) + LAST_FIRST_REQUEST,
            _ => progress.deadline(stopped),
        };
        // HTTP/2 can say at any time that no further request is taken. HTTP/1 is closed by it if nothing has come
        // since, so it must be idle.
        let is_http2 = progress.is_http2.load(Ordering::Relaxed);
        if told.is_none() && ((is_http2 && stopped.is_some()) || (now >= deadline && !progress.is_busy())) {
            connection.as_mut().graceful_shutdown();
            told = Some(now);
        } else if now >= deadline {
            return;
        }
        let looks = stopped.is_some() || told.is_some();
        timer.as_mut().reset(if looks { now + LOOK_EVERY } else { deadline });
    }
}
