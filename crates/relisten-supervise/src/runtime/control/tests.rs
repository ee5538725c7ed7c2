//! The server as its clients see it.

use super::*;
use crate::status::{Foreign, Listener, Slot, Steering, Totals, Worker};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) fn status() -> Status {
    let slot = |slot, queue| Slot {
        slot,
        inode: 1000 + u64::from(slot),
        state: "serving".into(),
        weight: 1,
        queue,
        drops: None,
        active: Some(3),
        accepted_total: None,
        rescued_total: Some(0),
    };
    Status {
        name: "web".into(),
        pid: 42,
        version: "0.1.0".into(),
        uptime_ms: 1500,
        generation: 2,
        state: "running".into(),
        steering: Steering {
            policy: "hash".into(),
            backend: "cbpf".into(),
            migration: false,
            missing: Vec::new(),
        },
        listeners: vec![Listener {
            name: "ev\"il\n".into(),
            address: "127.0.0.1:80".into(),
            protocol: "tcp".into(),
            backlog: Some(4096),
            oldest_ms: Some(250),
            slots: vec![slot(0, Some(7)), slot(1, None)],
            foreign: vec![Foreign { inode: 9, pid: None, command: None }],
        }],
        workers: vec![Worker {
            pid: Some(77),
            slot: 0,
            generation: 2,
            state: "ready".into(),
            since_ms: 10,
            restarts: 1,
            left: None,
            active: None,
            rss_bytes: Some(1 << 20),
        }],
        totals: Totals { reloads: 1, restarts: 4, ..Totals::default() },
    }
}

/// A runtime on a thread of its own, as the tests talk to it by blocking calls.
struct Background(tokio::runtime::Handle, Option<oneshot::Sender<()>>);

impl Background {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (stop, stopped) = oneshot::channel();
        let handle = runtime.handle().clone();
        std::thread::spawn(move || {
            let _ = runtime.block_on(stopped);
        });
        Self(handle, Some(stop))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.1.take().map(|stop| stop.send(()));
    }
}

/// A server with a dispatcher that knows some answers, and remembers what it was asked.
struct Scene {
    path: PathBuf,
    client: Client,
    asked: std::sync::mpsc::Receiver<RequestKind>,
    _directory: tempfile::TempDir,
    _runtime: Background,
}

fn scene() -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    let background = Background::new();
    let runtime = background.0.clone();
    let _inside = runtime.enter();
    let server = Server::bind(&path).unwrap();
    let (requests, mut inbox) = mpsc::channel::<ControlRequest>(4);
    let (tell, asked) = std::sync::mpsc::channel();
    runtime.spawn(server.run(requests));
    runtime.spawn(async move {
        let mut never = Vec::new();
        while let Some(ControlRequest { kind, reply }) = inbox.recv().await {
            let _ = tell.send(kind.clone());
            let answer = match kind {
                RequestKind::Status => Ok(Answer::Status(Box::new(status()))),
                RequestKind::Reload { wait: true } => {
                    never.push(reply);
                    continue;
                }
                RequestKind::Reload { wait: false } => Err(Problem {
                    lines: vec!["no such module".into()],
                    ..Problem::new(ProblemKind::RolledBack, "rolled back", "see the lines")
                }),
                RequestKind::Replace { .. } => {
                    Err(Problem::new(ProblemKind::NotFound, "no such worker", "see status"))
                }
                RequestKind::Stop { now: true } => continue,
                _ => Ok(Answer::Done { generation: 3 }),
            };
            let _ = reply.send(answer);
        }
    });
    let client = Client::new(&path).timeout(Duration::from_secs(20));
    Scene { path, client, asked, _directory: directory, _runtime: background }
}

