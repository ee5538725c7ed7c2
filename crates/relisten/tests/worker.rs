//! The worker's side, end to end: examples/worker.rs as a child that gets its sockets, is asked and stopped.
#![allow(clippy::unwrap_used)] // a test may panic

use relisten::address::Address;
use relisten::listener::{ListenOptions, Listener};
use relisten::systemd::{self, Message};
use relisten::worker;
use relisten_sys::spawn::{Child, Command, spawn};
use rustix::process::{Signal, WaitOptions, WaitStatus, kill_process, waitpid};
use std::ffi::{CString, OsString};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Cargo builds the examples before it runs a package's tests (unless only some of its targets are asked for).
fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(name);
    assert!(path.exists(), "{} is missing: cargo build -p relisten --examples", path.display());
    path
}

fn open(text: &str) -> Listener {
    let endpoint = text.parse::<Address>().unwrap().resolve().unwrap().remove(0);
    Listener::open(&endpoint, &ListenOptions::default()).unwrap()
}

fn start(listeners: &[&Listener], environment: Vec<(OsString, OsString)>) -> Child {
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let program = CString::new(example("worker").as_os_str().as_bytes()).unwrap();
    let environment = environment
        .into_iter()
        .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).unwrap());
    spawn(&Command {
        arguments: vec![program.clone()],
        program,
        environment: environment.collect(),
        directory: c"/".to_owned(),
        stdio: [null.as_fd(), std::io::stdout().as_fd(), std::io::stderr().as_fd()],
        descriptors: listeners.iter().map(|l| l.as_fd()).collect(),
        identity: None,
        filter: None,
        no_new_privs: false,
        cpu: None,
    })
    .unwrap()
}

fn ended(child: &Child) -> WaitStatus {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some((_, status)) = waitpid(Some(child.pid), WaitOptions::NOHANG).unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            kill_process(child.pid, Signal::KILL).unwrap();
            panic!("the worker has not ended within 10 s");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn ask(listener: &Listener) -> String {
    let mut connection = TcpStream::connect(listener.endpoint().addr().unwrap()).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

struct Supervisor {
    receiver: UnixDatagram,
    directory: tempfile::TempDir,
}

impl Supervisor {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let receiver = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { receiver, directory }
    }

    fn environment(&self) -> (OsString, OsString) {
        ("NOTIFY_SOCKET".into(), self.directory.path().join("notify").into())
    }

    fn hears(&self) -> Message {
        let mut buffer = [0; 1024];
        let length = self.receiver.recv(&mut buffer).expect("a notification within 10 s");
        Message::parse(&buffer[..length])
    }
}

#[test]
fn a_worker_from_start_to_stop() {
    let listeners = [open("127.0.0.1:0"), open("[::1]:0")];
    let supervisor = Supervisor::new();
    let mut environment = systemd::environment(["web", "web6"]);
    environment.extend([
        supervisor.environment(),
        (worker::SLOT.into(), "7".into()),
        (worker::GENERATION.into(), "1".into()),
        (worker::NAME.into(), "test".into()),
    ]);
    let child = start(&[&listeners[0], &listeners[1]], environment);
    assert_eq!(supervisor.hears(), Message::ready());
    for listener in &listeners {
        let answer = ask(listener);
        assert!(answer.ends_with("slot 7\n"), "{answer:?}");
    }
    kill_process(child.pid, Signal::TERM).unwrap();
    assert_eq!(supervisor.hears(), Message::stopping());
    assert_eq!(ended(&child).exit_status(), Some(0));
}

#[test]
fn a_worker_refuses_nonsense() {
    let listener = open("127.0.0.1:0");
    for (name, value) in [("LISTEN_FDS", "many"), ("LISTEN_FDS", "2"), (worker::SLOT, "first")] {
        let mut environment = systemd::environment(["web"]);
        environment.retain(|(n, _)| n != name);
        environment.push((name.into(), value.into()));
        let child = start(&[&listener], environment);
        assert_eq!(ended(&child).exit_status(), Some(1), "{name}={value}");
    }
}
