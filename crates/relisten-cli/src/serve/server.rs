//! The worker as a whole: its accept loops and the count of its connections.

use super::listeners::Accepting;
use super::site::Site;
use super::{accept, connection};
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use relisten::listener::Listener;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What accept loops and connections share.
pub(super) struct Server {
    pub(super) site: Site,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) http: auto::Builder<TokioExecutor>,
    /// Told once, to all who wait.
    stop: Notify,
    stopping: AtomicBool,
    open: AtomicUsize,
    max_open: usize,
    /// Told whenever a connection ends.
    closed: Notify,
}

/// A server that serves.
pub(super) struct Serving {
    server: Arc<Server>,
    accepting: Vec<JoinHandle<()>>,
}

/// One open connection; it counts until this is dropped.
pub(super) struct Open(Arc<Server>);

impl Server {
    pub(super) fn new(site: Site, tls: Option<TlsAcceptor>, max_open: usize) -> Server {
        Server {
            site,
            tls,
            http: connection::http(),
            stop: Notify::new(),
            stopping: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            max_open,
            closed: Notify::new(),
        }
    }

    /// Starts to accept. Must run within the event loop.
    pub(super) fn start(self, listeners: Vec<Listener>) -> io::Result<Serving> {
        let server = Arc::new(self);
        let listeners: Vec<_> = listeners.into_iter().map(Accepting::new).collect::<io::Result<_>>()?;
        let accepting = listeners
            .into_iter()
            .map(|listener| tokio::spawn(accept::run(listener, Arc::clone(&server))))
            .collect();
        Ok(Serving { server, accepting })
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Returns when the server stops. Misses nothing, whenever it is called.
    pub(super) async fn stopped(&self) {
        let told = self.stop.notified();
        if !self.is_stopping() {
            told.await;
        }
    }

    /// Counts a connection in.
    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }

    /// Whether no further connection may be accepted for now.
    pub(super) fn is_full(&self) -> bool {
        self.open.load(Ordering::Relaxed) >= self.max_open
    }

    /// Waits until a connection ends.
    pub(super) async fn one_closed(&self) {
        self.closed.notified().await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        // One permit is kept for a waiter that comes later, so none is missed.
        self.0.closed.notify_one();
    }
}

impl Serving {
    /// Accepts what waits in the queues, stops listening, and waits until every connection has been served to
    /// its end.
    pub(super) async fn stop(self) {
        self.server.stopping.store(true, Ordering::Relaxed);
        self.server.stop.notify_waiters();
        for task in self.accepting {
            // It has no way to fail but a panic, which has been printed.
            let _ = task.await;
        }
        while self.server.open.load(Ordering::Relaxed) > 0 {
            self.server.one_closed().await;
        }
    }
}
