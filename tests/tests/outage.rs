//! All workers down: connections wait, and are served when one is back.

use relisten_e2e::{Kind, Test, http, process, seconds, sockets, wait_until};
use std::time::Instant;

#[test]
fn connections_wait_while_all_workers_are_down() {
    Test::new().server(Kind::Python).run(|scene| {
        let mode = scene.write("mode", "ok").display().to_string();
        let server = Kind::Python.server();
        let command = server.command.iter().map(String::as_str).chain(["--mode", &mode]);
        let relisten = scene.relisten().command(command).workers(3).start();
        // Whoever starts now takes three seconds before it listens.
        scene.write("mode", "delay 3");
        let before = relisten.status().pids();
        let begin = Instant::now();
        for pid in &before {
            process::kill(*pid);
        }
        wait_until("all are gone", seconds(2), || before.iter().all(|pid| !process::alive(*pid)));
        let address = server.address;
        let clients: Vec<_> = (0..200)
            .map(|_| std::thread::spawn(move || http::get(address, "/").map(|answer| answer.pid())))
            .collect();
        for client in clients {
            let pid = client.join().expect("client").expect("refused or lost while all workers were down");
            assert!(!before.contains(&pid));
        }
        assert!(begin.elapsed() >= seconds(3), "they were served after {:?} already", begin.elapsed());
        relisten.settle(3, seconds(20));
        relisten.stop(seconds(20));
    });
}

/// The port stays open even while no worker can be started at all.
#[test]
fn port_stays_open_while_nobody_can_start() {
    Test::new().server(Kind::Python).run(|scene| {
        let mode = scene.write("mode", "ok").display().to_string();
        let server = Kind::Python.server();
        let command = server.command.iter().map(String::as_str).chain(["--mode", &mode]);
        let relisten = scene.relisten().command(command).workers(2).start();
        scene.write("mode", "exit 1");
        for pid in relisten.status().pids() {
            process::kill(pid);
        }
        relisten.wait_status("nobody is ready", seconds(5), |status| status.ready().is_empty());
        let address = server.address;
        let clients: Vec<_> = (0..20).map(|_| std::thread::spawn(move || http::get(address, "/"))).collect();
        wait_until("they wait", seconds(5), || sockets::waiting(8000) >= 20);
        scene.write("mode", "ok");
        for client in clients {
            client.join().expect("client").expect("refused or lost while nobody could start");
        }
        relisten.settle(2, seconds(20));
        relisten.stop(seconds(20));
    });
}
