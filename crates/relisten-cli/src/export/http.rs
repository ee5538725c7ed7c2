//! Metrics over HTTP.

use super::Exporter;
use crate::exit::Exit;
use crate::say;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use relisten_supervise::metrics::CONTENT_TYPE;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

/// More connections than this wait.
const CONNECTIONS: usize = 16;
/// A client that takes longer to ask is cut off.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves until SIGINT or SIGTERM.
pub(super) fn serve(address: SocketAddr, exporter: Exporter) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return say::failed(&format!("no event loop: {error}")),
    };
    match runtime.block_on(accept(address, exporter)) {
        Ok(()) => Exit::Done,
        Err(error) => say::failed(&format!("{address}: {error}")),
    }
}

async fn accept(address: SocketAddr, exporter: Exporter) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    say::line(&format!("metrics at http://{}/metrics", listener.local_addr()?));
    let exporter = Arc::new(Mutex::new(exporter));
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let stream = tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of descriptors, or reset before it was accepted: the next one may do better.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        let exporter = Arc::clone(&exporter);
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(request, Arc::clone(&exporter)));
            // A client that breaks off is nobody's loss.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            drop(place);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    exporter: Arc<Mutex<Exporter>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/metrics" {
        return Ok(plain(StatusCode::NOT_FOUND, "there is only /metrics\n"));
    }
    if !matches!(*request.method(), hyper::Method::GET | hyper::Method::HEAD) {
        return Ok(plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"));
    }
    // A look blocks; it has a thread of its own, one at a time.
    let scraped = tokio::task::spawn_blocking(move || match exporter.lock() {
        Ok(mut exporter) => exporter.scrape().map_err(|error| say::chain(&error)),
        Err(_) => Err("an earlier look failed".to_owned()),
    });
    let response = match scraped.await {
        Ok(Ok(text)) => {
            let mut response = Response::new(Full::new(Bytes::from(text)));
            let kind = hyper::header::HeaderValue::from_static(CONTENT_TYPE);
            response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
            response
        }
        Ok(Err(error)) => plain(StatusCode::INTERNAL_SERVER_ERROR, &(error + "\n")),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the look failed\n"),
    };
    Ok(response)
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text.to_owned())));
    *response.status_mut() = status;
    response
}
