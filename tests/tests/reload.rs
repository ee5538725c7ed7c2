//! A reload under load loses nothing, whatever the server.

use relisten_e2e::load::{Load, assert_nothing_lost};
use relisten_e2e::{Kind, Server, Test, millis, per_server, rounds, seconds, wait_until};
use rustix::process::Signal;
use std::collections::BTreeSet;

/// 64 clients, a new connection per request; a reload every second.
fn every_second(kind: Kind) {
    Test::new().server(kind).limit(seconds(rounds(120, 240))).run(|scene| {
        let server = kind.server();
        let relisten = scene.relisten().server(&server).workers(2).start();
        let load = Load::on(&server);
        let reloads = rounds(4, 30);
        let mut pids: BTreeSet<u32> = relisten.status().pids().into_iter().collect();
        for round in 1..=reloads {
            relisten.reload().ok();
            let status = relisten.status();
            assert_eq!(status.generation, round + 1);
            assert_eq!(status.totals.reloads, u64::from(round));
            for pid in status.workers.iter().filter(|w| w.generation == round + 1).filter_map(|w| w.pid) {
                assert!(pids.insert(pid), "worker {pid} of generation {} is not new", round + 1);
            }
            load.run_until(seconds(u64::from(round)));
        }
        // The old generations leave while the load goes on.
        relisten.settle(2, seconds(30));
        load.more(100, seconds(10));
        load.finish_clean();
        relisten.stop(seconds(30));
        scene.nothing_left(&[server.address.port()]);
    });
}
per_server!(every_second);

#[test]
fn hangup_reloads() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene.relisten().server(&server).workers(2).start();
        let load = Load::on(&server);
        relisten.signal(Signal::HUP);
        relisten
            .wait_status("generation 2", seconds(10), |status| status.generation == 2 && status.settled(2));
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}

#[test]
fn wait_returns_when_the_old_generation_is_gone() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene.relisten().server(&server).workers(2).start();
        let old = relisten.status().pids();
        relisten.control(&["reload", "--wait"]).ok();
        let status = relisten.status();
        assert!(status.settled(2), "{status:#?}");
        assert!(old.iter().all(|pid| !relisten_e2e::process::alive(*pid)));
        relisten.stop(seconds(20));
    });
}

#[test]
fn ten_in_two_seconds_leave_no_old_generation() {
    Test::new().server(Kind::PythonKeepAlive).run(|scene| {
        let server = Kind::PythonKeepAlive.server();
        let relisten = scene.relisten().server(&server).workers(2).start();
        let load = Load::on(&server);
        let begin = load.elapsed();
        for round in 1..=10 {
            // As fast as they are carried through, but not faster than five a second.
            let reload = relisten.reload();
            assert!(matches!(reload.code(), Some(0)), "reload {round}: {reload:?}");
            load.run_until(begin + millis(200 * round));
        }
        let status = relisten.settle(2, seconds(15));
        assert_eq!(status.totals.reloads, 10);
        assert!(status.ready().iter().all(|worker| worker.generation == 11), "{status:#?}");
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}

#[test]
fn requests_while_another_reload_runs_are_answered() {
    Test::new().server(Kind::Python).run(|scene| {
        scene.write("mode", "delay 1");
        let server = Kind::Python.server();
        let mut command = server.command.clone();
        command.extend(["--mode".to_owned(), scene.directory().join("mode").display().to_string()]);
        let relisten = scene.relisten().command(command).workers(1).start();
        let load = Load::on(&server);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| relisten.reload())).collect();
            for thread in threads {
                let reload = thread.join().expect("reload");
                // Carried through, joined with the one under way, or refused with a reason: never left waiting.
                assert!(matches!(reload.code(), Some(0 | 1)), "{reload:?}");
                assert!(reload.code() == Some(0) || !reload.err.trim().is_empty(), "{reload:?}");
            }
        });
        relisten.settle(1, seconds(15));
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}

/// The configuration names another port: the new generation serves there, and nobody who came to the old one
/// before is lost.
fn change_of_port(kind: Kind) {
    Test::new().server(kind).limit(seconds(90)).run(|scene| {
        let (old, new) = (kind.server(), kind.at(([127, 0, 0, 1], 8001).into()));
        let config = |server: &Server| {
            server.install(scene.directory());
            let words: Vec<String> = server.command.iter().map(|word| format!("{word:?}")).collect();
            // The built-in worker is what runs without a command, and takes what it is passed.
            let what = match kind {
                Kind::BuiltIn => format!("listen = \"{}\"", server.address),
                Kind::Library => format!("listen = \"{}\"\ncommand = [{}]", server.address, words.join(", ")),
                _ => format!("command = [{}]", words.join(", ")),
            };
            scene.write("relisten.toml", &format!("workers = 2\n{what}\n"))
        };
        let path = config(&old);
        let environment = old.environment.iter();
        let builder = environment.fold(scene.relisten(), |builder, (name, value)| builder.env(name, value));
        let relisten = builder.options(["--config", &path.display().to_string()]).workers(2).start();
        let load = Load::on(&old);
        load.more(200, seconds(10));
        assert_nothing_lost(&load.finish());
        config(&new);
        relisten.reload().ok();
        let load = Load::on(&new);
        relisten.settle(2, seconds(30));
        load.more(200, seconds(10));
        load.finish_clean();
        wait_until("the old port is closed", seconds(5), || {
            relisten_e2e::sockets::listening(8000).is_empty()
        });
        relisten.stop(seconds(20));
        scene.nothing_left(&[8000, 8001]);
    });
}
per_server!(
    change_of_port,
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
