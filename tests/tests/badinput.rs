//! Whatever is asked for wrongly: a message that names the cause, the right exit code, and nothing lost.

use relisten_e2e::load::Load;
use relisten_e2e::{Finished, Kind, Scene, Test, cli, http, process, seconds, wait_until};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixStream};

/// The exit codes of the contract.
mod code {
    pub(crate) const FAILED: i32 = 1;
    pub(crate) const USAGE: i32 = 2;
    pub(crate) const NO_INSTANCE: i32 = 3;
    pub(crate) const ALREADY_RUNS: i32 = 4;
    pub(crate) const CANNOT_START: i32 = 5;
}

#[track_caller]
fn says(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.code(), Some(code), "{finished:#?}");
    for word in words {
        let text = finished.err.to_lowercase();
        assert!(text.contains(&word.to_lowercase()), "{word:?} is not in the message: {}", finished.err);
    }
    assert!(!finished.err.contains("panicked"), "{}", finished.err);
}

/// `relisten run` with these options and the plain Python server must fail like this.
#[track_caller]
fn refused(scene: &Scene, options: &[&str], code: i32, words: &[&str]) {
    let server = Kind::Python.server();
    let finished = scene.relisten().options(options).command(&server.command).fail(seconds(20));
    says(&finished, code, words);
    scene.nothing_left(&[]);
}

#[test]
fn address_in_use_by_another_server() {
    Test::new().server(Kind::Python).run(|scene| {
        let theirs = TcpListener::bind("127.0.0.1:8000").expect("bind");
        let me = format!("process {}", std::process::id());
        let words = ["127.0.0.1:8000", "in use", &me];
        refused(scene, &["--listen", "127.0.0.1:8000"], code::CANNOT_START, &words);
        // The same, learned from the worker: it fails by itself, and that is passed on.
        refused(scene, &["--ready-timeout", "5s"], code::CANNOT_START, &["8000"]);
        // Nobody listens where it was asked for, and the second worker can't have the port of the first.
        drop(theirs);
        let server = Kind::Python.server();
        let options = ["--listen", "127.0.0.1:8001", "--ready-timeout", "3s"];
        let finished =
            scene.relisten().options(options).workers(2).command(&server.command).fail(seconds(20));
        says(&finished, code::CANNOT_START, &["127.0.0.1:8000", "not given with --listen"]);
    });
}

#[test]
fn address_in_use_by_another_user() {
    Test::new().root().server(Kind::Python).run(|scene| {
        let script = "import socket, time
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(('127.0.0.1', 8000)); s.listen(5)
time.sleep(1000)";
        let mut theirs = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--clear-groups", "python3", "-c", script])
            .spawn()
            .expect("setpriv");
        wait_until("they listen", seconds(5), || !relisten_e2e::sockets::listening(8000).is_empty());
        refused_while(scene, &mut theirs);
    });
}

#[track_caller]
fn refused_while(scene: &Scene, theirs: &mut std::process::Child) {
    let server = Kind::Python.server();
    let options = ["--listen", "127.0.0.1:8000"];
    let finished = scene.relisten().options(options).command(&server.command).fail(seconds(20));
    says(&finished, code::CANNOT_START, &["127.0.0.1:8000", "in use"]);
    theirs.kill().expect("kill");
    theirs.wait().expect("wait");
}

#[test]
fn addresses_that_make_no_sense() {
    Test::new().server(Kind::Python).run(|scene| {
        for address in ["127.0.0.1", "127.0.0.1:99999", "http://127.0.0.1:80", "[::1:80", "unix:", ""] {
            refused(scene, &["--listen", address], code::USAGE, &[address]);
        }
        let unknown = "no-such-host.invalid:8000";
        refused(scene, &["--listen", unknown], code::USAGE, &["no-such-host.invalid"]);
        refused(scene, &["--listen", "192.0.2.1:8000"], code::CANNOT_START, &["192.0.2.1:8000"]);
    });
}

#[test]
fn command_not_found_or_not_executable() {
    Test::new().run(|scene| {
        let finished = scene.relisten().command(["no-such-program-anywhere"]).fail(seconds(10));
        says(&finished, code::USAGE, &["no-such-program-anywhere"]);
        let file = scene.write("data", "no program").display().to_string();
        let finished = scene.relisten().command([&file]).fail(seconds(10));
        says(&finished, code::USAGE, &["data", "execut"]);
        let directory = scene.directory().display().to_string();
        let finished = scene.relisten().command([&directory]).fail(seconds(10));
        says(&finished, code::USAGE, &[&directory]);
        scene.nothing_left(&[]);
    });
}

