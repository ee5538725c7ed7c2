//! Real servers, unmodified, as workers.
//!
//! All of them answer `/` at once with a body that names the process (`pid=N`). Most have `/slow?ms=N`, which
//! computes in silence, and a download that takes a while ([`Server::download`]).

mod prepare;

use crate::binary;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Python's `http.server`: HTTP/1.0, a thread per connection, dies at once on SIGTERM.
    Python,
    /// The same with HTTP/1.1 and keep-alive.
    PythonKeepAlive,
    /// The same as the first, listening with MPTCP. Not one of [`ALL`].
    PythonMptcp,
    /// A plain Node script: dies at once on SIGTERM.
    Node,
    /// The JDK's HTTP server.
    Java,
    /// netty with its native epoll transport.
    Netty,
    /// Go's net/http.
    Go,
    /// gunicorn: a master with one child; the master listens long before the child accepts.
    Gunicorn,
    /// nginx, master and two children on one listener.
    Nginx,
    /// nginx with `listen … reuseport`: one listener per child, all bound by the master.
    NginxReuseport,
    /// Four times gunicorn with `--reuse-port`, each with a listener of its own. Not one of [`ALL`].
    GunicornReuseport,
    /// granian, four workers with a listener each. Not one of [`ALL`], and in no Debian package.
    Granian,
    /// HAProxy, four threads with a listener each. Not one of [`ALL`].
    HaProxy,
    /// relisten's own worker.
    BuiltIn,
    /// A Rust server on the library `relisten`, its example `server`: takes its listeners, says READY, drains.
    Library,
    /// A small C program that binds and listens by io_uring. Dies at once on SIGTERM. Not one of [`ALL`].
    IoUring,
}

/// A server on an address.
#[derive(Clone, Debug)]
pub struct Server {
    /// Which.
    pub kind: Kind,
    /// Where it listens.
    pub address: SocketAddr,
    /// The command line; empty for the built-in worker.
    pub command: Vec<String>,
    /// Options of `relisten run` that it needs.
    pub options: Vec<String>,
    /// Its environment.
    pub environment: Vec<(String, String)>,
    /// Files that must lie in its working directory.
    pub files: Vec<(String, Vec<u8>)>,
    /// How long a start takes at most on a busy machine.
    pub start: Duration,
    /// The path that is asked for under load, and that names the process.
    pub path: &'static str,
    /// The path of an answer computed in silence for so many milliseconds (to be appended), where it has one.
    pub slow: Option<&'static str>,
    /// A reply that takes its time.
    pub download: Download,
    /// Does it keep connections open?
    pub keeps_alive: bool,
}

