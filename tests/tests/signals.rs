//! Signals to the supervisor, and its end.

use relisten_e2e::{Kind, Test, http, process, seconds, sockets, wait_until};
use rustix::process::Signal;
use std::time::Instant;

/// What is being answered when the instance stops is still answered, and whoever comes later is refused.
fn graceful(signal: Signal) {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let mut relisten = scene.relisten().server(&server).workers(2).start();
        let address = server.address;
        let clients: Vec<_> =
            (0..10).map(|_| std::thread::spawn(move || http::get(address, "/slow?ms=2000"))).collect();
        wait_until("all are accepted", seconds(5), || sockets::accepted(8000).len() == 10);
        relisten.signal(signal);
        for client in clients {
            assert_eq!(client.join().expect("client").expect("cut by the stop").status, 200);
        }
        let status = relisten.wait(seconds(15));
        assert!(status.success(), "{status}");
        scene.nothing_left(&[8000]);
    });
}

#[test]
fn terminate_is_graceful() {
    graceful(Signal::TERM);
}

#[test]
fn interrupt_is_graceful() {
    graceful(Signal::INT);
}

#[test]
fn a_second_one_stops_at_once() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let mut relisten = scene.relisten().server(&server).options(["--drain", "60s"]).workers(2).start();
        let address = server.address;
        let client = std::thread::spawn(move || http::get(address, "/slow?ms=30000"));
        wait_until("it is accepted", seconds(5), || sockets::accepted(8000).len() == 1);
        let begin = Instant::now();
        relisten.signal(Signal::TERM);
        relisten.wait_status("it stops", seconds(5), |status| status.state == "stopping");
        relisten.signal(Signal::TERM);
        relisten.wait(seconds(10));
        assert!(begin.elapsed() < seconds(10));
        client.join().expect("client").expect_err("it was to be cut");
        scene.nothing_left(&[8000]);
    });
}

/// A worker that ignores the stop signal is killed after the grace time.
#[test]
fn grace_has_an_end() {
    Test::new().server(Kind::Python).run(|scene| {
        let script = "import signal, http.server
signal.signal(signal.SIGTERM, signal.SIG_IGN)
http.server.ThreadingHTTPServer(('127.0.0.1', 8000), http.server.SimpleHTTPRequestHandler).serve_forever()
";
        let relisten =
            scene.relisten().options(["--grace", "1s"]).command(["python3", "-c", script]).workers(2).start();
        relisten.stop(seconds(10));
        scene.nothing_left(&[8000]);
    });
}

/// Processes that a worker leaves behind are gone with it.
#[test]
fn orphans_of_a_worker_end_with_it() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let words: Vec<String> = server.command.iter().map(|word| format!("'{word}'")).collect();
        let script = format!("sleep 1000 & exec {}", words.join(" "));
        let relisten = scene.relisten().command(["sh", "-c", &script]).workers(1).start();
        process::kill(relisten.status().pids()[0]);
        relisten
            .wait_status("restarted", seconds(10), |status| status.totals.restarts == 1 && status.settled(1));
        let sleepers = || process::all().iter().filter(|p| p.command.starts_with("sleep 1000")).count();
        wait_until("the dead worker's child is gone", seconds(5), || sleepers() == 1);
        relisten.stop(seconds(20));
        scene.nothing_left(&[8000]);
    });
}

/// A server that puts itself into the background is told of, with what to do, and ended: nobody could look after it, and
/// it would have the port.
#[test]
fn a_server_in_the_background_is_ended() {
    Test::new().server(Kind::Python).run(|scene| {
        let script = "import http.server, os, signal
server = http.server.HTTPServer(('127.0.0.1', 8000), http.server.SimpleHTTPRequestHandler)
if os.fork():
    os._exit(0)
os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
server.serve_forever()
";
        let command = ["python3", "-c", script];
        let finished =
            scene.relisten().options(["--grace", "1s"]).command(command).workers(2).fail(seconds(20));
        assert_eq!(finished.code(), Some(5), "{finished:#?}");
        for part in ["into the background", "must stay in the foreground"] {
            assert!(finished.err.contains(part), "{finished:#?}");
        }
        scene.nothing_left(&[8000]);
    });
}

/// As the first process of a container the supervisor reaps whatever is left to it.
#[test]
fn reaps_zombies_as_first_process() {
    Test::new().root().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let words: Vec<String> = server.command.iter().map(|word| format!("'{word}'")).collect();
        // Every 50 ms a grandchild whose parent is gone at once.
        let script = format!("(while :; do (sleep 0.02 &); sleep 0.05; done) & exec {}", words.join(" "));
        let builder = scene.relisten().command(["sh", "-c", &script]).workers(1);
        let run = builder.build();
        let mut unshare = std::process::Command::new("unshare");
        unshare
            .args(["--pid", "--fork", "--kill-child=KILL", "--"])
            .arg(run.get_program())
            .args(run.get_args());
        unshare.current_dir(scene.directory());
        let mut child = unshare.spawn().expect("unshare");
        relisten_e2e::wait_for("it serves", seconds(15), || http::get(server.address, "/").ok());
        let begin = Instant::now();
        let mut worst = 0;
        wait_until("three seconds are over", seconds(4), || {
            worst = worst.max(process::all().iter().filter(|p| p.state == 'Z').count());
            begin.elapsed() >= seconds(3)
        });
        assert!(worst < 10, "{worst} zombies:\n{}", process::table());
        let supervisor = process::descendants(child.id())[0].pid;
        process::signal(supervisor, Signal::TERM);
        wait_until("it ends", seconds(20), || child.try_wait().expect("wait").is_some());
    });
}
