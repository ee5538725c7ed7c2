//! The built-in worker: serves a directory over HTTP/1.1 and HTTP/2, so that `relisten run` does something useful
//! on a machine where nothing else is installed.
//!
//! It takes its listeners from the supervisor, says when it is ready, and on SIGTERM loses nothing: see
//! [`connection`].

mod accept;
mod body;
mod condition;
mod connection;
mod files;
mod identity;
mod listeners;
mod listing;
mod path;
mod range;
mod server;
mod site;
mod tls;

#[cfg(test)]
mod tests;

use crate::exit::Exit;
use crate::say;
use identity::Identity;
use relisten::address::NamedAddress;
use relisten::worker::Worker;
use server::Server;
use site::Site;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

/// Serve a directory over HTTP (the worker that `relisten run` starts when no COMMAND is given)
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The directory to serve
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) root: PathBuf,

    /// Where to listen when no listeners were passed
    #[arg(short, long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: Vec<NamedAddress>,

    /// Certificate chain, PEM; the connections are TLS then
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Private key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Write a line per request to the standard output
    #[arg(long)]
    pub(crate) access_log: bool,

    /// Accept no further connection while this many are open
    #[arg(long, value_name = "N", default_value = "65536", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_connections: u32,
}

/// Why the worker can't serve.
#[derive(Debug, Error)]
enum ServeError {
    #[error(transparent)]
    Environment(#[from] relisten::worker::WorkerError),
    #[error(transparent)]
    Listen(#[from] listeners::ListenError),
    #[error("the directory '{}' can't be served", .0.display())]
    Root(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    #[error("the event loop can't be started")]
    Runtime(#[source] io::Error),
    #[error("the supervisor can't be told that the worker is ready")]
    Ready(#[source] io::Error),
}

/// Serves until SIGTERM or SIGINT, and finishes what is open then.
pub(crate) fn run(args: &ServeArgs) -> ExitCode {
    match serve(args) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            // The supervisor shows what a worker says.
            say::error(&say::chain(&error), None);
            Exit::CannotStart.into()
        }
    }
}

fn serve(args: &ServeArgs) -> Result<(), ServeError> {
    // First of all: the passed descriptors must be taken before anything else opens some.
    let mut worker = Worker::from_env()?;
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => Some(tls::load(cert, key)?),
        _ => None,
    };
    let root = files::Root::open(&args.root).map_err(|error| ServeError::Root(args.root.clone(), error))?;
    let identity = Identity::of(&worker);
    let listeners = listeners::take_or_open(&mut worker, &args.listen)?;
    raise_descriptor_limit();
    let supervised = worker.slot().is_some();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(ServeError::Runtime)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Runtime)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let site = Site::new(root, &identity, args.access_log);
        let server = Server::new(site, tls, args.max_connections as usize);
        if !supervised {
            announce(args, scheme, &listeners);
        }
        let serving = server.start(listeners).map_err(ServeError::Runtime)?;
        worker.ready().map_err(ServeError::Ready)?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // A supervisor that is gone does not matter any more.
        let _ = worker.stopping();
        serving.stop().await;
        Ok(())
    })
}

fn announce(args: &ServeArgs, scheme: &str, listeners: &[relisten::listener::Listener]) {
    for listener in listeners {
        say::line(&format!("serving {} on {scheme} {}", args.root.display(), listener.endpoint()));
    }
}

/// One descriptor per connection and one per file being sent: take what may be had.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused, it stays as it is; running out is survived (see accept.rs).
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}
