//! A server that runs: reloaded, scaled, and its workers found.

use super::command::Place;
use super::{Server, Way, who};
use crate::experiment::{Context, Failure};
use crate::experiments::{measure, stopped};
use relisten_diag::process::ProcessTable;
use relisten_diag::sock_diag::{Query, SockDiag, State};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Its processes are ended when this is dropped.
pub(in crate::experiments) struct Running {
    server: Server,
    way: Way,
    place: Place,
    children: Vec<Child>,
}

/// What a server needs to do what it was told by a signal: it does not say when it has.
const A_WHILE: Duration = Duration::from_millis(600);

impl Running {
    /// Starts it with so many workers, and waits until it answers.
    pub(in crate::experiments) fn start(
        context: &Context<'_>,
        server: Server,
        way: Way,
        workers: usize,
    ) -> Result<Self, Failure> {
        // Nobody else takes it in a network of our own; elsewhere it is a little gamble.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let directory = context.scratch.join(address.port().to_string());
        std::fs::create_dir_all(&directory)?;
        let place = Place { directory, address, program: context.program.clone() };
        let mut running = Self { server, way, place, children: Vec::new() };
        if running.is_crowd() {
            running.more(workers)?;
        } else {
            running.spawn(running.place.command(server, way, workers)?)?;
        }
        measure::until(&format!("{} answers", who(server, way)), || Ok(ask(address).is_ok()))
            .map_err(|error| running.with_output(&error))?;
        if way == Way::Relisten {
            // The command returns when all of them serve.
            running.relisten(&["scale", &workers.to_string()])?;
        }
        Ok(running)
    }

    pub(in crate::experiments) fn address(&self) -> SocketAddr {
        self.place.address
    }

    /// Why it does not do what it should is mostly in its output.
    fn with_output(&self, error: &Failure) -> Failure {
        let output = std::fs::read(self.place.directory.join("log")).unwrap_or_default();
        Failure::Unexpected(format!("{error}; its output: {}", String::from_utf8_lossy(&output).trim()))
    }

    /// Workers that nobody looks after.
    fn is_crowd(&self) -> bool {
        self.server == Server::Python && self.way != Way::Relisten
    }

    /// New workers in place of all.
    pub(in crate::experiments) fn reload(&mut self) -> Result<(), Failure> {
        match (self.way, self.server) {
            (Way::Relisten, _) => self.relisten(&["reload"]).map(drop),
            (_, Server::Python) => {
                // As a careful person would: first the new ones.
                let workers = self.children.len();
                self.more(workers)?;
                self.less(workers)
            }
            (_, Server::HaProxy) => self.tell(Signal::USR2),
            (_, Server::Pm2) => self.pm2(&["reload", "lab"]),
            _ => self.tell(Signal::HUP),
        }
    }

    /// More or fewer workers.
    pub(in crate::experiments) fn scale(&mut self, from: usize, to: usize) -> Result<(), Failure> {
        match (self.way, self.server) {
            (Way::Relisten, _) => self.relisten(&["scale", &to.to_string()]).map(drop),
            (_, Server::Python) => {
                self.more(to.saturating_sub(from))?;
                self.less(from.saturating_sub(to))
            }
            (way, Server::Nginx) => {
                self.place.nginx_configuration(way, to)?;
                self.tell(Signal::HUP)
            }
            (way, Server::HaProxy) => {
                self.place.haproxy_configuration(way, to)?;
                self.tell(Signal::USR2)
            }
            (_, Server::Pm2) => self.pm2(&["scale", "lab", &to.to_string()]),
            (_, Server::Granian) => {
                Err(Failure::Skip("it has no way to change the number of its workers".to_owned()))
            }
            _ => {
                for _ in from.min(to)..from.max(to) {
                    self.tell(if to > from { Signal::TTIN } else { Signal::TTOU })?;
                }
                Ok(())
            }
        }
    }

    /// Under relisten: another policy from now on.
    pub(in crate::experiments) fn steer(&self, policy: &str) -> Result<(), Failure> {
        self.relisten(&["steer", policy]).map(drop)
    }

