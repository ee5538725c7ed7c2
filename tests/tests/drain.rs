//! Who leaves finishes what it has: long answers, keep-alive connections, handshakes that are late.

use relisten_e2e::load::{self, Load, lab};
use relisten_e2e::server::Download;
use relisten_e2e::{Kind, Test, http, late, millis, per_server, process, rounds, seconds, wait_until};
use std::thread;
use std::time::{Duration, Instant};

/// A download and a silent computation run through five reloads.
fn long_answers(kind: Kind) {
    Test::new().server(kind).limit(seconds(rounds(90, 120))).run(|scene| {
        let server = kind.server();
        let relisten = scene.relisten().server(&server).options(["--drain", "60s"]).workers(2).start();
        let (download, silent) = (rounds(4, 10), rounds(4, 8));
        let address = server.address;
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(thread::spawn(move || slow_download(address, server.download, download)));
            if let Some(path) = server.slow {
                let path = format!("{path}{}", silent * 1000);
                clients.push(thread::spawn(move || {
                    let mut connection = http::Connection::open(address, seconds(60)).expect("connect");
                    connection.send(&path, false).expect("send");
                    let answer = connection.receive().expect("an answer computed in silence");
                    assert_eq!(answer.status, 200);
                }));
            }
        }
        let busy = || relisten_e2e::sockets::accepted(address.port()).len() >= clients.len();
        wait_until("all long requests are accepted", seconds(5), busy);
        for _ in 0..5 {
            relisten.reload().ok();
        }
        for client in clients {
            client.join().expect("a long answer was cut");
        }
        relisten.settle(2, seconds(30));
        relisten.stop(seconds(20));
        scene.nothing_left(&[address.port()]);
    });
}
per_server!(
    long_answers,
    [
        python = Python,
        node = Node,
        java = Java,
        netty = Netty,
        go = Go,
        gunicorn = Gunicorn,
        nginx = Nginx,
        built_in = BuiltIn,
        library = Library,
    ]
);

/// Takes so many seconds, whoever sets the pace. All bytes must come.
fn slow_download(address: std::net::SocketAddr, download: Download, seconds: u64) {
    use std::io::{Read, Write};
    let (path, expected) = match download {
        Download::Paced(path) => (format!("{path}{seconds}"), None),
        Download::Large(path, size) => (path.to_owned(), Some(size)),
    };
    let mut stream = std::net::TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("send");
    let mut received = Vec::new();
    let mut buffer = vec![0; 256 << 10];
    let begin = Instant::now();
    loop {
        if expected.is_some() && begin.elapsed() < Duration::from_secs(seconds) {
            // The reader's pace: a quarter of a megabyte each 50 ms.
            thread::sleep(Duration::from_millis(50));
        }
        match stream.read(&mut buffer).expect("the download goes on") {
            0 => break,
            n => received.extend_from_slice(&buffer[..n]),
        }
    }
    let head = received.windows(4).position(|window| window == b"\r\n\r\n").expect("a header") + 4;
    let text = String::from_utf8_lossy(&received[..head]).to_lowercase();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    if let Some(length) = length.or(expected) {
        assert_eq!(received.len() - head, length, "the download is short");
    } else {
        assert!(received.ends_with(b"0\r\n\r\n"), "the chunked download has no end");
    }
}

/// Clients that keep their connections and ask again and again stay with their worker through five reloads.
fn keep_alive(kind: Kind) {
    Test::new().server(kind).run(|scene| {
        let server = kind.server();
        let relisten = scene.relisten().server(&server).options(["--drain", "60s"]).workers(2).start();
        let mut plan = load::plan(server.address, server.path);
        plan.pace = lab::Pace::Clients(16);
        plan.keep_alive = lab::KeepAlive::Unlimited;
        plan.pause = millis(100);
        let load = Load::start(plan);
        for round in 1..=5 {
            relisten.reload().ok();
            load.run_until(millis(1000 * round));
        }
        let report = load.finish_clean();
        assert_eq!(report.connections.started, 16, "connections did not last:\n{report}");
        relisten.settle(2, seconds(20));
        relisten.stop(seconds(20));
    });
}
per_server!(
    keep_alive,
    [
        python = PythonKeepAlive,
        node = Node,
        java = Java,
        netty = Netty,
        go = Go,
        built_in = BuiltIn,
        library = Library
    ]
);

