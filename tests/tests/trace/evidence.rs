//! What is told without privileges or parts of the machine, filters, and what is lost.

use relisten_e2e::capture::{Capture, Stream};
use relisten_e2e::puppet::Puppet;
use relisten_e2e::trace::{Told, Trace};
use relisten_e2e::{Test, cli, process, seconds, sockets, wait_until};
use rustix::process::Signal;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

#[track_caller]
fn mount(arguments: &[&str]) {
    let status = Command::new("mount").args(arguments).status().expect("mount");
    assert!(status.success(), "mount {arguments:?}");
}

fn level<'a>(told: &'a Told, name: &str) -> &'a relisten_e2e::trace::Level {
    told.levels
        .iter()
        .find(|level| level.name == name)
        .unwrap_or_else(|| panic!("no level {name}: {told:#?}"))
}

/// Refuses a connection; who it was.
fn refused(port: u16) -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect_err("nobody listens there");
    socket.local_addr().ok().and_then(|name| name.as_socket()).expect("address")
}

/// Fills the queue of the test's own listener until something is dropped.
fn overflow(listener: &TcpListener) -> Vec<TcpStream> {
    let address = listener.local_addr().expect("address");
    let port = address.port();
    let mut clients = Vec::new();
    wait_until("a SYN is dropped", seconds(40), || {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        // In progress, or connected, or dropped.
        let _ = socket.connect(&address.into());
        clients.push(socket.into());
        sockets::drops(port) > 0
    });
    clients
}

fn small_listener() -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 8001)).into()).expect("bind");
    socket.listen(1).expect("listen");
    socket.into()
}

/// Only counters and socket tables are open to an ordinary user: numbers by listener, and what is hidden is said.
#[test]
fn ordinary_user() {
    Test::new().root().run(|_| {
        let binary = std::env::var("RELISTEN_BIN").expect("the binary");
        // The checkout may lie where nobody may look.
        std::fs::copy(binary, "/run/relisten-copy").expect("a copy of the binary");
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--"]);
        command.args(["/run/relisten-copy", "trace", "--json"]);
        let listener = small_listener();
        let trace = Trace::run(command);
        let clients = overflow(&listener);
        let fate = trace.wait("accept-queue-full", |_| true);
        let place = fate.listener.expect("listener");
        let inode = rustix::fs::fstat(&listener).expect("fstat").st_ino;
        assert_eq!((place.address.port(), place.inode), (8001, Some(inode)));
        assert_eq!((fate.client, fate.worker.is_none()), (None, true));
        let (_, before) = (refused(8002), trace.fates().len());
        trace.wait("other-reset", |_| true);
        assert!(before < trace.fates().len() || before > 0);
        let told = trace.end_with("accept-queue-full", || sockets::drops(8001));
        told.only(&["accept-queue-full", "other-reset"]);
        assert!(level(&told, "sock-diag").used);
        let programs = level(&told, "raw-tracepoints");
        assert!(!programs.used && programs.why.is_some() && programs.hides.is_some(), "{programs:?}");
        drop(clients);
    });
}

/// The same within the rights of whoever runs the tests: it gives what it can, and ends well.
#[test]
fn whatever_the_rights() {
    Test::new().run(|_| {
        let listener = small_listener();
        let trace = Trace::start(&[]);
        let clients = overflow(&listener);
        let fate = trace.wait("accept-queue-full", |_| true);
        assert_eq!(fate.worker.map(|worker| worker.pid), Some(std::process::id()), "it is our own");
        let told = trace.end_with("accept-queue-full", || sockets::drops(8001));
        for level in &told.levels {
            assert_eq!(level.used, level.why.is_none(), "{level:?}");
        }
        drop(clients);
    });
}

/// Names of reasons don't need tracefs, and the programs neither.
#[test]
fn without_tracefs() {
    Test::new().root().run(|_| {
        for directory in ["/sys/kernel/tracing", "/sys/kernel/debug"] {
            if std::path::Path::new(directory).exists() {
                mount(&["-t", "tmpfs", "none", directory]);
            }
        }
        let trace = Trace::start(&[]);
        let fate = trace.of("nobody-listens", refused(8001));
        assert!(fate.shows("NO_SOCKET"), "{fate:#?}");
        let told = trace.end();
        assert!(level(&told, "raw-tracepoints").used);
        told.only(&["nobody-listens"]);
    });
}

