//! HTTP/2, in the clear and behind TLS.

use super::{BOUND, Running};
use crate::serve::tls;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(BOUND, future).await.expect("in time") })
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost{path}")).body(Empty::new()).expect("a request")
}

async fn http2_over<S>(stream: S) -> http2::SendRequest<Empty<Bytes>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    sender
}

#[test]
fn http2_in_the_clear() {
    let worker = Running::start();
    worker.file("small", "hello");
    worker.file("large", vec![b'x'; 2_000_000]);
    block_on(async {
        let stream = TcpStream::connect(worker.address).await.expect("it listens");
        let mut sender = http2_over(stream).await;
        for (path, status, length) in [("/small", 200, 5), ("/large", 200, 2_000_000), ("/none", 404, 14)] {
            sender.ready().await.expect("open");
            let answer = sender.send_request(request(path)).await.expect("an answer");
            assert_eq!((answer.version(), answer.status().as_u16()), (Version::HTTP_2, status), "{path}");
            assert!(!answer.headers().contains_key("connection"));
            let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
            assert_eq!(body.len(), length, "{path}");
        }
    });
}

#[test]
fn requests_at_once_on_one_connection() {
    let worker = Running::start();
    worker.file("f", vec![b'x'; 300_000]);
    block_on(async {
        let stream = TcpStream::connect(worker.address).await.expect("it listens");
        let mut sender = http2_over(stream).await;
        let mut answers = tokio::task::JoinSet::new();
        for _ in 0..50 {
            sender.ready().await.expect("open");
            let answer = sender.send_request(request("/f"));
            answers.spawn(async move {
                answer.await.expect("an answer").into_body().collect().await.expect("a body").to_bytes().len()
            });
        }
        while let Some(length) = answers.join_next().await {
            assert_eq!(length.expect("no panic"), 300_000);
        }
    });
}

#[test]
fn http2_is_told_of_a_stop_and_finishes() {
    let mut worker = Running::start();
    worker.file("f", vec![b'x'; 5_000_000]);
    block_on(async {
        let stream = TcpStream::connect(worker.address).await.expect("it listens");
        let mut sender = http2_over(stream).await;
        let answer = sender.send_request(request("/f")).await.expect("an answer");
        worker.tell_to_stop();
        let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
        assert_eq!(body.len(), 5_000_000);
        // GOAWAY has come: the client knows that it must connect anew.
        while sender.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    worker.wait();
}

/// A client that takes nothing for longer than an idle one may stay gets all the same what is left for it.
#[test]
fn a_slow_http2_client_gets_the_end_as_well() {
    const SIZE: usize = 60_000;
    let mut worker = Running::start();
    worker.file("f", vec![b'x'; SIZE]);
    block_on(async {
        let stream = TcpStream::connect(worker.address).await.expect("it listens");
        let mut client = http2::Builder::new(TokioExecutor::new());
        client.initial_stream_window_size(10_000).adaptive_window(false);
        let (mut sender, connection) =
            client.handshake(TokioIo::new(stream)).await.expect("it speaks HTTP/2");
        tokio::spawn(connection);
        let answer = sender.send_request(request("/f")).await.expect("an answer");
        worker.tell_to_stop();
        // Not waiting for anything: that time passes is what is tested.
        let longer = crate::serve::connection::LAST_FIRST_REQUEST + Duration::from_millis(500);
        tokio::time::sleep(longer).await;
        let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
        assert_eq!(body.len(), SIZE);
    });
    worker.wait();
}

/// A certificate for localhost, as files.
struct Certificate {
    directory: TempDir,
    der: CertificateDer<'static>,
}

impl Certificate {
    fn new() -> Certificate {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("cert"), made.cert.pem()).expect("a file");
        std::fs::write(directory.path().join("key"), made.signing_key.serialize_pem()).expect("a file");
        Certificate { directory, der: made.cert.der().clone() }
    }

    fn cert(&self) -> PathBuf {
        self.directory.path().join("cert")
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("key")
    }

    async fn connect(&self, address: SocketAddr, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a certificate");
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

fn tls_worker(certificate: &Certificate) -> Running {
    let tls = tls::load(&certificate.cert(), &certificate.key()).expect("a good certificate");
    let worker = Running::with(Some(tls), 100);
    worker.file("f", vec![b'x'; 100_000]);
    worker
}

#[test]
fn http2_behind_tls() {
    let certificate = Certificate::new();
    let worker = tls_worker(&certificate);
    block_on(async {
        let stream = certificate.connect(worker.address, &["h2", "http/1.1"]).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let answer = http2_over(stream).await.send_request(request("/f")).await.expect("an answer");
        assert_eq!(answer.into_body().collect().await.expect("a whole body").to_bytes().len(), 100_000);
    });
}

#[test]
fn http1_behind_tls() {
    let certificate = Certificate::new();
    let worker = tls_worker(&certificate);
    for alpn in [&["http/1.1"][..], &[]] {
        block_on(async {
            let stream = certificate.connect(worker.address, alpn).await.expect("a handshake");
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.expect("it speaks HTTP/1");
            tokio::spawn(connection);
            let answer = sender.send_request(request("/f")).await.expect("an answer");
            assert_eq!(answer.version(), Version::HTTP_11);
            assert_eq!(answer.into_body().collect().await.expect("a whole body").to_bytes().len(), 100_000);
        });
    }
}

#[test]
fn a_client_without_tls_disturbs_nobody() {
    let certificate = Certificate::new();
    let worker = tls_worker(&certificate);
    let mut plain = worker.connect();
    std::io::Write::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n").expect("it reads");
    let _ = std::io::Read::read_to_end(&mut plain, &mut Vec::new());
    block_on(async { certificate.connect(worker.address, &[]).await.expect("a handshake") });
}

#[test]
fn bad_certificates_are_told_apart() {
    let (good, other) = (Certificate::new(), Certificate::new());
    let directory = tempfile::tempdir().expect("a directory");
    let (empty, nonsense) = (directory.path().join("empty"), directory.path().join("nonsense"));
    std::fs::write(&empty, "").expect("a file");
    std::fs::write(&nonsense, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n")
        .expect("a file");
    let none = directory.path().join("none");
    for (cert, key, expected) in [
        (&none, &good.key(), "can't be read"),
        (&empty, &good.key(), "holds no certificate"),
        (&nonsense, &good.key(), "can't be read"),
        (&good.key(), &good.key(), "holds no certificate"),
        (&good.cert(), &none, "can't be read"),
        (&good.cert(), &empty, "can't be read"),
        (&good.cert(), &other.key(), "can't be used together"),
    ] {
        let error = tls::load(cert, key).err().expect("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
}