#[test]
fn options_that_make_no_sense() {
    Test::new().server(Kind::Python).run(|scene| {
        for option in [
            ["--drain", "soon"],
            ["--backlog", "none"],
            ["--ready", "http"],
            ["--stop-signal", "SIGNOTHING"],
            ["--steer", "by-magic"],
        ] {
            refused(scene, &option, code::USAGE, &[option[1]]);
        }
        // Not with `refused`: the harness gives the option itself.
        says(&cli(&["run", "--workers", "-1", "--", "true"]), code::USAGE, &["-1"]);
        says(&cli(&["run", "--workers", "0", "--", "true"]), code::USAGE, &["0"]);
        says(&cli(&["run", "--name", "../up", "--", "true"]), code::USAGE, &["../up"]);
        refused(scene, &["--config", "no-such-file.toml"], code::USAGE, &["no-such-file.toml"]);
        scene.write("bad.toml", "workers = 2\nworkerz = 3\n");
        refused(scene, &["--config", "bad.toml"], code::USAGE, &["bad.toml", "workerz"]);
    });
}

#[test]
fn no_instance() {
    Test::new().run(|_| {
        for command in
            [&["status", "ghost"][..], &["reload", "ghost"], &["scale", "2", "ghost"], &["stop", "ghost"]]
        {
            says(&cli(command), code::NO_INSTANCE, &["ghost"]);
        }
        says(&cli(&["status"]), code::NO_INSTANCE, &[]);
        says(&cli(&["reload"]), code::NO_INSTANCE, &[]);
    });
}

#[test]
fn a_name_used_twice() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene.relisten().name("web").server(&server).start();
        let load = Load::on(&server);
        let second = scene.relisten().name("web").server(&server).fail(seconds(10));
        says(&second, code::ALREADY_RUNS, &["web"]);
        load.more(100, seconds(10));
        load.finish_clean();
        relisten.settle(1, seconds(5));
        relisten.stop(seconds(20));
    });
}

/// The name may be left out while one instance runs, and must not be while several do.
#[test]
fn several_instances() {
    Test::new().server(Kind::Python).run(|scene| {
        let one = scene.relisten().name("one").server(&Kind::Python.server()).start();
        cli(&["status"]).ok();
        let address = ([127, 0, 0, 1], 8001).into();
        let two = scene.relisten().name("two").server(&Kind::Python.at(address)).start();
        says(&cli(&["reload"]), code::NO_INSTANCE, &["one", "two"]);
        two.stop(seconds(20));
        cli(&["reload"]).ok();
        one.settle(1, seconds(15));
        one.stop(seconds(20));
    });
}

/// A control socket left by a dead instance is no obstacle.
#[test]
fn control_socket_of_a_dead_instance() {
    Test::new().server(Kind::Python).run(|scene| {
        let path = scene.directory().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bind, and close without removing"));
        let control = path.display().to_string();
        let server = Kind::Python.server();
        let relisten = scene.relisten().options(["--control", &control]).server(&server).spawn();
        wait_until("it serves", seconds(15), || http::get(server.address, "/").is_ok());
        cli(&["status", "--control", &control]).ok();
        cli(&["stop", "--control", &control]).ok();
        wait_until("it ends", seconds(20), || !process::alive(relisten.pid()));
    });
}

