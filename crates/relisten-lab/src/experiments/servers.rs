//! Real servers, bare and under relisten: started, reloaded, scaled.

use super::measure;
use crate::experiment::{Context, Failure};
use relisten_diag::sock_diag::{Query, SockDiag, State};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What is reloaded and scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// A plain script: dies at once on SIGTERM, with everything that it has accepted.
    Python,
    Gunicorn,
    Nginx,
    /// relisten's own.
    BuiltIn,
}

/// Alone it shares the port by reuseport, with the means that it has itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Bare,
    Relisten,
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Relisten => "under relisten",
        }
    }
}

impl Server {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Python => "Python http.server",
            Self::Gunicorn => "gunicorn",
            Self::Nginx => "nginx",
            Self::BuiltIn => "built-in worker",
        }
    }

    /// Starts it with so many workers, and waits until it answers.
    pub(super) fn start(self, context: &Context<'_>, way: Way, workers: usize) -> Result<Running, Failure> {
        // Nobody else takes it in a network of our own; elsewhere it is a little gamble.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let directory = context.scratch.join(format!("{}", address.port()));
        std::fs::create_dir_all(&directory)?;
        let mut running = Running {
            server: self,
            way,
            address,
            directory,
            program: context.program.clone(),
            children: Vec::new(),
        };
        match (way, self) {
            (Way::Bare, Self::Python) => {
                running.more(workers)?;
            }
            (Way::Bare, _) => {
                let command = running.alone(workers)?;
                running.spawn(command)?;
            }
            (Way::Relisten, _) => {
                let command = running.supervised(workers)?;
                running.spawn(command)?;
            }
        }
        let program = format!("{}, {}, answers", self.name(), way.name());
        measure::until(&program, || Ok(ask(address).is_ok()))?;
        if way == Way::Relisten {
            // The command returns when all of them serve.
            running.relisten(&["scale", &workers.to_string()])?;
        }
        Ok(running)
    }
}

/// A server that runs. Its processes are ended when this is dropped.
pub(super) struct Running {
    server: Server,
    way: Way,
    pub(super) address: SocketAddr,
    directory: PathBuf,
    program: PathBuf,
    children: Vec<Child>,
}

/// What a bare server needs to do what it was told by a signal: it does not say when it has.
const A_WHILE: Duration = Duration::from_millis(600);

impl Running {
    /// New workers in place of all.
    pub(super) fn reload(&mut self) -> Result<(), Failure> {
        match (self.way, self.server) {
            (Way::Relisten, _) => self.relisten(&["reload"]),
            (Way::Bare, Server::Python) => {
                // As a careful person would: first the new ones.
                let workers = self.children.len();
                self.more(workers)?;
                self.less(workers)
            }
            (Way::Bare, _) => self.tell(Signal::HUP),
        }
    }

    /// More or fewer workers.
    pub(super) fn scale(&mut self, from: usize, to: usize) -> Result<(), Failure> {
        match (self.way, self.server) {
            (Way::Relisten, _) => self.relisten(&["scale", &to.to_string()]),
            (Way::Bare, Server::Python) => {
                self.more(to.saturating_sub(from))?;
                self.less(from.saturating_sub(to))
            }
            (Way::Bare, Server::Nginx) => {
                self.nginx_configuration(to)?;
                self.tell(Signal::HUP)
            }
            (Way::Bare, _) => {
                for _ in from.min(to)..from.max(to) {
                    self.tell(if to > from { Signal::TTIN } else { Signal::TTOU })?;
                }
                Ok(())
            }
        }
    }

    fn spawn(&mut self, mut command: Command) -> Result<(), Failure> {
        let log = File::create(self.directory.join("log"))?;
        command
            .env("TMPDIR", &self.directory)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().map_err(Failure::kernel("start a server"))?;
        self.children.push(child);
        Ok(())
    }

    /// Python: so many processes more, which listen when this returns.
    fn more(&mut self, count: usize) -> Result<(), Failure> {
        let port = self.address.port();
        let goal = listeners(port)? + count;
        for _ in 0..count {
            let mut command = Command::new(find("python3")?);
            command.arg(self.script("server.py", PYTHON)?).arg(port.to_string()).arg("share");
            self.spawn(command)?;
        }
        measure::until("Python processes listen", || Ok(listeners(port)? >= goal))
    }