    /// A process that accepts.
    pub(in crate::experiments) fn worker(&self) -> Result<Pid, Failure> {
        let first = match self.way {
            Way::Relisten => self.first_worker()?,
            _ => self.children.first().map(Child::id),
        };
        let none = || Failure::Unexpected(format!("{} has no worker", who(self.server, self.way)));
        let first = first.ok_or_else(none)?;
        let table = ProcessTable::read()?;
        // There is no session 0 in a process namespace that has a first process of its own.
        let family = table.tree(first, u32::MAX);
        let is_parent = |pid: &u32| family.iter().any(|child| table.parent(*child) == Some(*pid));
        // Python's multiprocessing has one more, which only cleans up.
        let accepts = |pid: &u32| !is_parent(pid) && !command_line(*pid).contains("resource_tracker");
        let pid = family.iter().copied().find(accepts);
        pid.and_then(|pid| Pid::from_raw(pid.cast_signed())).ok_or_else(none)
    }

    /// The first process of a worker that relisten runs.
    fn first_worker(&self) -> Result<Option<u32>, Failure> {
        let status: serde_json::Value = serde_json::from_slice(&self.relisten(&["status", "--json"])?)?;
        let workers = status["workers"].as_array().into_iter().flatten();
        let mut ready = workers.filter(|worker| worker["state"] == "ready");
        Ok(ready.find_map(|worker| worker["pid"].as_u64()?.try_into().ok()))
    }

    fn spawn(&mut self, mut command: Command) -> Result<(), Failure> {
        let log = File::create(self.place.directory.join("log"))?;
        command
            .env("TMPDIR", &self.place.directory)
            .env("PORT", self.place.address.port().to_string())
            .current_dir(&self.place.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().map_err(Failure::kernel("start a server"))?;
        self.children.push(child);
        Ok(())
    }

    /// Python: so many processes more, which listen when this returns.
    fn more(&mut self, count: usize) -> Result<(), Failure> {
        let port = self.place.address.port();
        let goal = listeners(port)? + count;
        for _ in 0..count {
            self.spawn(self.place.command(self.server, self.way, 1)?)?;
        }
        measure::until("Python processes listen", || Ok(listeners(port)? >= goal))
    }

    /// Python: the oldest processes are told to end, each while it serves: clients in step would hide what that costs.
    fn less(&mut self, count: usize) -> Result<(), Failure> {
        let port = self.place.address.port();
        for mut oldest in self.children.drain(..count) {
            let pid = Pid::from_child(&oldest);
            measure::until("a Python process serves", || Ok(stopped::accepted(pid, port)? > 0))?;
            kill_process(pid, Signal::TERM)?;
            oldest.wait()?;
        }
        Ok(())
    }

    fn tell(&self, signal: Signal) -> Result<(), Failure> {
        let main = self.children.first().ok_or_else(|| Failure::Unexpected("no process".to_owned()))?;
        kill_process(Pid::from_child(main), signal)?;
        std::thread::sleep(A_WHILE);
        Ok(())
    }

    /// A command to the instance, and what it said at its end.
    fn relisten(&self, words: &[&str]) -> Result<Vec<u8>, Failure> {
        let mut command = Command::new(&self.place.program);
        command.args(words).arg("--control").arg(self.place.control());
        done(command, &format!("relisten {}", words.join(" ")))
    }

    fn pm2(&self, words: &[&str]) -> Result<(), Failure> {
        let mut command = self.place.pm2()?;
        command.args(words);
        done(command, &format!("pm2 {}", words.join(" "))).map(drop)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended already.
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
        for child in &mut self.children {
            if measure::until("a server ends", || Ok(child.try_wait()?.is_some())).is_err() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// Runs a command to its end: its output.
fn done(mut command: Command, what: &str) -> Result<Vec<u8>, Failure> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Failure::Unexpected(format!("{what} failed: {}", why.trim())))
}

fn command_line(pid: u32) -> String {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ")
}

/// Sockets that listen on this port.
fn listeners(port: u16) -> Result<usize, Failure> {
    Ok(SockDiag::new()?.list(&Query::tcp(State::Listen).ports([port]))?.len())
}

fn ask(address: SocketAddr) -> std::io::Result<()> {
    let patience = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.") { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}