/// A reply that takes its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Download {
    /// The server sends 10 kB a second, for so many seconds (to be appended to the path).
    Paced(&'static str),
    /// The server sends as fast as the client reads: so many bytes.
    Large(&'static str, usize),
}

/// Servers whose names the issue gives, each on its own in the tests that say "per server".
pub const ALL: [Kind; 11] = [
    Kind::Python,
    Kind::PythonKeepAlive,
    Kind::Node,
    Kind::Java,
    Kind::Netty,
    Kind::Go,
    Kind::Gunicorn,
    Kind::Nginx,
    Kind::NginxReuseport,
    Kind::BuiltIn,
    Kind::Library,
];

/// With address and directory.
const FOUR_GUNICORNS: &str = "trap 'kill $all' TERM
for n in 1 2 3 4; do gunicorn --reuse-port --bind \"$0\" --chdir \"$1\" wsgi:app & all=\"$all $!\"; done
while kill -0 $all 2>/dev/null; do wait; done";

/// The size of [`Download::Large`].
const LARGE: usize = 64 << 20;

impl Kind {
    /// Installed and built? Called outside of the sandbox. The error says what is missing.
    pub fn prepare(self) -> Result<(), String> {
        prepare::prepare(self)
    }

    /// On the usual address of the tests, `127.0.0.1:8000`.
    pub fn server(self) -> Server {
        self.at(SocketAddr::from(([127, 0, 0, 1], 8000)))
    }

    /// On an address.
    pub fn at(self, address: SocketAddr) -> Server {
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let script = |name: &str| text(&binary::servers().join(name));
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let server = Server {
            kind: self,
            address,
            command: Vec::new(),
            options: Vec::new(),
            environment: Vec::new(),
            files: Vec::new(),
            start: Duration::from_secs(5),
            path: "/",
            slow: Some("/slow?ms="),
            download: Download::Paced("/download?s="),
            keeps_alive: true,
        };
        match self {
            Self::Python => Server {
                command: words(&["python3", &script("python.py"), &host, &port]),
                keeps_alive: false,
                ..server
            },
            Self::PythonKeepAlive => Server {
                command: words(&["python3", &script("python.py"), &host, &port, "--http11"]),
                ..server
            },
            Self::PythonMptcp => Server {
                command: words(&["python3", &script("python.py"), &host, &port, "--mptcp"]),
                keeps_alive: false,
                ..server
            },
            Self::Node => Server { command: words(&["node", &script("node.js"), &host, &port]), ..server },
            Self::Java => Server {
                command: [java(), words(&["-cp", &text(&binary::built()), "HttpServer", &host, &port])]
                    .concat(),
                start: Duration::from_secs(15),
                ..server
            },
            Self::Netty => {
                let library = format!("-Djava.library.path={}", text(&binary::built()));
                let classes = text(&binary::built());
                let classes = prepare::NETTY_JARS.iter().fold(classes, |path, jar| format!("{path}:{jar}"));
                Server {
                    command: [java(), words(&[&library, "-cp", &classes, "NettyServer", &host, &port])]
                        .concat(),
                    start: Duration::from_secs(20),
                    ..server
                }
            }
            Self::Go => Server {
                command: words(&[&text(&binary::built().join("go-server")), &address.to_string()]),
                ..server
            },
            Self::Gunicorn => Server {
                command: words(&["gunicorn", "--threads", "32", "--bind", &address.to_string()])
                    .into_iter()
                    .chain(words(&["--chdir", &text(&binary::servers()), "wsgi:app"]))
                    .collect(),
                // Where the sources lie may not be ours to write.
                environment: vec![("PYTHONDONTWRITEBYTECODE".into(), "1".into())],
                start: Duration::from_secs(10),
                ..server
            },
            Self::IoUring => Server {
                command: words(&[&text(&binary::built().join("uring")), &host, &port]),
                slow: None,
                keeps_alive: false,
                ..server
            },
            Self::GunicornReuseport => Server {
                // Its own workers share one listener all the same, so there are four of it.
                command: words(&[
                    "sh",
                    "-c",
                    FOUR_GUNICORNS,
                    &address.to_string(),
                    &text(&binary::servers()),
                ]),
                environment: vec![("PYTHONDONTWRITEBYTECODE".into(), "1".into())],
                start: Duration::from_secs(20),
                keeps_alive: false,
                ..server
            },
            Self::Granian => Server {
                command: words(&["python3", "-m", "granian", "--interface", "wsgi", "--workers", "4"])
                    .into_iter()
                    .chain(words(&["--host", &host, "--port", &port, "wsgi:app"]))
                    .collect(),
                environment: vec![
                    ("PYTHONDONTWRITEBYTECODE".into(), "1".into()),
                    (
                        "PYTHONPATH".into(),
                        format!("{}:{}", text(&binary::built().join("granian")), text(&binary::servers())),
                    ),
                ],
                start: Duration::from_secs(20),
                ..server
            },
            Self::HaProxy => {
                let config =
                    include_str!("../../servers/haproxy.cfg").replace("ADDRESS", &address.to_string());
                Server {
                    command: words(&["haproxy", "-db", "-f", "haproxy.cfg"]),
                    files: vec![("haproxy.cfg".into(), config.into_bytes())],
                    slow: None,
                    ..server
                }
            }
            Self::Nginx => nginx(server, ""),
            Self::NginxReuseport => nginx(server, "reuseport"),
            Self::BuiltIn => Server {
                options: words(&["--listen", &address.to_string()]),
                files: vec![("large.bin".into(), vec![b'x'; LARGE])],
                path: "/.relisten",
                slow: None,
                download: Download::Large("/large.bin", LARGE),
                ..server
            },
            Self::Library => Server {
                // The address is for when it runs alone; under relisten it takes what it is passed.
                command: words(&[&text(&binary::built().join("library-server")), &address.to_string()]),
                options: words(&["--listen", &address.to_string()]),
                ..server
            },
        }
    }
}

fn nginx(server: Server, options: &str) -> Server {
    let template = include_str!("../../servers/nginx.conf");
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let text = template
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.replace("USER", user).replace("OPTIONS", options) + "\n")
        .collect::<String>()
        .replace("ADDRESS", &server.address.to_string());
    Server {
        command: ["nginx", "-e", "stderr", "-p", ".", "-c", "nginx.conf"].map(str::to_owned).to_vec(),
        files: vec![
            ("nginx.conf".into(), text.into_bytes()),
            // With limit_rate 10k this takes ten seconds.
            ("download.bin".into(), vec![b'x'; 100 << 10]),
        ],
        slow: None,
        download: Download::Paced("/download?s="),
        ..server
    }
}

/// Small and quick to start: several run on two cores at once.
fn java() -> Vec<String> {
    ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx64m", "-Xshare:auto"]
        .map(str::to_owned)
        .to_vec()
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

impl Server {
    /// Puts its files into a directory.
    pub fn install(&self, directory: &Path) {
        for (name, content) in &self.files {
            std::fs::write(directory.join(name), content).expect("write a server's file");
        }
    }

    /// Starts it alone, without relisten.
    pub fn bare(&self, directory: &Path) -> Child {
        self.install(directory);
        let (program, arguments) = self.command.split_first().expect("the built-in worker has no command");
        Command::new(program)
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(directory)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("start {program}: {error}"))
    }
}