/// Nonsense on the control socket: an answer or a closed connection, and nothing else happens.
#[test]
fn nonsense_on_the_control_socket() {
    Test::new().server(Kind::Python).run(|scene| {
        let path = scene.directory().join("control.sock");
        let control = path.display().to_string();
        let server = Kind::Python.server();
        let mut relisten = scene.relisten().options(["--control", &control]).server(&server).spawn();
        wait_until("it serves", seconds(15), || http::get(server.address, "/").is_ok());
        let descriptors = || process::descriptors(relisten.pid());
        let before = descriptors();
        let huge = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
        let cases: [&[u8]; 8] = [
            b"\0\xff\xfe\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"POST /scale HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{\"workers",
            b"POST /scale HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
            b"DELETE /status HTTP/1.1\r\nHost: x\r\n\r\n",
            b"",
            b"GET /status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            huge.as_bytes(),
        ];
        for case in cases {
            let mut stream = UnixStream::connect(&path).expect("connect");
            stream.set_read_timeout(Some(seconds(2))).expect("timeout");
            // It may close before all is written.
            let _ = stream.write_all(case);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read(&mut [0; 4096]);
        }
        // Many that say nothing at all.
        let silent: Vec<_> = (0..50).map(|_| UnixStream::connect(&path)).collect();
        cli(&["status", "--control", &control]).ok();
        drop(silent);
        wait_until("no descriptor is left", seconds(10), || descriptors() <= before);
        http::get(server.address, "/").expect("served");
        cli(&["stop", "--control", &control]).ok();
        relisten.wait(seconds(20));
    });
}

/// Garbage on NOTIFY_SOCKET neither makes a worker ready nor disturbs anything.
#[test]
fn garbage_on_the_notify_socket() {
    Test::new().server(Kind::Python).run(|scene| {
        let script = "
import os, socket, http.server, time
n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
a = os.environ['NOTIFY_SOCKET']; a = '\\0' + a[1:] if a[0] == '@' else a
s = http.server.ThreadingHTTPServer(('127.0.0.1', 8000), http.server.SimpleHTTPRequestHandler)
for m in (b'', b'\\0\\xff', b'READY', b'READY=2', b'=1', b'x' * 60000, b'READY=1x\\n', b'MAINPID=1', b'WATCHDOG_USEC=-1'):
    try: n.sendto(m, a)
    except OSError as e: print(e)
print('garbage is sent', flush=True)
while not os.path.exists('go'): time.sleep(0.02)
n.sendto(b'STATUS=fine\\nREADY=1\\n', a)
s.serve_forever()
";
        let builder = scene.relisten().options(["--ready", "notify"]).command(["python3", "-c", script]);
        let relisten = builder.spawn();
        relisten.wait_output("garbage is sent", seconds(10));
        let status = relisten.wait_status("it answers", seconds(5), |_| true);
        assert!(status.ready().is_empty(), "garbage made it ready: {status:#?}");
        scene.write("go", "");
        relisten.settle(1, seconds(10));
        relisten.stop(seconds(20));
    });
}

/// Somebody who is no worker can't make a worker ready.
#[test]
fn notify_from_a_stranger() {
    Test::new().server(Kind::Python).run(|scene| {
        let script =
            "import os, time; open('notify', 'w').write(os.environ['NOTIFY_SOCKET']); time.sleep(1000)";
        let options = ["--ready", "notify", "--ready-timeout", "30s"];
        let relisten = scene.relisten().options(options).command(["python3", "-c", script]).spawn();
        let file = scene.directory().join("notify");
        let read = || std::fs::read_to_string(&file).ok().filter(|name| !name.is_empty());
        let name = relisten_e2e::wait_for("the worker knows its socket", seconds(10), read);
        let stranger = UnixDatagram::unbound().expect("a socket");
        // Refused or ignored, both are right.
        let _ = if let Some(name) = name.strip_prefix('@') {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name).expect("a name");
            stranger.send_to_addr(b"READY=1", &address)
        } else {
            stranger.send_to(b"READY=1", &name)
        };
        // Two answers of the status later it would have been seen.
        for _ in 0..2 {
            let status = relisten.wait_status("it answers", seconds(5), |_| true);
            assert!(status.ready().is_empty(), "{status:#?}");
        }
        relisten.control(&["stop", "--now"]).ok();
        wait_until("it ends", seconds(20), || !process::alive(relisten.pid()));
    });
}

/// The limit of descriptors is reached: new workers fail, those that serve lose nothing, and the instance goes on when
/// there are descriptors again. Once while it starts, once under load.
#[test]
fn descriptor_limit() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let builder = scene.relisten().server(&server).workers(2);
        let run = builder.build();
        let mut limited = std::process::Command::new("prlimit");
        // Enough for two workers; eBPF programs and their maps need some as well.
        let limit = if scene.is_root() { 60 } else { 40 };
        limited.args([&format!("--nofile={limit}:4096"), "--"]).arg(run.get_program()).args(run.get_args());
        let mut child = limited.current_dir(scene.directory()).spawn().expect("prlimit (util-linux)");
        wait_until("it serves", seconds(15), || http::get(server.address, "/").is_ok());
        // More slots than there are descriptors for.
        let scaled = cli(&["scale", "60"]);
        http::get(server.address, "/").expect("served");
        if scaled.code() != Some(0) {
            says(&scaled, code::FAILED, &[]);
        }
        cli(&["scale", "2"]);
        let ready = || {
            let status = cli(&["status", "--json"]);
            serde_json::from_str::<relisten_e2e::Status>(&status.out).is_ok_and(|status| status.settled(2))
        };
        wait_until("it is back to two", seconds(40), ready);
        let load = Load::on(&server);
        cli(&["scale", "60"]);
        load.more(500, seconds(20));
        cli(&["scale", "2"]);
        wait_until("it is back to two again", seconds(40), ready);
        load.more(100, seconds(20));
        load.finish_clean();
        cli(&["stop"]).ok();
        wait_until("it ends", seconds(20), || child.try_wait().expect("wait").is_some());
    });
}
