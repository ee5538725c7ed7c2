//! The built-in worker and the load client as processes.
#![forbid(unsafe_code)]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_relisten");
/// Waits are bounded by this.
const BOUND: Duration = Duration::from_secs(20);

/// A worker, run by hand.
struct Worker {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// Where it listens.
    address: String,
    directory: TempDir,
}

impl Worker {
    fn start(words: &[&str]) -> Worker {
        Worker::start_with(Command::new(BINARY), "127.0.0.1:0", words)
    }

    fn start_with(mut command: Command, listen: &str, words: &[&str]) -> Worker {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("f"), "hello").expect("a file");
        let mut child = command
            .args(["worker", "--root"])
            .arg(directory.path())
            .args(["--listen", listen])
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("it says where");
        let address = line.trim_end().rsplit(' ').next().unwrap_or_default().to_owned();
        assert!(line.starts_with("serving "), "{line}");
        Worker { child, stderr, address, directory }
    }

    fn url(&self) -> String {
        format!("http://{}/f", self.address)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
    }

    fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let end = Instant::now() + BOUND;
    loop {
        if let Some(status) = child.try_wait().expect("our child") {
            return status;
        }
        assert!(Instant::now() < end, "it does not end");
        std::thread::yield_now();
    }
}

/// Runs `relisten load` and returns its exit code, report and errors.
fn load(words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(BINARY).arg("load").args(words).output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn both_signals_stop_it_in_good_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut worker = Worker::start(&[]);
        let (code, ..) = load(&[&worker.url(), "-n", "50", "-c", "4"]);
        assert_eq!(code, Some(0));
        worker.signal(signal);
        assert_eq!(worker.wait().code(), Some(0));
    }
}

#[test]
fn it_tells_when_it_is_ready_and_when_it_stops() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let notify = UnixDatagram::bind(&path).expect("a free path");
    notify.set_read_timeout(Some(BOUND)).expect("SO_RCVTIMEO");
    let mut command = Command::new(BINARY);
    command.env("NOTIFY_SOCKET", &path);
    let mut worker = Worker::start_with(command, "127.0.0.1:0", &[]);
    let said = || {
        let mut buffer = [0; 200];
        let length = notify.recv(&mut buffer).expect("it says something");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert!(said().contains("READY=1"));
    // Ready means that it answers.
    assert_eq!(load(&[&worker.url(), "-n", "1"]).0, Some(0));
    worker.signal(Signal::TERM);
    assert!(said().contains("STOPPING=1"));
    assert_eq!(worker.wait().code(), Some(0));
}

#[test]
fn on_a_unix_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let address = format!("unix:{}", path.display());
    let mut worker = Worker::start_with(Command::new(BINARY), &address, &[]);
    let mut stream = UnixStream::connect(&path).expect("it listens");
    stream.write_all(b"GET /f HTTP/1.0\r\n\r\n").expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    assert!(text.ends_with("hello"), "{text}");
    let (code, report, _) = load(&[&address, "--path", "/f", "-n", "500", "-c", "8"]);
    assert_eq!(code, Some(0), "{report}");
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code(), Some(0));
}

#[test]
fn without_descriptors_it_waits_and_goes_on() {
    // Enough to start with, and for a few connections.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 24 && exec \"$0\" \"$@\"", BINARY]);
    let mut worker = Worker::start_with(command, "127.0.0.1:0", &[]);
    let mut streams: Vec<_> =
        (0..40).map(|_| TcpStream::connect(&worker.address).expect("it listens")).collect();
    let mut line = String::new();
    worker.stderr.read_line(&mut line).expect("it complains");
    assert!(line.contains("connections can't be accepted at the moment: Too many open files"), "{line}");
    // Those that have been accepted make room for the others by going away.
    for stream in &mut streams {
        stream.set_read_timeout(Some(BOUND)).expect("SO_RCVTIMEO");
        stream.write_all(b"GET /.relisten HTTP/1.0\r\n\r\n").expect("the kernel takes it");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        assert!(text.starts_with("HTTP/1.0 200"), "{text}");
    }
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code(), Some(0));
}

