//! The worker over real sockets.

mod fuzz;
mod http;
mod http2;
mod limits;
mod stop;

use super::files::Root;
use super::identity::Identity;
use super::server::Server;
use super::site::Site;
use relisten::listener::Listener;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// Waits are bounded by this.
const BOUND: Duration = Duration::from_secs(20);

/// A worker on a thread of its own, on the directory `site` within `directory`.
struct Running {
    directory: TempDir,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start() -> Running {
        Running::with(None, 100)
    }

    fn with(tls: Option<TlsAcceptor>, max_connections: usize) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Running::on(listener, tls, max_connections)
    }

    /// Two workers on one listener.
    fn pair() -> (Running, Running) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let same = listener.try_clone().expect("a descriptor");
        (Running::on(listener, None, 100), Running::on(same, None, 100))
    }

    fn on(listener: TcpListener, tls: Option<TlsAcceptor>, max_connections: usize) -> Running {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("site");
        std::fs::create_dir(&root).expect("a new directory");
        let address = listener.local_addr().expect("bound");
        let listener = Listener::adopt(listener.into()).expect("a listener");
        let site = Site::new(Root::open(&root).expect("there"), &Identity::for_tests(), false);
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let serving =
                    Server::new(site, tls, max_connections).start(vec![listener]).expect("it starts");
                ready.send(()).expect("the test waits");
                // A test that ends without saying so stops it as well.
                let _ = stopped.await;
                serving.stop().await;
            });
        });
        is_ready.recv_timeout(BOUND).expect("it gets ready");
        Running { directory, address, stop: Some(stop), thread: Some(thread) }
    }

    fn root(&self) -> std::path::PathBuf {
        self.directory.path().join("site")
    }

    /// Writes a file beneath the root, with its directories.
    fn file(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("directories");
        std::fs::write(path, content).expect("a file");
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(BOUND)).expect("SO_RCVTIMEO");
        stream
    }

    /// Sends one request on a connection of its own.
    fn ask(&self, method: &str, path: &str, headers: &str) -> Reply {
        let mut stream = self.connect();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("it answers and closes in good order");
        Reply::parse(&bytes)
    }

    fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "")
    }

    /// Tells it to stop, but does not wait.
    fn tell_to_stop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
    }

    /// Waits until it has stopped.
    fn wait(&mut self) {
        let thread = self.thread.take().expect("waited for once");
        let end = std::time::Instant::now() + BOUND;
        while !thread.is_finished() {
            assert!(std::time::Instant::now() < end, "it does not stop");
            std::thread::yield_now();
        }
        thread.join().expect("it does not panic");
    }
}

/// An answer of HTTP/1.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Reply {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head is text");
        let status = head[9..12].parse().expect("a status");
        Reply { status, head, body: bytes[end + 4..].to_vec() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

/// Reads one answer with a Content-Length from a connection that stays.
fn read_reply(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a whole head");
        bytes.push(byte[0]);
    }
    let mut reply = Reply::parse(&bytes);
    let length = reply.header("content-length").expect("a length").parse().expect("a number");
    reply.body.resize(length, 0);
    stream.read_exact(&mut reply.body).expect("a whole body");
    reply
}

/// Sets a file's time back, so that it counts as settled.
fn age(path: &Path) {
    let file = std::fs::File::options().append(true).open(path).expect("there");
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(946_684_800)).expect("its time");
}