fn raw(path: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn problem(error: ClientError) -> Problem {
    match error {
        ClientError::Refused(problem) => problem,
        other => panic!("{other}"),
    }
}

#[test]
fn every_request_reaches_the_dispatcher() {
    let scene = scene();
    assert_eq!(std::fs::metadata(&scene.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(scene.client.status().unwrap(), status());
    assert_eq!(scene.client.scale(5, false).unwrap().generation, 3);
    assert_eq!(scene.client.stop(false).unwrap().generation, 3);
    let failed = problem(scene.client.reload(false).unwrap_err());
    assert_eq!(
        (failed.kind, &failed.lines[..]),
        (ProblemKind::RolledBack, &["no such module".to_owned()][..])
    );
    let unknown = problem(scene.client.replace(1).unwrap_err());
    assert_eq!((unknown.kind, &*unknown.cure), (ProblemKind::NotFound, "see status"));
    let dropped = problem(scene.client.stop(true).unwrap_err());
    assert_eq!(dropped.kind, ProblemKind::Busy);
    let version = scene.client.request("GET", "/version", "").unwrap();
    assert_eq!(version, format!("{{\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION")).as_bytes());
    scene.client.request("POST", "/stop", "").unwrap();
    scene.client.metrics().unwrap();
    let asked: Vec<_> = scene.asked.try_iter().collect();
    let expected = [
        RequestKind::Status,
        RequestKind::Scale { workers: 5, wait: false },
        RequestKind::Stop { now: false },
        RequestKind::Reload { wait: false },
        RequestKind::Replace { pid: 1 },
        RequestKind::Stop { now: true },
        RequestKind::Stop { now: false },
        RequestKind::Status,
    ];
    assert_eq!(asked, expected);
}

#[test]
fn nonsense_gets_a_clear_answer_and_reaches_nobody() {
    let scene = scene();
    let refused = |method: &str, path: &str, body: &str| {
        let problem = problem(scene.client.request(method, path, body).unwrap_err());
        assert!(!problem.error.is_empty() && !problem.cure.is_empty(), "{problem:?}");
        problem.kind
    };
    assert_eq!(refused("GET", "/nothing", ""), ProblemKind::NotFound);
    assert_eq!(refused("GET", "/reload", ""), ProblemKind::Method);
    assert_eq!(refused("POST", "/status", ""), ProblemKind::Method);
    assert_eq!(refused("POST", "/scale", ""), ProblemKind::Request);
    assert_eq!(refused("POST", "/scale", "{\"workers\":0}"), ProblemKind::Request);
    assert_eq!(refused("POST", "/scale", "{\"workers\":-1}"), ProblemKind::Request);
    assert_eq!(refused("POST", "/scale", "{\"workers\":99999999999}"), ProblemKind::Request);
    assert_eq!(refused("POST", "/replace", "[1"), ProblemKind::Request);
    assert_eq!(refused("POST", "/reload", "\"\u{0}\""), ProblemKind::Request);
    assert_eq!(refused("POST", "/reload", &" ".repeat(100_000)), ProblemKind::TooLong);
    for bytes in
        [&b"\0\0\0\0\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", b"GET /status\r\n\r\n", &vec![b'a'; 40_000]]
    {
        let answer = raw(&scene.path, bytes);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let many = format!("GET /status HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    assert!(raw(&scene.path, many.as_bytes()).starts_with("HTTP/1.1 431"));
    assert_eq!(scene.asked.try_iter().count(), 0);
    scene.client.status().unwrap();
}

#[test]
fn slow_and_silent_clients_lock_nobody_out() {
    let scene = scene();
    let begun = Instant::now();
    // As many as may be in the middle of a request, and more.
    let mut silent: Vec<_> = (0..24).map(|_| UnixStream::connect(&scene.path).unwrap()).collect();
    for stream in &mut silent[..8] {
        stream.write_all(b"GET /sta").unwrap();
    }
    for stream in &mut silent[8..12] {
        stream.write_all(b"POST /scale HTTP/1.1\r\ncontent-length: 10\r\n\r\n{").unwrap();
    }
    scene.client.status().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(18), "{:?}", begun.elapsed());
}

#[test]
fn who_waits_for_a_long_answer_is_in_nobodys_way() {
    let scene = scene();
    let ask = b"POST /reload HTTP/1.1\r\ncontent-length: 13\r\n\r\n{\"wait\":true}";
    let mut waiting = Vec::new();
    for _ in 0..64 {
        let mut stream = UnixStream::connect(&scene.path).unwrap();
        stream.write_all(ask).unwrap();
        waiting.push(stream);
        scene.asked.recv_timeout(Duration::from_secs(10)).unwrap();
    }
    let begun = Instant::now();
    assert_eq!(problem(scene.client.status().unwrap_err()).kind, ProblemKind::Busy);
    // Those who give up make room.
    drop(waiting);
    while scene.client.status().is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "no room was made");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn clients_tell_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    let client = Client::new(&path).timeout(Duration::from_millis(200));
    let error = client.status().unwrap_err();
    assert!(matches!(&error, ClientError::NoInstance { name: Some(n), .. } if n == "web"), "{error}");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(matches!(client.status(), Err(ClientError::TimedOut)));
    let answer_with = |text: &'static [u8]| {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(text).unwrap();
    };
    std::thread::scope(|scope| {
        answer_with(b"");
        let answers: [&[u8]; 4] = [
            b"",
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}",
        ];
        for answer in answers {
            scope.spawn(|| answer_with(answer));
            let error = client.status().unwrap_err();
            assert!(matches!(error, ClientError::Ended | ClientError::Nonsense(_)), "{error}");
        }
    });
    drop(listener);
    assert!(matches!(client.status(), Err(ClientError::Stale { .. })));
    // A leftover is replaced; what is no socket is not touched.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    drop(Server::bind(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert!(Server::bind(&path).unwrap_err().to_string().contains("not a socket"));
}

#[test]
fn strangers_are_turned_away() {
    // Only root can become somebody else to try it.
    assert!(crate::unix::is_trusted(rustix::process::geteuid().as_raw()));
    assert!(crate::unix::is_trusted(0));
    assert!(!crate::unix::is_trusted(54_321));
}

#[test]
fn metrics_over_tcp_and_nothing_else() {
    let background = Background::new();
    let runtime = &background.0;
    let (requests, mut inbox) = mpsc::channel::<ControlRequest>(4);
    runtime.spawn(async move {
        while let Some(request) = inbox.recv().await {
            assert_eq!(request.kind, RequestKind::Status);
            let _ = request.reply.send(Ok(Answer::Status(Box::new(status()))));
        }
    });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(serve_metrics(listener.into(), requests));
    let get = |request: &str| {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = get("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: application/openmetrics-text"), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
    for line in ["GET /status", "POST /stop", "POST /metrics"] {
        let answer = get(&format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 40"), "{line}: {answer}");
    }
}