#[test]
fn the_access_log() {
    let mut worker = Worker::start(&["--access-log"]);
    assert_eq!(load(&[&format!("{}?a=1", worker.url()), "-n", "1", "--source", "127.0.0.9"]).0, Some(0));
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code(), Some(0));
    let mut log = String::new();
    worker.child.stdout.take().expect("piped").read_to_string(&mut log).expect("text");
    assert_eq!(log, "127.0.0.9 \"GET /f?a=1 HTTP/1.1\" 200 5\n");
}

#[test]
fn what_keeps_it_from_starting() {
    let directory = tempfile::tempdir().expect("a directory");
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "").expect("a file");
    let empty = empty.to_str().expect("text");
    for (words, code, message) in [
        (
            &["--root", "/nonexistent"][..],
            5,
            "error: the directory '/nonexistent' can't be served: No such file",
        ),
        (&["--tls-cert", empty, "--tls-key", empty], 5, "holds no certificate in PEM form"),
        (&["--tls-cert", empty], 2, "--tls-key"),
    ] {
        let output = Command::new(BINARY).arg("worker").args(words).output().expect("it starts");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(message), "{said}");
    }
}

#[test]
fn load_reports_as_json() {
    let worker = Worker::start(&[]);
    let words = ["-n", "20", "-c", "2", "--json", "--path", "/.relisten", "--label-header", "relisten-pid"];
    let (code, json, _) = load(&[&[worker.url().as_str()], &words[..]].concat());
    assert_eq!(code, Some(0), "{json}");
    let report: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["attempts"]["fates"]["completed"], 20);
    assert_eq!(report["labels"][worker.child.id().to_string()], 20);
    assert!(worker.directory.path().exists());
}

#[test]
fn load_exits_with_1_when_something_is_lost() {
    let mut worker = Worker::start(&[]);
    let missing = format!("http://{}/none", worker.address);
    let (code, report, _) = load(&[&missing, "-n", "3"]);
    assert!(code == Some(1) && report.contains("wrong status"), "{report}");
    assert_eq!(load(&[&missing, "-n", "3", "--expect", "404"]).0, Some(0));
    worker.signal(Signal::TERM);
    worker.wait();
    let (code, report, _) = load(&[&missing, "-n", "3"]);
    assert!(code == Some(1) && report.contains("refused                        3"), "{report}");
}

#[test]
fn load_does_not_begin_what_makes_no_sense() {
    for words in [
        &["https://127.0.0.1/", "--cacert", "/nonexistent"][..],
        &["http://127.0.0.1:0/"],
        &["127.0.0.1:8080", "-c", "0"],
        &["127.0.0.1:8080", "-r", "5", "-k"],
        &["127.0.0.1:8080", "-r", "5", "-c", "5"],
        &["127.0.0.1:8080", "-H", "no colon"],
        &["127.0.0.1:8080", "-X", "A B"],
        &["127.0.0.1:8080", "--source", "::1"],
        &["127.0.0.1:8080", "--expect", "teapot"],
        &["127.0.0.1:8080", "--body", "@/nonexistent"],
        &[],
    ] {
        let (code, report, said) = load(words);
        assert_eq!((code, report.as_str()), (Some(2), ""), "{words:?} {said}");
        assert!(said.starts_with("error: "), "{words:?} {said}");
    }
}

#[test]
fn an_interrupted_load_reports_what_there_is() {
    let worker = Worker::start(&[]);
    let child = Command::new(BINARY)
        .args(["load", &worker.url(), "-c", "2", "-d", "1h", "--pause", "1ms"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    // Before its handler is in place the signal would kill it.
    let end = Instant::now() + BOUND;
    while !catches_interrupts(child.id()) {
        assert!(Instant::now() < end, "it does not get ready");
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let output = child.wait_with_output().expect("our child");
    let report = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.code() == Some(0) && report.contains(" 0 lost"), "{report}");
}

/// Whether the process has a handler for SIGINT (SigCgt in proc_pid_status(5)).
fn catches_interrupts(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("since long ago");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("hexadecimal");
    mask & (1 << (Signal::INT.as_raw() - 1)) != 0
}
