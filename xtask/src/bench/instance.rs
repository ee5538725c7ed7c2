//! Servers that are measured, supervised and bare, and load on them.

use super::control_group::ControlGroup;
use super::ground::Ground;
use super::process::{self, wait_for};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde::Deserialize;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take to start or to end.
const BOUND: Duration = Duration::from_secs(60);

/// A running `relisten run`.
pub(super) struct Instance {
    server: Server,
    control: PathBuf,
    commands: PathBuf,
}

/// A process that serves.
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
    log: PathBuf,
    _group: Option<ControlGroup>,
}

/// What an instance says of itself: the few fields that are needed here.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Status {
    state: String,
    pub(super) generation: u32,
    workers: Vec<Worker>,
    steering: Steering,
    listeners: Vec<Listener>,
}

#[derive(Clone, Debug, Deserialize)]
struct Steering {
    backend: String,
    missing: Vec<Missing>,
}

#[derive(Clone, Debug, Deserialize)]
struct Missing {
    feature: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Listener {
    slots: Vec<Slot>,
}

#[derive(Clone, Debug, Deserialize)]
struct Slot {
    state: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Worker {
    pid: Option<u32>,
    state: String,
}

impl Status {
    /// Process IDs of those that serve.
    pub(super) fn ready(&self) -> Vec<u32> {
        self.workers.iter().filter(|worker| worker.state == "ready").filter_map(|worker| worker.pid).collect()
    }

    /// These many serve, and nobody leaves any more.
    pub(super) fn settled(&self, workers: usize) -> bool {
        self.state == "running" && self.workers.len() == workers && self.ready().len() == workers
    }

    /// What steers, once that is settled: the programs come into force a moment after the workers.
    pub(super) fn backend(&self) -> Option<String> {
        let settled =
            self.steering.backend != "cbpf" || self.steering.missing.iter().any(|m| m.feature == "ebpf");
        settled.then(|| self.steering.backend.clone())
    }

    /// Does any worker hang?
    pub(super) fn hung(&self) -> bool {
        self.listeners.iter().flat_map(|listener| &listener.slots).any(|slot| slot.state == "hung")
    }
}

impl Server {
    /// Starts a command that serves on this port of 127.0.0.1 and waits until it answers.
    pub(super) fn start(ground: &Ground, name: &str, port: u16, words: &[String]) -> Result<Server, String> {
        let server = Server::spawn(ground, name, port, words, &[])?;
        wait_for(&format!("{name} answers"), BOUND, || ask(server.address, "/", Duration::from_secs(5)).ok())
            .map_err(|why| format!("{why}; its output:\n{}", server.output()))?;
        Ok(server)
    }

