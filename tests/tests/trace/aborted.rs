//! Connections that one of the two programs, or the kernel in its place, gave up.

use crate::counter;
use relisten_e2e::puppet::Puppet;
use relisten_e2e::trace::Trace;
use relisten_e2e::wire::{Wire, flag};
use relisten_e2e::{Kind, Scene, Test, process, seconds, wait_until};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

/// Until the other side ends it.
fn end_of(client: &mut TcpStream) -> ErrorKind {
    client.read(&mut [0; 4096]).map_or_else(|error| error.kind(), |_| ErrorKind::UnexpectedEof)
}

fn name(client: &TcpStream) -> SocketAddr {
    client.local_addr().expect("address")
}

/// Closed with data that was not read, and with SO_LINGER 0: by one of two servers of a group, which is the one to be
/// named.
#[test]
fn by_the_server() {
    Test::new().root().run(|scene| {
        let trace = Trace::start(&[]);
        let mut puppets = ["one", "two"].map(|name| Puppet::listens(scene, name, "127.0.0.1:8001", 16));
        trace.catch_up();
        for (case, close, cause, shown) in [
            ("unread", "c.close()", "unread-data", "TCP_ABORT_ON_CLOSE"),
            (
                "linger",
                "c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); c.close()",
                "linger-zero",
                "",
            ),
        ] {
            let mut client = TcpStream::connect("127.0.0.1:8001").expect("connect");
            let waits = "import select; print(len(select.select([s], [], [], 0)[0]))";
            let mut who = None;
            wait_until("somebody has it", seconds(20), || {
                who = puppets.iter_mut().position(|puppet| puppet.says(waits) == "1");
                who.is_some()
            });
            let puppet = &mut puppets[who.expect("somebody")];
            puppet.does("c, _ = s.accept()");
            if case == "unread" {
                client.write_all(b"question").expect("write");
                puppet.does("select.select([c], [], [])");
            }
            puppet.does(close);
            assert_eq!(end_of(&mut client), ErrorKind::ConnectionReset);
            let fate = trace.of(cause, name(&client));
            let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
            // Kernels before 6.10 don't say it.
            assert!(fate.shows(shown) || fate.shows("gives no reasons"), "{fate:#?}");
            assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("reset", "accepted"), "{case}");
            fate.is_at("127.0.0.1:8001", inode, pid, &command);
        }
        let told = trace.end();
        told.only(&["unread-data", "linger-zero"]);
        assert_eq!(told.fates.len(), 2 + 1, "and a mark");
    });
}

/// Closed before the client has sent everything.
#[test]
fn by_the_server_too_early() {
    Test::new().root().run(|scene| {
        let trace = Trace::start(&[]);
        if let Some(hidden) = trace.hides("TIME_WAIT") {
            return scene.skip(&hidden);
        }
        let mut puppet = Puppet::listens(scene, "server", "127.0.0.1:8001", 16);
        let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
        let mut client = TcpStream::connect("127.0.0.1:8001").expect("connect");
        puppet.does("c, _ = s.accept(); c.close()");
        client.write_all(b"question").expect("write");
        // The end comes first.
        wait_until("it is reset", seconds(20), || {
            client.write_all(b"question").is_err() || end_of(&mut client) == ErrorKind::ConnectionReset
        });
        let fate = trace.of("unread-data", name(&client));
        fate.is_at("127.0.0.1:8001", inode, pid, &command);
        assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("reset", "accepted"));
        trace.end().only(&["unread-data"]);
    });
}

/// The client is the one to blame, and the server that had it is named.
#[test]
fn by_the_client() {
    Test::new().root().run(|scene| {
        let wire = Wire::lay();
        let trace = Trace::start(&[]);
        let mut puppet = Puppet::listens(scene, "server", "10.9.0.1:8001", 16);
        let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
        let mut client = TcpStream::connect("10.9.0.1:8001").expect("connect");
        puppet.does("c, _ = s.accept(); c.sendall(b'answer')");
        client.read_exact(&mut [0]).expect("a part of it");
        let own = name(&client);
        drop(client);
        // And one that is far away.
        let mut far = wire.client(2, 40_000, 8001);
        far.begin();
        far.acknowledge();
        puppet.does("d, _ = s.accept()");
        far.reset();
        for (client, how) in [(own, "pid"), (far.address(), "")] {
            let fate = trace.of("reset-by-client", client);
            fate.is_at("10.9.0.1:8001", inode, pid, &command);
            assert_eq!(fate.outcome, "reset");
            assert!(fate.explanation.contains(how), "{fate:#?}");
        }
        trace.end().only(&["reset-by-client"]);
    });
}

/// A client that has vanished: the server's kernel gives it up after its probes, in no process's name.
#[test]
fn keep_alive() {
    Test::new().root().run(|scene| {
        let wire = Wire::lay();
        let trace = Trace::start(&[]);
        let mut puppet = Puppet::listens(scene, "server", "10.9.0.1:8001", 16);
        let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
        puppet.does("s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)");
        for option in ["TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"] {
            puppet.does(&format!("s.setsockopt(socket.IPPROTO_TCP, socket.{option}, 1)"));
        }
        let mut client = wire.client(2, 40_000, 8001);
        client.begin();
        client.acknowledge();
        puppet.does("c, _ = s.accept()");
        client.hear(flag::RST);
        let fate = trace.of("keepalive-timeout", client.address());
        fate.is_at("10.9.0.1:8001", inode, pid, &command);
        assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("reset", "accepted"));
        trace.end().only(&["keepalive-timeout"]);
    });
}

