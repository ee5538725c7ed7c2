//! Listeners that come late or unseen.

use relisten_e2e::load::Load;
use relisten_e2e::{Kind, Server, Test, http, seconds, sockets, wait_until};
use std::collections::BTreeSet;
use std::net::SocketAddr;

const FIRST: u16 = 8000;
const SECOND: u16 = 8001;

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Everybody of these answers there, and nobody else.
#[track_caller]
fn answered_by(port: u16, pids: &[u32]) {
    let pids: BTreeSet<u32> = pids.iter().copied().collect();
    let mut seen = BTreeSet::new();
    wait_until(&format!("all of {pids:?} answer on port {port}"), seconds(10), || {
        let pid = http::get(at(port), "/").expect("served").pid();
        assert!(pids.contains(&pid), "{pid} answers on port {port}, of {pids:?}");
        seen.insert(pid);
        seen == pids
    });
}

/// A server that opens its second port one second after the first, when it has long been in service.
#[test]
fn a_second_listener_comes_late() {
    Test::new().server(Kind::Python).run(|scene| {
        let first = Kind::Python.at(at(FIRST));
        let late = [String::from("--late"), SECOND.to_string(), String::from("1")];
        let command: Vec<String> = first.command.iter().chain(&late).cloned().collect();
        let relisten = scene.relisten().command(command).workers(2).start();
        wait_until("each worker has a second listener", seconds(5), || sockets::listening(SECOND).len() == 2);
        let status = relisten.wait_status("it is adopted", seconds(2), |status| {
            let on = |port: u16| status.listeners.iter().find(|l| l.address.ends_with(&format!(":{port}")));
            on(SECOND).is_some_and(|l| l.slots.len() == 2 && l.foreign.is_empty())
        });
        answered_by(SECOND, &status.pids());
        let loads = [Load::on(&first), Load::on(&Kind::Python.at(at(SECOND)))];
        relisten.reload().ok();
        // The new ones serve both addresses: it was waited for.
        let status = relisten.settle(2, seconds(20));
        answered_by(FIRST, &status.pids());
        answered_by(SECOND, &status.pids());
        relisten.scale(3).ok();
        let status = relisten.settle(3, seconds(20));
        wait_until("the third has a second listener", seconds(5), || sockets::listening(SECOND).len() == 3);
        answered_by(SECOND, &status.pids());
        relisten.scale(1).ok();
        relisten.settle(1, seconds(20));
        for load in loads {
            load.more(50, seconds(10));
            load.finish_clean();
        }
        relisten.stop(seconds(20));
        scene.nothing_left(&[FIRST, SECOND]);
    });
}

/// Declared ready before it binds, as a time given for --ready may do on a busy machine: what came meanwhile waits,
/// and is served when the worker binds at last. No listener is left that is steered to and nobody accepts on.
#[test]
fn declared_ready_before_it_binds() {
    Test::new().server(Kind::Python).run(|scene| {
        let mode = scene.write("mode", "delay 1").display().to_string();
        let server = Kind::Python.server();
        let command: Vec<String> =
            server.command.iter().cloned().chain(["--mode".to_owned(), mode]).collect();
        let options = ["--listen", "127.0.0.1:8000", "--ready", "100ms"];
        let relisten = scene.relisten().options(options).command(command).workers(2).start();
        let load = Load::launch(relisten_e2e::load::plan(server.address, "/"));
        load.more(200, seconds(10));
        load.finish_clean();
        answered_by(FIRST, &relisten.status().pids());
        relisten.stop(seconds(20));
    });
}

fn unseen() -> Server {
    Kind::IoUring.server()
}

/// Bound and made to listen by io_uring: no system call that the filter could stop at.
#[test]
fn made_by_io_uring() {
    Test::new().server(Kind::IoUring).run(|scene| {
        let server = unseen();
        let relisten = scene.relisten().server(&server).workers(2).start();
        let status = relisten.status();
        assert_eq!(status.listeners.len(), 1, "{status:#?}");
        let listener = &status.listeners[0];
        let known: BTreeSet<u64> = listener.slots.iter().map(|slot| slot.inode).collect();
        assert_eq!(known, sockets::listening(FIRST), "not taken in: {status:#?}");
        assert!(listener.foreign.is_empty(), "{status:#?}");
        answered_by(FIRST, &status.pids());
        let load = Load::on(&server);
        for _ in 0..2 {
            relisten.reload().ok();
            let status = relisten.settle(2, seconds(20));
            answered_by(FIRST, &status.pids());
        }
        relisten.scale(3).ok();
        let status = relisten.settle(3, seconds(20));
        answered_by(FIRST, &status.pids());
        relisten.scale(1).ok();
        relisten.settle(1, seconds(20));
        load.more(50, seconds(10));
        load.finish_clean();
        assert!(!relisten.output().contains("foreign"), "our own listener was called foreign");
        relisten.stop(seconds(20));
        scene.nothing_left(&[FIRST]);
    });
}

/// The same where the worker of slot 0 is the last to listen. They are found in another order than they joined
/// the group in; who is steered to must be who is meant all the same.
#[test]
fn found_in_another_order_than_made() {
    Test::new().server(Kind::IoUring).run(|scene| {
        let server = unseen();
        let late = "[ $RELISTEN_SLOT != 0 ] || sleep 0.2; exec \"$@\"";
        let command = ["sh", "-c", late, "sh"].map(str::to_owned);
        let relisten = scene.relisten().workers(2).command(command.iter().chain(&server.command)).start();
        let load = Load::on(&server);
        relisten.scale(1).ok();
        let status = relisten.settle(1, seconds(20));
        answered_by(FIRST, &status.pids());
        load.more(50, seconds(10));
        let report = load.finish_clean();
        // A SYN that is led to who leaves and is deaf is lost, and is sent again after a second.
        assert!(report.connect.max < 950_000, "somebody was led astray:\n{report}");
        relisten.stop(seconds(20));
    });
}
