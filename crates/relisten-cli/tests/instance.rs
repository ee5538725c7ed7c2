//! The commands to a running instance, with real ones: the built-in worker on a port of loopback that the kernel
//! picks. No privilege and no other program is needed. Traffic and its fate belong to the end-to-end tests.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_relisten");
const PATIENCE: Duration = Duration::from_secs(20);

/// An instance in a directory of its own.
struct Instance {
    place: tempfile::TempDir,
    child: Child,
}

impl Instance {
    /// Starts it, and waits until it runs.
    fn start(words: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), words)
    }

    fn start_in(place: tempfile::TempDir, words: &[&str]) -> Self {
        let log = std::fs::File::create(place.path().join("log")).expect("a log");
        let child = Command::new(BINARY)
            .args(["run", "--control", control(&place).to_str().expect("UTF-8")])
            .args(words)
            .current_dir(place.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let mut instance = Self { place, child };
        instance.wait_for("it runs", |status| status["state"] == "running");
        instance
    }

    /// A command to it.
    fn ask(&self, words: &[&str]) -> Output {
        let control = control(&self.place);
        Command::new(BINARY).args(words).arg("--control").arg(control).output().expect("the binary starts")
    }

    fn try_status(&self) -> Option<serde_json::Value> {
        let output = self.ask(&["status", "--json"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("one JSON object"))
    }

    fn wait_for(&mut self, what: &str, is_so: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let begin = Instant::now();
        let mut last = None;
        while begin.elapsed() < PATIENCE {
            last = self.try_status();
            if let Some(status) = last.as_ref().filter(|status| is_so(status)) {
                return status.clone();
            }
            let ended = self.child.try_wait().expect("wait");
            assert!(ended.is_none(), "ended ({ended:?}) before {what}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("not within {PATIENCE:?}: {what}; last status {last:?}\n{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.place.path().join("log")).unwrap_or_default()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Waits for the end of the supervisor: its exit code.
    fn end(&mut self) -> Option<i32> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end:\n{}", self.log());
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // The workers must not survive a failed test, as they would if only the supervisor were killed.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.ask(&["stop", "--now", "--timeout", "15s"]);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn control(place: &tempfile::TempDir) -> PathBuf {
    place.path().join("c.sock")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn ready(status: &serde_json::Value) -> usize {
    let workers = status["workers"].as_array().expect("workers");
    workers.iter().filter(|worker| worker["state"] == "ready").count()
}

fn connect(status: &serde_json::Value) -> TcpStream {
    let address = status["listeners"][0]["address"].as_str().expect("an address");
    TcpStream::connect(address).expect("it listens")
}

#[test]
fn a_life() {
    let mut instance = Instance::start(&["--name", "life", "-w", "2", "-l", "127.0.0.1:0"]);
    let status = instance.wait_for("two workers are ready", |status| ready(status) == 2);
    assert_eq!(status["name"], "life");
    assert_eq!(status["generation"], 1);

    let text = out(&instance.ask(&["status"]));
    assert!(text.starts_with("life  running  generation 1  2 workers"), "{text}");
    assert!(!text.contains('\x1b'), "colours on what is no terminal: {text}");

    let output = instance.ask(&["scale", "3"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(out(&output), "life: 3 workers serve\n");
    instance.wait_for("three workers are ready", |status| ready(status) == 3);
    assert_eq!(out(&instance.ask(&["scale", "3", "--no-wait"])), "life: 3 workers from now on\n");

    let output = instance.ask(&["reload", "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(out(&output), "life: generation 2 serves, the old workers are gone\n");
    assert_eq!(err(&output), "", "no progress where there is no terminal");
    let status = instance.try_status().expect("it runs");
    let generations: Vec<_> =
        status["workers"].as_array().expect("workers").iter().map(|w| &w["generation"]).collect();
    assert_eq!(generations, [2, 2, 2]);

    let output = instance.ask(&["reload", "--json"]);
    assert_eq!(out(&output), "{\"generation\":3}\n");

    let output = instance.ask(&["stop"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(out(&output), "life: stopped\n");
    // It waited: the process is gone by now, and only its parent (this test) has not noticed.
    assert_eq!(instance.child.try_wait().expect("wait").and_then(|status| status.code()), Some(0));
    assert!(!control(&instance.place).exists(), "the control socket is left");

    let output = instance.ask(&["status"]);
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
}

#[test]
fn a_name_runs_once() {
    let mut instance = Instance::start(&["--name", "once", "-w", "1", "-l", "127.0.0.1:0"]);
    let control = control(&instance.place);
    let output = Command::new(BINARY)
        .args(["run", "--name", "once", "-l", "127.0.0.1:0", "--control"])
        .arg(control)
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(4), "{}", err(&output));
    assert!(err(&output).contains("runs already"), "{}", err(&output));
    instance.wait_for("the first one is unharmed", |status| ready(status) == 1);
}

#[test]
fn an_address_in_use_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let place = tempfile::tempdir().expect("a directory");
    let output = Command::new(BINARY)
        .args(["run", "-w", "1", "-l", &address, "--control"])
        .arg(control(&place))
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(5), "{}", err(&output));
    assert!(err(&output).contains(&address), "{}", err(&output));
}

#[test]
fn a_reload_that_fails_leaves_things_as_they_were() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("web.toml");
    let good = format!("command = [{BINARY:?}, 'worker']\nworkers = 1\nlisten = '127.0.0.1:0'\n");
    write(&file, &good);
    let mut instance = Instance::start_in(place, &["--name", "fail", "--config", "web.toml"]);
    let before = instance.wait_for("it serves", |status| ready(status) == 1);

    // A file that can't be read.
    write(&instance.file("web.toml"), "workers = 'lots'\n");
    let output = instance.ask(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(err(&output).contains("web.toml:1:11: not a number of workers"), "{}", err(&output));

    // A command that says why and ends.
    let bad = "command = ['sh', '-c', 'echo out of cheese; exit 7']\nworkers = 1\nlisten = '127.0.0.1:0'\n";
    write(&instance.file("web.toml"), bad);
    let output = instance.ask(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(err(&output).contains("the last lines of the worker:\n  | out of cheese\n"), "{}", err(&output));
    let output = instance.ask(&["reload", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let problem: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(problem["lines"][0], "out of cheese", "{problem}");

    let after = instance.wait_for("it serves as before", |status| {
        ready(status) == 1 && status["workers"].as_array().is_some_and(|workers| workers.len() == 1)
    });
    assert_eq!(after["workers"][0]["pid"], before["workers"][0]["pid"]);
    assert_eq!(after["generation"], 1);

    // And a good one again.
    write(&instance.file("web.toml"), &good.replace("workers = 1", "workers = 2"));
    let output = instance.ask(&["reload"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    instance.wait_for("the new number holds", |status| ready(status) == 2);
}

#[test]
fn a_stop_that_takes_too_long_says_so() {
    let mut instance = Instance::start(&["--name", "slow", "-w", "1", "-l", "127.0.0.1:0", "--drain", "1h"]);
    let status = instance.wait_for("it serves", |status| ready(status) == 1);
    let mut client = connect(&status);
    // Half a request: the worker is not quiet while the client is in the middle of it.
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").expect("written");
    instance.wait_for("the worker has the connection", |status| status["workers"][0]["active"] == 1);

    let begin = Instant::now();
    let output = instance.ask(&["stop", "--timeout", "500ms"]);
    assert_eq!(output.status.code(), Some(1), "{}{}", out(&output), err(&output));
    assert!(err(&output).contains("slow is still stopping"), "{}", err(&output));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());

    // The client may finish: that is what was waited for.
    client.write_all(b"connection: close\r\n\r\n").expect("written");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(instance.end(), Some(0), "{}", instance.log());
}

#[test]
fn stop_now_does_not_wait() {
    let mut instance =
        Instance::start(&["--name", "now", "-w", "1", "-l", "127.0.0.1:0", "--drain", "1h", "--grace", "1s"]);
    let status = instance.wait_for("it serves", |status| ready(status) == 1);
    let mut client = connect(&status);
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").expect("written");
    instance.wait_for("the worker has the connection", |status| status["workers"][0]["active"] == 1);
    let output = instance.ask(&["stop", "--now", "--timeout", "15s"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(instance.end(), Some(0), "{}", instance.log());
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).expect("written");
}