    pub(super) fn spawn(
        ground: &Ground,
        name: &str,
        port: u16,
        words: &[String],
        environment: &[(&str, &str)],
    ) -> Result<Server, String> {
        let group = ControlGroup::new(name);
        let words = group.as_ref().map_or_else(|| words.to_vec(), |group| group.within(words));
        let (program, arguments) = words.split_first().ok_or("an empty command")?;
        let log = ground.directory.join(format!("{name}.log"));
        let output = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(&ground.site)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        Ok(Server { child, address: SocketAddr::from(([127, 0, 0, 1], port)), log, _group: group })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The server and all it has started.
    pub(super) fn family(&self) -> Vec<u32> {
        let mut family = process::descendants(self.pid());
        family.push(self.pid());
        family
    }

    /// All it wrote.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines it wrote.
    pub(super) fn output(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let family = self.family();
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in family {
            process::signal(pid, Signal::KILL);
        }
    }
}

impl Instance {
    /// Starts `relisten run` and waits until all workers serve. An empty `command`: the built-in worker.
    pub(super) fn start(
        ground: &Ground,
        name: &str,
        port: u16,
        workers: usize,
        options: &[&str],
        command: &[String],
    ) -> Result<Instance, String> {
        let control = ground.directory.join(format!("{name}.sock"));
        let mut words =
            vec![ground.relisten.display().to_string(), "run".into(), "--name".into(), name.into()];
        words.extend(["--control".into(), control.display().to_string()]);
        words.extend(["--workers".into(), workers.to_string()]);
        words.extend(options.iter().map(|option| (*option).to_owned()));
        if command.is_empty() {
            words.extend(["--listen".into(), format!("127.0.0.1:{port}")]);
        } else {
            words.push("--".into());
            words.extend_from_slice(command);
        }
        let server = Server::spawn(ground, name, port, &words, &[])?;
        let instance = Instance { server, control, commands: ground.commands.clone() };
        instance.settle(workers)?;
        Ok(instance)
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// The supervisor.
    pub(super) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// The keeper, if it has one.
    pub(super) fn keeper(&self) -> Option<u32> {
        let is_keeper = |pid: &u32| process::words(*pid).get(1).is_some_and(|word| word == "keeper");
        process::descendants(self.pid()).into_iter().find(is_keeper).or_else(|| {
            // It may have no parent but the first process.
            process::descendants(1).into_iter().find(is_keeper)
        })
    }

    /// What it says of itself.
    pub(super) fn status(&self) -> Result<Status, String> {
        let failed = |error: std::io::Error| format!("control socket: {error}");
        let mut stream = UnixStream::connect(&self.control).map_err(failed)?;
        stream.set_read_timeout(Some(BOUND)).map_err(failed)?;
        stream.write_all(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n").map_err(failed)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(failed)?;
        let body = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(&[][..], |at| &answer[at + 4..]);
        serde_json::from_slice(body).map_err(|error| format!("status: {error}"))
    }

    /// Waits until these many workers serve and nobody leaves any more.
    pub(super) fn settle(&self, workers: usize) -> Result<Status, String> {
        let mut last = None;
        wait_for(&format!("{workers} workers serve"), BOUND, || {
            last = Some(self.status());
            last.clone()?.ok().filter(|status| status.settled(workers))
        })
        .map_err(|why| format!("{why}; last status: {last:?}; its output:\n{}", self.server.output()))
    }

    /// `relisten reload`, and how long that took.
    pub(super) fn reload(&self, wait: bool) -> Result<Duration, String> {
        let begin = Instant::now();
        let mut command = Command::new(&self.commands);
        command.arg("reload").arg("--control").arg(&self.control).args(wait.then_some("--wait"));
        let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        let took = begin.elapsed();
        if output.status.success() {
            return Ok(took);
        }
        Err(format!("relisten reload failed: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// This process may have as many descriptors as there may be.
pub(super) fn raise_descriptors() -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, most).map_err(|error| format!("descriptors: {error}"))
}

/// The body of an answer to a request on a new connection. Whatever goes wrong is an error at once.
pub(super) fn ask(address: SocketAddr, path: &str, patience: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) => Ok(body.to_owned()),
        None => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A running `relisten load`.
pub(super) struct Load(Child);

/// What a load found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loaded {
    pub(super) per_second: f64,
    pub(super) completed: f64,
    pub(super) lost: u64,
    /// Of the latencies, milliseconds.
    pub(super) mean: f64,
    pub(super) p99: f64,
    pub(super) p99_9: f64,
}

impl Load {
    pub(super) fn start(
        ground: &Ground,
        address: SocketAddr,
        duration: Duration,
        options: &[&str],
    ) -> Result<Load, String> {
        let duration = format!("{}ms", duration.as_millis());
        let child = Command::new(&ground.commands)
            .args(["load", "--json", "--duration", &duration])
            .args(options)
            .arg(format!("http://{address}/"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("relisten load: {error}"))?;
        Ok(Load(child))
    }

    fn report(self) -> Result<serde_json::Value, String> {
        let output = self.0.wait_with_output().map_err(|error| error.to_string())?;
        serde_json::from_slice(&output.stdout).map_err(|error| format!("report of the load: {error}"))
    }

    /// Waits for its end. Steps of 100 ms: when each began, in milliseconds, and how many requests were served in it.
    pub(super) fn series(self) -> Result<Vec<(u64, u64)>, String> {
        #[derive(Deserialize)]
        struct Step {
            at_ms: u64,
            completed: u64,
        }
        let steps = self.report()?["series"].take();
        let steps: Vec<Step> = serde_json::from_value(steps).map_err(|error| error.to_string())?;
        Ok(steps.iter().map(|step| (step.at_ms, step.completed)).collect())
    }

    /// Waits for its end. That something was lost is no error here.
    pub(super) fn finish(self) -> Result<Loaded, String> {
        let report = self.report()?;
        let number = |pointer: &str| {
            let found = report.pointer(pointer).and_then(serde_json::Value::as_f64);
            found.ok_or_else(|| format!("the report of the load has no {pointer}"))
        };
        let completed = number("/attempts/fates/completed")?;
        Ok(Loaded {
            per_second: completed * 1000.0 / number("/elapsed_ms")?.max(1.0),
            completed,
            lost: number("/lost")? as u64,
            mean: number("/total_us/mean")? / 1000.0,
            p99: number("/total_us/p99")? / 1000.0,
            p99_9: number("/total_us/p99_9")? / 1000.0,
        })
    }
}
