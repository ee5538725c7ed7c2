//! The commands that start servers, and the files that they need.

use super::{Server, Way};
use crate::experiment::Failure;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a server has its files, and on which address it listens.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) directory: PathBuf,
    pub(super) address: SocketAddr,
    /// The `relisten` program.
    pub(super) program: PathBuf,
}

impl Place {
    /// So many workers, or with [`Server::Python`] one of them.
    pub(super) fn command(&self, server: Server, way: Way, workers: usize) -> Result<Command, Failure> {
        if way == Way::Relisten {
            return self.supervised(server, workers);
        }
        let count = workers.to_string();
        match server {
            Server::Python => {
                let mut command = self.one(server)?;
                command.arg("share");
                Ok(command)
            }
            Server::Gunicorn => {
                let mut command = self.one(server)?;
                command.args((way == Way::Reuseport).then_some("--reuse-port")).args(["--workers", &count]);
                Ok(command)
            }
            Server::Granian => {
                let mut command = self.one(server)?;
                command.args(["--workers", &count, "--respawn-failed-workers"]);
                Ok(command)
            }
            Server::Nginx => {
                self.nginx_configuration(way, workers)?;
                self.nginx()
            }
            Server::HaProxy => {
                self.haproxy_configuration(way, workers)?;
                let mut command = Command::new(find("haproxy")?);
                command.args(["-W", "-f", "haproxy.cfg"]);
                Ok(command)
            }
            Server::Node => {
                let mut command = Command::new(find("node")?);
                command.arg(self.file("cluster.js", include_str!("cluster.js"))?);
                command.arg(self.node_script()?).env("WORKERS", count);
                Ok(command)
            }
            Server::Pm2 => {
                let mut command = self.pm2()?;
                command.arg("start").arg(self.node_script()?);
                command.args(["--no-daemon", "--name", "lab", "--instances", &count]);
                Ok(command)
            }
            Server::BuiltIn => {
                Err(Failure::Unexpected(format!("{} has no workers of its own", server.name())))
            }
        }
    }

    fn supervised(&self, server: Server, workers: usize) -> Result<Command, Failure> {
        let mut command = Command::new(&self.program);
        command.args(["run", "--name", "lab", "--workers", &workers.to_string()]);
        command.arg("--control").arg(self.control());
        if server == Server::BuiltIn {
            command.arg("--listen").arg(self.address.to_string());
        } else {
            let one = self.one(server)?;
            command.arg("--").arg(one.get_program()).args(one.get_args());
        }
        Ok(command)
    }

    /// One worker that knows nothing of others.
    fn one(&self, server: Server) -> Result<Command, Failure> {
        let (host, port) = (self.address.ip().to_string(), self.address.port().to_string());
        match server {
            Server::Python => {
                let mut command = Command::new(find("python3")?);
                command.arg(self.file("server.py", include_str!("python.py"))?).arg(port);
                Ok(command)
            }
            Server::Gunicorn => {
                self.file("app.py", include_str!("app.py"))?;
                let mut command = Command::new(find("gunicorn")?);
                command.args(["--bind", &self.address.to_string(), "app:app"]);
                Ok(command)
            }
            Server::Granian => {
                self.file("app.py", include_str!("app.py"))?;
                let mut command = Command::new(find("granian")?);
                command.args(["--interface", "wsgi", "--host", &host, "--port", &port, "app:app"]);
                Ok(command)
            }
            Server::Nginx => {
                self.nginx_configuration(Way::Relisten, 1)?;
                self.nginx()
            }
            Server::HaProxy => {
                self.haproxy_configuration(Way::Relisten, 1)?;
                let mut command = Command::new(find("haproxy")?);
                command.args(["-db", "-f", "haproxy.cfg"]);
                Ok(command)
            }
            Server::Node | Server::Pm2 => {
                let mut command = Command::new(find("node")?);
                command.arg(self.node_script()?);
                Ok(command)
            }
            Server::BuiltIn => Ok(Command::new(&self.program)),
        }
    }

    /// The control socket of an instance.
    pub(super) fn control(&self) -> PathBuf {
        self.directory.join("control")
    }

    /// PM2, with a home of its own.
    pub(super) fn pm2(&self) -> Result<Command, Failure> {
        let mut command = Command::new(find("pm2")?);
        command.env("PM2_HOME", self.directory.join("pm2"));
        Ok(command)
    }

    fn nginx(&self) -> Result<Command, Failure> {
        let mut command = Command::new(find("nginx")?);
        command.args(["-e", "stderr", "-p"]).arg(&self.directory).args(["-c", "nginx.conf"]);
        Ok(command)
    }

    pub(super) fn nginx_configuration(&self, way: Way, workers: usize) -> Result<(), Failure> {
        let reuseport = if way == Way::Reuseport { " reuseport" } else { "" };
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
        self.file("nginx.conf", &text).map(drop)
    }

    /// Alone, one process with a thread for each worker; its successor takes its listeners over, as the manual has it.
    pub(super) fn haproxy_configuration(&self, way: Way, threads: usize) -> Result<(), Failure> {
        let address = self.address;
        let socket = match way {
            Way::Relisten => String::new(),
            _ => {
                format!(" stats socket {}/stats level admin expose-fd listeners\n", self.directory.display())
            }
        };
        let text = format!(
            "global\n nbthread {threads}\n{socket}\
             defaults\n mode http\n timeout client 30s\n timeout connect 30s\n timeout server 30s\n\
             frontend all\n bind {address}\n http-request return status 200 content-type text/plain string ok\n"
        );
        self.file("haproxy.cfg", &text).map(drop)
    }

    fn node_script(&self) -> Result<PathBuf, Failure> {
        self.file("server.js", include_str!("node.js"))
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.directory.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

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