/// Without the kernel's type information there are no programs: that is said, and numbers are told.
#[test]
fn without_types() {
    Test::new().root().run(|_| {
        mount(&["--bind", "/dev/null", "/sys/kernel/btf/vmlinux"]);
        let listener = small_listener();
        let trace = Trace::start(&[]);
        let clients = overflow(&listener);
        let fate = trace.wait("accept-queue-full", |_| true);
        assert_eq!(fate.worker.map(|worker| worker.pid), Some(std::process::id()));
        let told = trace.end();
        let programs = level(&told, "raw-tracepoints");
        assert!(!programs.used && programs.hides.is_some(), "{programs:?}");
        drop(clients);
    });
}

/// By port, by process, by cause.
#[test]
fn filters() {
    Test::new().root().run(|scene| {
        let pairs = [(8001, "one"), (8002, "two")];
        let mut puppets =
            pairs.map(|(port, name)| Puppet::listens(scene, name, &format!("127.0.0.1:{port}"), 16));
        let pid = puppets[0].pid().to_string();
        let all = Trace::start(&[]);
        let port = Trace::start(&["--port", "8001"]);
        let process = Trace::start(&["--pid", &pid]);
        let cause = Trace::start(&["--cause", "unread-data", "--cause", "linger-zero"]);
        let mut clients = Vec::new();
        for (puppet, (port, _)) in puppets.iter_mut().zip(pairs) {
            let client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
            std::io::Write::write_all(&mut &client, b"x").expect("write");
            puppet.does("import select; c, _ = s.accept(); select.select([c], [], []); c.close()");
            clients.push(client.local_addr().expect("address"));
        }
        let last = refused(8003);
        all.of("nobody-listens", last);
        // That one was the last, and the second one's client came after the first one's.
        port.of("unread-data", clients[0]);
        process.of("unread-data", clients[0]);
        cause.of("unread-data", clients[1]);
        let clients_of = |trace: Trace| -> Vec<SocketAddr> {
            trace.end().fates.iter().filter_map(|fate| fate.client).collect()
        };
        assert_eq!(clients_of(all), [clients[0], clients[1], last]);
        assert_eq!(clients_of(port), clients[..1]);
        assert_eq!(clients_of(process), clients[..1]);
        assert_eq!(clients_of(cause), clients);
        let unknown = cli(&["trace", "--cause", "bad-luck"]);
        assert_eq!(unknown.code(), Some(2), "{unknown:?}");
        assert!(unknown.err.contains("nobody-listens"), "{unknown:?}");
    });
}

/// Lines for people, and the summary, after the time that was asked for.
#[test]
fn words_and_summary() {
    Test::new().root().run(|_| {
        let mut command = Command::new(std::env::var("RELISTEN_BIN").expect("the binary"));
        command.args(["trace", "--duration", "3s"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("relisten trace");
        let output = Capture::start("trace", &mut child);
        wait_until("it watches", seconds(40), || output.contains("evidence from"));
        let mut status = None;
        wait_until("it is over", seconds(40), || {
            refused(8001);
            status = child.try_wait().expect("wait");
            status.is_some()
        });
        output.finish();
        let (out, err) = (output.text_of(Stream::Out), output.text_of(Stream::Err));
        assert!(status.is_some_and(|status| status.success()), "{err}");
        assert!(err.contains("evidence from") && err.contains("raw-tracepoints"), "{err}");
        let lines: Vec<&str> = out.lines().filter(|line| line.contains("-> 127.0.0.1:8001")).collect();
        assert!(!lines.is_empty(), "{out}");
        for line in &lines {
            let parts: Vec<&str> = line.split(" | ").collect();
            assert!(parts[0].contains(" refused 127.0.0.1:"), "{line}");
            assert_eq!((parts[1], parts[2]), ("SYN", "nobody listens there"), "{line}");
            assert!(parts[3].contains("NO_SOCKET") && parts[4].starts_with("do: start the server"), "{line}");
        }
        assert!(out.contains(&format!("\n{} in all\n", lines.len())), "{out}");
        let counted = format!("{:>8}  nobody-listens ", lines.len());
        assert!(out.contains(&counted), "{out}");
    });
}

/// More than the ring takes, while nobody reads it: what is not told is counted.
#[test]
fn what_is_lost_is_counted() {
    const MANY: usize = 12_000;
    Test::new().root().run(|_| {
        let trace = Trace::start(&[]);
        process::stop(trace.pid());
        for _ in 0..MANY {
            TcpStream::connect("127.0.0.1:8001").expect_err("nobody listens there");
        }
        process::signal(trace.pid(), Signal::CONT);
        let told = trace.end();
        let refused: u64 = told.fates_of("nobody-listens").iter().map(|fate| fate.count).sum();
        assert!(told.summary.lost > 0 && refused > 0, "{:?}", told.summary);
        // Each is one event at least.
        assert!(refused + told.summary.lost >= MANY as u64, "{:?}", told.summary);
    });
}