/// A connection that stays idle does not keep its worker for the whole drain time.
#[test]
fn idle_connections_do_not_hold_a_worker() {
    Test::new().server(Kind::PythonKeepAlive).run(|scene| {
        let server = Kind::PythonKeepAlive.server();
        let relisten = scene.relisten().server(&server).options(["--drain", "60s"]).workers(1).start();
        let mut connection = http::Connection::open(server.address, seconds(30)).expect("connect");
        let old = connection.get("/").expect("an answer").pid();
        relisten.reload().ok();
        wait_until("the old worker is gone", seconds(20), || !process::alive(old));
        relisten.stop(seconds(20));
    });
}

/// What lasts longer than `--drain` is cut, and that is said and counted.
#[test]
fn drain_has_an_end() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene.relisten().server(&server).options(["--drain", "2s"]).workers(1).start();
        let old = relisten.status().pids()[0];
        let address = server.address;
        let client = thread::spawn(move || {
            let mut connection = http::Connection::open(address, seconds(30)).expect("connect");
            connection.send("/slow?ms=20000", false).expect("send");
            connection.receive()
        });
        wait_until("the request is accepted", seconds(5), || {
            relisten_e2e::sockets::accepted(8000).len() == 1
        });
        let begin = Instant::now();
        relisten.reload().ok();
        wait_until("the old worker is gone", seconds(10), || !process::alive(old));
        assert!(begin.elapsed() >= seconds(2), "it was cut after {:?}", begin.elapsed());
        client.join().expect("client").expect_err("the answer was to be cut");
        let status = relisten.settle(1, seconds(10));
        assert_eq!(status.totals.cut, 1, "{status:#?}");
        relisten.wait_output("--drain is over", seconds(1));
        relisten.stop(seconds(20));
    });
}

/// Connections whose handshake is completed seconds after the steering changed are served: the client's last ACK
/// is held back, the old worker has to wait for it.
fn late_acknowledgements(kind: Kind) {
    // For the client's sake: see `late`.
    Test::new().root().server(kind).run(|scene| {
        let server = kind.server();
        let relisten = scene.relisten().server(&server).workers(2).start();
        let old = relisten.status().pids();
        let mut clients: Vec<_> = (0..20).map(|_| late::Client::begin(server.address)).collect();
        wait_until("20 requests are half open", seconds(5), || {
            relisten_e2e::sockets::half_open(server.address.port()) >= 20
        });
        relisten.reload().ok();
        // The steering has changed; the old workers may not leave yet.
        let begin = Instant::now();
        let mut served_by_old = 0;
        while begin.elapsed() < seconds(2) {
            assert!(old.iter().all(|pid| process::alive(*pid)), "an old worker left with requests half open");
            thread::sleep(millis(20));
        }
        clients.iter_mut().for_each(late::Client::acknowledge);
        for mut client in clients {
            let answer = client.get(server.path).expect("a late connection was lost");
            let pid = answer.pid();
            let family = |old: &u32| *old == pid || process::descendants(*old).iter().any(|p| p.pid == pid);
            served_by_old += usize::from(old.iter().any(family));
        }
        assert!(served_by_old > 0, "nobody was half open at an old worker: the test shows nothing");
        relisten.settle(2, seconds(30));
        relisten.stop(seconds(20));
    });
}
per_server!(
    late_acknowledgements,
    [python = Python, node = Node, nginx = Nginx, built_in = BuiltIn, library = Library]
);

/// The same without privilege: with TCP_DEFER_ACCEPT a request stays half open until the client has sent something.
#[test]
fn deferred_accept() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let command = server.command.iter().map(String::as_str).chain(["--defer", "10"]);
        let relisten = scene.relisten().command(command).workers(2).start();
        let open = |_| http::Connection::open(server.address, seconds(20)).expect("connect");
        let mut clients: Vec<_> = (0..20).map(open).collect();
        wait_until("20 requests are half open", seconds(5), || {
            relisten_e2e::sockets::half_open(server.address.port()) >= 20
        });
        relisten.reload().ok();
        // They may wait for long, but not for ever: half open is no loss until the kernel gives up.
        for client in &mut clients {
            client.send("/", false).expect("send");
        }
        for mut client in clients {
            assert_eq!(client.receive().expect("a deferred connection was lost").status, 200);
        }
        relisten.settle(2, seconds(30));
        relisten.stop(seconds(20));
    });
}