/// A worker of relisten that does not read its request to the end.
#[test]
fn by_a_slot() {
    Test::new().root().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene.relisten().name("web").server(&server).workers(2).start();
        let trace = Trace::start(&["--port", "8000"]);
        let mut client = TcpStream::connect(server.address).expect("connect");
        client.write_all(b"GET / HTTP/1.0\r\nContent-Length: 50000\r\n\r\n").expect("write");
        // It may be reset before all of it is sent, and before the answer is read.
        let _ = client.write_all(&vec![b'x'; 50_000]).and_then(|()| client.read_to_end(&mut Vec::new()));
        let fate = trace.of("unread-data", name(&client));
        let told = fate.worker.clone().expect("a worker");
        let status = relisten.status();
        let worker =
            status.workers.iter().find(|worker| worker.pid == Some(told.pid)).expect("a worker's pid");
        assert_eq!((told.instance.as_deref(), told.slot), (Some("web"), Some(worker.slot)));
        let slot = status.listeners[0].slots.iter().find(|slot| slot.slot == worker.slot).expect("slot");
        assert_eq!(fate.listener.expect("listener").inode, Some(slot.inode));
        trace.end().only(&["unread-data"]);
        relisten.stop(seconds(40));
    });
}

/// No memory for what a client sends: the limit is that of a control group of the server's own.
#[test]
fn memory() {
    Test::new().root().run(|scene| {
        let Some(group) = MemoryGroup::new(scene) else {
            return scene.skip("no control group can be limited in its memory here");
        };
        let trace = Trace::start(&[]);
        let mut puppet = Puppet::listens(scene, "server", "127.0.0.1:8001", 16);
        let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
        puppet.does("s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)");
        group.take_in(pid);
        let mut client = TcpStream::connect("127.0.0.1:8001").expect("connect");
        client.set_nonblocking(true).expect("O_NONBLOCK");
        puppet.does("c, _ = s.accept()");
        let block = vec![0; 1 << 16];
        let told = || trace.fates().into_iter().find(|fate| fate.cause == "memory");
        wait_until("it is told", seconds(40), || {
            // Until no more fits, again and again.
            while client.write(&block).is_ok() {}
            told().is_some()
        });
        let fate = told().expect("told");
        fate.is_at("127.0.0.1:8001", inode, pid, &command);
        assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("dropped", "accepted"));
        assert_eq!(fate.client, Some(name(&client)));
        assert!(fate.shows("PROTO_MEM"), "{fate:#?}");
        trace.end().only(&["memory"]);
        puppet.kill();
        wait_until("the group is empty", seconds(20), || !process::alive(pid));
    });
}

/// No room for what a server leaves behind: as it closes before everything is acknowledged, the connection is reset. The
/// limit, and that of all memory for TCP, is of the whole machine, so this runs where the machine is the test's own.
#[test]
fn orphans() {
    Test::new().root().run(|scene| {
        if !Path::new(MACHINE).exists() {
            return scene
                .skip("net.ipv4.tcp_max_orphans is of the whole machine (cargo xtask vm has its own)");
        }
        let limit = MaxOrphans::set("0");
        let wire = Wire::lay();
        let trace = Trace::start(&[]);
        let mut puppet = Puppet::listens(scene, "server", "10.9.0.1:8001", 16);
        let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
        let mut client = wire.client(2, 40_000, 8001);
        client.begin();
        client.acknowledge();
        puppet.does("c, _ = s.accept(); c.sendall(b'answer')");
        client.hear(flag::PSH);
        // What was sent is not acknowledged, so it stays with nobody to hold it, and is given up as it is sent again.
        puppet.does("c.close()");
        client.hear(flag::RST);
        drop(limit);
        let fate = trace.of("memory", client.address());
        fate.is_at("10.9.0.1:8001", inode, pid, &command);
        assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("reset", "accepted"));
        assert!(counter("TcpExt", "TCPAbortOnMemory") > 0);
        trace.end().only(&["memory"]);
    });
}

/// The network namespace of a machine that is the tests' own (`cargo xtask vm`).
const MACHINE: &str = "/machine-netns";

/// The machine's setting, until dropped.
struct MaxOrphans(String);

impl MaxOrphans {
    fn set(value: &str) -> Self {
        let before = Self::run("cat /proc/sys/net/ipv4/tcp_max_orphans");
        Self::run(&format!("echo {value} > /proc/sys/net/ipv4/tcp_max_orphans"));
        Self(before.trim().to_owned())
    }

    /// In the machine's namespace.
    fn run(script: &str) -> String {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={MACHINE}")).args(["sh", "-c", script]);
        let output = command.output().expect("nsenter");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

impl Drop for MaxOrphans {
    fn drop(&mut self) {
        Self::run(&format!("echo {} > /proc/sys/net/ipv4/tcp_max_orphans", self.0));
    }
}

/// A control group whose sockets may take little memory. Removed when dropped.
struct MemoryGroup(std::path::PathBuf);

impl MemoryGroup {
    fn new(scene: &Scene) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        let root = |fits: &dyn Fn(&str, &str) -> bool| {
            mounts.lines().find_map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                fits(words[2], words[3]).then(|| std::path::PathBuf::from(words[1]))
            })
        };
        // As unique as the test's directory.
        let name = scene.directory().to_str().expect("UTF-8").replace('/', "-");
        let (parent, limit, bytes) =
            match root(&|kind, options| kind == "cgroup" && options.split(',').any(|o| o == "memory")) {
                Some(first) => (first, "memory.kmem.tcp.limit_in_bytes", "65536"),
                // The puppet itself must fit as well.
                None => (root(&|kind, _| kind == "cgroup2")?, "memory.max", "25165824"),
            };
        let group = Self(parent.join(name));
        std::fs::create_dir(&group.0).ok()?;
        std::fs::write(group.0.join(limit), bytes).ok()?;
        Some(group)
    }

    fn take_in(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("move it");
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}