    /// Python: the oldest processes are told to end.
    fn less(&mut self, count: usize) -> Result<(), Failure> {
        for mut oldest in self.children.drain(..count) {
            kill_process(Pid::from_child(&oldest), Signal::TERM)?;
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

    /// A command to the instance, and its end.
    fn relisten(&self, words: &[&str]) -> Result<(), Failure> {
        let mut command = Command::new(&self.program);
        command.args(words).arg("--control").arg(self.directory.join("control"));
        let output = command.stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Failure::Unexpected(format!("relisten {} failed: {}", words.join(" "), why.trim())))
    }

    /// The server's own way to share a port.
    fn alone(&self, workers: usize) -> Result<Command, Failure> {
        match self.server {
            Server::Gunicorn => {
                let mut command = self.gunicorn()?;
                command.args(["--reuse-port", "--workers", &workers.to_string()]);
                Ok(command)
            }
            Server::Nginx => self.nginx(workers),
            Server::Python | Server::BuiltIn => {
                Err(Failure::Unexpected(format!("{} has no workers of its own", self.server.name())))
            }
        }
    }

    fn supervised(&self, workers: usize) -> Result<Command, Failure> {
        let mut command = Command::new(&self.program);
        command.args(["run", "--name", "lab", "--workers", &workers.to_string()]);
        command.arg("--control").arg(self.directory.join("control"));
        let server = match self.server {
            Server::BuiltIn => {
                command.arg("--listen").arg(self.address.to_string());
                return Ok(command);
            }
            Server::Python => {
                let mut python = Command::new(find("python3")?);
                python.arg(self.script("server.py", PYTHON)?).arg(self.address.port().to_string());
                python
            }
            Server::Gunicorn => self.gunicorn()?,
            Server::Nginx => self.nginx(1)?,
        };
        command.arg("--").arg(server.get_program()).args(server.get_args());
        Ok(command)
    }

    fn gunicorn(&self) -> Result<Command, Failure> {
        self.script("app.py", WSGI)?;
        let mut command = Command::new(find("gunicorn")?);
        command.args(["--bind", &self.address.to_string(), "app:app"]).arg("--chdir").arg(&self.directory);
        Ok(command)
    }

    fn nginx(&self, workers: usize) -> Result<Command, Failure> {
        let mut command = Command::new(find("nginx")?);
        command
            .args(["-e", "stderr", "-p"])
            .arg(&self.directory)
            .arg("-c")
            .arg(self.nginx_configuration(workers)?);
        Ok(command)
    }

    /// The worker of a supervised one has a port of its own; several of them share no file.
    fn nginx_configuration(&self, workers: usize) -> Result<PathBuf, Failure> {
        let reuseport = if self.way == Way::Bare { " reuseport" } else { "" };
        let address = self.address;
        // In a user namespace there is nobody else to become.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|what| format!("{what}_temp_path tmp; ")).concat();
        let text = format!(
            "{user} daemon off; worker_processes {workers}; pid nginx.pid; error_log stderr;\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log off; {temporary}\n\
             server {{ listen {address}{reuseport}; location / {{ return 200 'ok\\n'; }} }} }}\n"
        );
        self.script("nginx.conf", &text)
    }

    fn script(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.directory.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
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

/// What a user would write, with something to do; dies at once on SIGTERM, as Python does.
const PYTHON: &str = "\
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.02)
        self.send_response(200)
        self.send_header('Content-Length', '3')
        self.end_headers()
        self.wfile.write(b'ok\\n')
    def log_message(self, *words):
        pass
class Server(ThreadingHTTPServer):
    allow_reuse_port = len(sys.argv) > 2
    request_queue_size = 1024
Server(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
";

const WSGI: &str = "\
def app(environment, start):
    start('200 OK', [('Content-Length', '3'), ('Content-Type', 'text/plain')])
    return [b'ok\\n']
";

/// A program in PATH, or where systems keep their own.
fn find(program: &str) -> Result<PathBuf, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin"].map(PathBuf::from).into_iter();
    places
        .chain(std::env::split_paths(&path))
        .map(|place| place.join(program))
        .find(|file| Path::is_file(file))
        .ok_or_else(|| Failure::Skip(format!("{program} is not installed")))
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
