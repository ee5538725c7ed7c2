//! Workers that die: nothing is refused, what waits in a queue is served, and no more breaks than what the dead
//! worker had accepted.

use relisten_e2e::load::Load;
use relisten_e2e::{
    Kind, Server, Test, http, millis, per_server, process, rounds, seconds, sockets, wait_until,
};
use std::collections::BTreeMap;

/// kill −9 of one worker after the other. Before each kill the worker is stopped and its accepted connections are
/// counted: that is the bound, exactly.
fn killed_every_300_ms(kind: Kind) {
    Test::new().server(kind).limit(seconds(rounds(60, 180))).run(|scene| {
        let server = kind.server();
        let relisten = scene.relisten().server(&server).workers(4).start();
        let load = Load::on(&server);
        let mut bound = 0;
        let kills = rounds(12, 100);
        for round in 1..=kills {
            let pids = relisten.status().pids();
            if let Some(&pid) = pids.get(round as usize * 7 % pids.len().max(1)) {
                bound += process::freeze_and_count(pid, server.address.port());
                process::kill(pid);
            }
            load.run_until(millis(300 * round));
        }
        let status = relisten.settle(4, seconds(20));
        assert!(status.totals.restarts >= kills / 2, "{status:#?}");
        let report = load.finish();
        let fates = &report.attempts.fates;
        let broken = fates.reset_before_byte + fates.reset_mid_reply + fates.empty + fates.truncated;
        assert_eq!(report.lost, broken, "other losses than broken connections:\n{report}");
        assert!(
            broken <= bound,
            "{broken} connections broke, but the killed had accepted {bound} only\n{report}"
        );
        relisten.stop(seconds(20));
        scene.nothing_left(&[server.address.port()]);
    });
}
per_server!(
    killed_every_300_ms,
    [python = Python, node = Node, go = Go, nginx = Nginx, built_in = BuiltIn, library = Library]
);

/// The queue of a dead worker goes to its successor.
#[test]
fn queue_outlives_its_worker() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene.relisten().server(&server).workers(1).start();
        let pid = relisten.status().pids()[0];
        process::stop(pid);
        // Nobody accepts: all of these wait in the queue.
        let clients: Vec<_> = (0..50)
            .map(|_| std::thread::spawn(move || http::get(server_address(), "/").map(|answer| answer.pid())))
            .collect();
        wait_until("50 connections wait", seconds(5), || sockets::waiting(8000) >= 50);
        process::kill(pid);
        for client in clients {
            let served_by = client.join().expect("client").expect("every one is served");
            assert_ne!(served_by, pid);
        }
        relisten.settle(1, seconds(10));
        relisten.stop(seconds(20));
    });
}

/// After a crash the successor's listener is an ordinary member of its group: the kernel does not pass the group by and
/// sends everything to one listener. If that one is leaving, its SYNs are dropped, and clients wait for a second.
fn listeners_share_after_crashes(kind: Kind) {
    const SLOTS: usize = 2;
    Test::new().server(kind).limit(seconds(90)).run(|scene| {
        let server = kind.server();
        let relisten = scene.relisten().server(&server).workers(SLOTS).start();
        for slot in 0..SLOTS {
            let workers = relisten.status().workers;
            let worker =
                workers.iter().find(|w| w.slot as usize == slot).and_then(|w| w.pid).expect("a worker");
            process::kill(worker);
            let restarts = slot as u64 + 1;
            relisten.wait_status("it is replaced", seconds(20), |status| {
                status.totals.restarts == restarts && status.settled(SLOTS)
            });
        }
        assert_shared(&server, SLOTS);
        for _ in 0..2 {
            relisten.reload().ok();
            relisten.settle(SLOTS, seconds(30));
            assert_shared(&server, SLOTS);
        }
        let load = Load::on(&server);
        load.more(2_000, seconds(30));
        let report = load.finish_clean();
        assert!(report.connect.max < 900_000, "a SYN was dropped:\n{report}");
        relisten.stop(seconds(20));
    });
}
per_server!(listeners_share_after_crashes, [python = Python, node = Node]);

/// New connections go to all workers. Each of 100 falls to either by chance: fewer than 10 for one never happens.
#[track_caller]
fn assert_shared(server: &Server, workers: usize) {
    let mut served = BTreeMap::<u32, u32>::new();
    for _ in 0..100 {
        *served.entry(http::get(server.address, server.path).expect("served").pid()).or_default() += 1;
    }
    let shared = served.len() == workers && served.values().all(|n| *n >= 10);
    assert!(shared, "connections are not spread over the workers: {served:?}");
}

fn server_address() -> std::net::SocketAddr {
    ([127, 0, 0, 1], 8000).into()
}

/// Restarts are at once after a worker that had been ready, and back off when they fail.
#[test]
fn restarts_back_off() {
    Test::new().server(Kind::Python).limit(seconds(90)).run(|scene| {
        let mode = scene.write("mode", "ok").display().to_string();
        let server = Kind::Python.server();
        let command = server.command.iter().map(String::as_str).chain(["--mode", &mode]);
        let relisten = scene.relisten().command(command).workers(2).start();
        scene.write("mode", "exit 7");
        process::kill(relisten.status().pids()[0]);
        let seen = |n: usize| {
            let lines = relisten.output().lines();
            lines
                .iter()
                .filter(|line| line.text.contains("this one exits at once"))
                .map(|line| line.at)
                .nth(n)
        };
        wait_until("five attempts", seconds(20), || seen(4).is_some());
        let times: Vec<_> = (0..5).filter_map(seen).collect();
        let waits: Vec<_> = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        // Longer is no sign of anything on a busy machine; shorter is. Half, because lines can be seen late.
        for (wait, back_off) in waits.iter().zip([100, 200, 400, 800]) {
            assert!(*wait >= millis(back_off / 2), "no back-off: {waits:?}");
        }
        // The other worker serves meanwhile.
        http::get(server.address, "/").expect("served by the other");
        scene.write("mode", "ok");
        relisten.settle(2, seconds(30));
        relisten.stop(seconds(20));
    });
}
