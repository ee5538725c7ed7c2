//! The configuration names another address. Those who come to the old one are served there as long as anybody
//! listens there, and nobody stops listening there who has something left to do.

use relisten_e2e::load::{self, Load, lab};
use relisten_e2e::{Kind, Relisten, Scene, Server, Test, http, millis, rounds, seconds, wait_until};
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::Duration;

const OLD: &str = "127.0.0.1:8000";

fn server(address: &str) -> Server {
    Kind::PythonKeepAlive.at(address.parse().expect("an address"))
}

/// The configuration file for a server. `named`: with `listen`; else the address is learned from the worker's `bind`.
fn configure(scene: &Scene, server: &Server, named: bool) -> String {
    let words: Vec<String> = server.command.iter().map(|word| format!("{word:?}")).collect();
    let listen = if named { format!("listen = \"{}\"\n", server.address) } else { String::new() };
    let text = format!("workers = 2\n{listen}command = [{}]\n", words.join(", "));
    scene.write("relisten.toml", &text).display().to_string()
}

/// Does anybody listen at this very address?
fn listened(address: SocketAddr) -> bool {
    let mut ss = Command::new("ss");
    let output = ss.args(["--no-header", "--numeric", "--tcp", "--listening"]).output().expect("run ss");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_ascii_whitespace().any(|word| word == address.to_string())
}

fn start(scene: &Scene, old: &Server, named: bool) -> Relisten {
    let path = configure(scene, old, named);
    scene.relisten().options(["--config", &path, "--drain", "8s"]).workers(2).start()
}

/// New connections, kept ones and downloads on the old address while it changes. The new connections go on to come
/// until nobody listens there any more: the only thing that may happen to them is to be refused, and only from then
/// on. (Between the moment when the old workers go deaf and their end, a client's SYN gets no answer. It is sent again
/// after one second, and then refused.)
fn under_load(new: &str, named: bool) {
    Test::new().server(Kind::PythonKeepAlive).run(|scene| {
        let (old, new) = (server(OLD), server(new));
        let relisten = start(scene, &old, named);
        let before = relisten.status().pids();
        let load = Load::on(&old);
        let mut plan = load::plan(old.address, "/");
        (plan.pace, plan.pause) = (lab::Pace::Clients(8), millis(50));
        plan.keep_alive = lab::KeepAlive::Unlimited;
        let kept = Load::start(plan);
        let path = format!("/download?s={}", rounds(3, 5));
        let downloads: Vec<_> = (0..4)
            .map(|_| {
                let (address, path) = (old.address, path.clone());
                thread::spawn(move || http::get(address, &path))
            })
            .collect();
        wait_until("the downloads are under way", seconds(3), || {
            relisten_e2e::sockets::accepted(old.address.port()).len() >= 4 + 8
        });
        configure(scene, &new, named);
        relisten.reload().ok();
        // Served at the new address from now on.
        let newcomers = Load::launch(load::plan(new.address, "/"));
        newcomers.more(50, seconds(5));
        // The old generation is still there for those who have come: connections that are kept go on to be used.
        kept.more(100, seconds(5));
        assert!(listened(old.address), "the old address was closed while connections to it were in use");
        let kept = kept.finish_clean();
        assert_eq!(kept.connections.started, 8, "kept connections were not kept:\n{kept}");
        for download in downloads {
            let answer = download.join().expect("client").expect("a download was cut");
            assert_eq!(answer.body.len(), rounds(3, 5) * 10_000);
        }
        // The last moment at which somebody listened at the old address for sure.
        let mut last = Duration::ZERO;
        let closed = wait_closed(&load, old.address, &mut last);
        wait_until("connections are refused", seconds(5), || load.snapshot().fates.refused > 0);
        let report = load.finish();
        let fates = report.attempts.fates;
        assert_eq!(report.lost, fates.refused, "lost otherwise than refused:\n{report}");
        for step in report.series.iter().filter(|step| step.lost > 0) {
            assert!(
                Duration::from_millis(step.at_ms + 100) >= last,
                "refused ({step:?}) while somebody listened (last seen after {last:?}, closed {closed:?})"
            );
        }
        assert!(
            before.iter().all(|pid| !relisten_e2e::process::alive(*pid)),
            "closed before its workers had left"
        );
        newcomers.finish_clean();
        relisten.settle(2, seconds(10));
        relisten.stop(seconds(20));
        scene.nothing_left(&[8000, 8001]);
    });
}

/// Waits until nobody listens there. Both times are the load's: the last look that found somebody began at `last`,
/// and the first that did not ended at the time given.
#[track_caller]
fn wait_closed(load: &Load, address: SocketAddr, last: &mut Duration) -> Duration {
    wait_until("the old address is closed", seconds(15), || {
        let begin = load.snapshot().elapsed;
        let open = listened(address);
        if open {
            *last = begin;
        }
        !open
    });
    load.snapshot().elapsed
}

#[test]
fn port() {
    under_load("127.0.0.1:8001", true);
}

#[test]
fn address() {
    under_load("127.0.0.2:8000", true);
}

#[test]
fn family() {
    under_load("[::1]:8000", true);
}

#[test]
fn learned_port() {
    under_load("127.0.0.1:8001", false);
}

/// The old workers are killed with connections waiting for them at the old address, which nobody else will ever bind.
/// That costs those connections, which can't be helped; it must not cost the new generation anything.
#[test]
fn crash_at_the_old_address() {
    Test::new().server(Kind::PythonKeepAlive).run(|scene| {
        let (old, new) = (server(OLD), server("127.0.0.1:8001"));
        let relisten = start(scene, &old, true);
        let before = relisten.status().pids();
        for pid in &before {
            relisten_e2e::process::stop(*pid);
        }
        let waiting: Vec<_> = (0..20).map(|_| thread::spawn(move || http::get(old.address, "/"))).collect();
        wait_until("they wait", seconds(5), || relisten_e2e::sockets::waiting(8000) >= 20);
        configure(scene, &new, true);
        relisten.reload().ok();
        let serving = relisten.status().pids();
        let load = Load::on(&new);
        for pid in &before {
            relisten_e2e::process::kill(*pid);
        }
        wait_until("the old address is closed", seconds(10), || !listened(old.address));
        for client in waiting {
            client.join().expect("client").expect_err("somebody served the old address");
        }
        let status = relisten.settle(2, seconds(5));
        assert_eq!(status.pids(), serving, "the new generation was replaced for what it can't serve");
        load.finish_clean();
        relisten.stop(seconds(20));
        scene.nothing_left(&[8000, 8001]);
    });
}

/// What a balancer does: as soon as somebody listens at the new address, it sends nothing new to the old one. What
/// is under way there outlasts the switch by far, and nothing of it is lost.
#[test]
fn load_that_moves_loses_nothing() {
    Test::new().server(Kind::PythonKeepAlive).run(|scene| {
        let (old, new) = (server(OLD), server("127.0.0.1:8001"));
        let relisten = start(scene, &old, true);
        let (mut from, mut to) = (old, new);
        for _ in 0..rounds(3, 10) {
            let mut plan = load::plan(from.address, "/slow?ms=700");
            plan.pace = lab::Pace::Clients(16);
            let load = Load::launch(plan);
            load.more(1, seconds(10));
            configure(scene, &to, true);
            let report = thread::scope(|scope| {
                let reload = scope.spawn(|| relisten.reload());
                wait_until("somebody listens at the new address", seconds(10), || listened(to.address));
                let report = load.finish();
                reload.join().expect("reload").ok();
                report
            });
            load::assert_nothing_lost(&report);
            let load = Load::on(&to);
            relisten.settle(2, seconds(15));
            load.finish_clean();
            std::mem::swap(&mut from, &mut to);
        }
        relisten.stop(seconds(20));
        scene.nothing_left(&[8000, 8001]);
    });
}
