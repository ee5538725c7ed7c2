//! Steering of a running instance: policies, weights, foreign members, the program's own fate.

use relisten_e2e::load::Load;
use relisten_e2e::rogue::{self, Rogue};
use relisten_e2e::{Kind, Relisten, Server, Test, cli, http, process, rounds, seconds, wait_until};
use std::collections::BTreeMap;

/// Of so many connections, how many each worker got.
fn shares(server: &Server, count: u32) -> BTreeMap<u32, u32> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        *shares.entry(http::get(server.address, server.path).expect("served").pid()).or_insert(0) += 1;
    }
    shares
}

fn pid_of(relisten: &Relisten, slot: u32) -> u32 {
    let status = relisten.status();
    status.ready().iter().find(|w| w.slot == slot).and_then(|w| w.pid).expect("a worker")
}

fn steered(relisten: &Relisten, backend: &str) {
    relisten.wait_status("the steering program is in force", seconds(20), |s| s.steering.backend == backend);
}

/// 5 % to one slot, changed while connections come, without one lost.
fn weights(backend: &str) {
    Test::new().server(Kind::BuiltIn).limit(seconds(rounds(120, 400))).run(|scene| {
        if backend == "ebpf" && !scene.is_root() {
            return;
        }
        let server = Kind::BuiltIn.server();
        let options = ["--backend", backend, "--steer", "weighted"];
        let relisten = scene.relisten().options(options).server(&server).workers(2).start();
        steered(&relisten, backend);
        let load = Load::on(&server);
        let name = relisten.name().to_owned();
        let weigh = |weights: &[&str]| {
            cli(&[&["weight"], weights, &["--name", &name]].concat()).ok();
        };
        weigh(&["0=5", "1=95"]);
        let (count, tolerance) = rounds((4_000, 1.5), (20_000, 1.0));
        let got = shares(&server, count);
        let percent = f64::from(*got.get(&pid_of(&relisten, 0)).unwrap_or(&0)) * 100.0 / f64::from(count);
        assert!((percent - 5.0).abs() <= tolerance, "{percent} % of {count}: {got:?}");
        weigh(&["0=95", "1=5"]);
        let got = shares(&server, count / 4);
        let percent = f64::from(*got.get(&pid_of(&relisten, 1)).unwrap_or(&0)) * 400.0 / f64::from(count);
        assert!((percent - 5.0).abs() <= 2.5 * tolerance, "{percent} %: {got:?}");
        // With any policy 0 is nothing.
        relisten.control(&["steer", "hash"]).ok();
        weigh(&["1=0"]);
        let got = shares(&server, 300);
        assert_eq!(got.get(&pid_of(&relisten, 1)), None, "{got:?}");
        // A new generation has the same.
        relisten.reload().ok();
        relisten.settle(2, seconds(30));
        let status = relisten.status();
        assert_eq!(status.steering.policy, "hash", "asked for since the start");
        let of_slot = |slot| status.listeners[0].slots.iter().find(|s| s.slot == slot).map(|s| s.weight);
        assert_eq!((of_slot(0), of_slot(1)), (Some(95), Some(0)));
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}

#[test]
fn weights_by_ebpf() {
    weights("ebpf");
}

#[test]
fn weights_by_cbpf() {
    weights("cbpf");
}

/// Each policy in turn under load: nothing is lost by the change, and it is what `status` says.
#[test]
fn policies_change_without_loss() {
    Test::new().server(Kind::Python).limit(seconds(90)).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene.relisten().server(&server).workers(4).start();
        let backend = if scene.is_root() { "ebpf" } else { "cbpf" };
        steered(&relisten, backend);
        let load = Load::on(&server);
        for policy in
            ["hash", "random", "round-robin", "least-connections", "cpu", "client-ip", "weighted", "auto"]
        {
            let said = relisten.control(&["steer", policy]).ok();
            let status = relisten.status();
            let expected = match (policy, backend) {
                ("auto", "ebpf") => "least-connections",
                ("auto" | "round-robin" | "least-connections", "cbpf") => "hash",
                (policy, _) => policy,
            };
            assert_eq!(status.steering.policy, expected, "{policy}");
            assert!(said.out.contains(expected), "{said:?}");
            assert_eq!(policy != "auto" && policy != expected, said.err.contains("stands in"), "{said:?}");
            load.more(100, seconds(30));
        }
        load.finish_clean();
        let unknown = relisten.control(&["steer", "magic"]);
        assert_eq!(unknown.code(), Some(2), "{unknown:?}");
        let no_slot = cli(&["weight", "9=1", "--name", relisten.name()]);
        assert!(no_slot.code() == Some(1) && no_slot.err.contains("no slot 9"), "{no_slot:?}");
        let nobody = cli(&["weight", "0=0", "1=0", "2=0", "3=0", "--name", relisten.name()]);
        assert!(nobody.code() == Some(1) && nobody.err.contains("nobody"), "{nobody:?}");
        let twice = cli(&["weight", "0=1", "0=2", "--name", relisten.name()]);
        assert!(twice.code() == Some(2) && twice.err.contains("slot 0 is given twice"), "{twice:?}");
        // They are noted, but mean nothing until the policy goes by them.
        for (policy, means_nothing) in [("hash", true), ("weighted", false)] {
            relisten.control(&["steer", policy]).ok();
            let noted = cli(&["weight", "0=3", "--name", relisten.name()]).ok();
            assert_eq!(noted.err.contains("`relisten steer weighted`"), means_nothing, "{noted:?}");
        }
        relisten.stop(seconds(20));
    });
}

/// By eBPF a foreign member gets not one, from the moment that it joins, and is spoken of once.
#[test]
fn foreign_member_gets_nothing() {
    Test::new().root().server(Kind::BuiltIn).limit(seconds(120)).run(|scene| {
        let server = Kind::BuiltIn.server();
        let relisten = scene.relisten().options(["--require", "ebpf"]).server(&server).workers(2).start();
        let load = Load::on(&server);
        let rogue = Rogue::join(scene, "");
        load.more(rounds(5_000, 20_000), seconds(100));
        let pid = rogue.pid();
        relisten.wait_status("it is named", seconds(10), |s| {
            s.listeners[0].foreign.iter().any(|f| f.pid == Some(pid) && f.command.is_some())
        });
        relisten.wait_output("a foreign socket", seconds(5));
        load.finish_clean();
        assert_eq!(rogue.leave(), 0);
        let said = relisten.stop(seconds(20)).text();
        assert_eq!(said.matches("a foreign socket").count(), 1, "{said}");
    });
}

/// A member takes our program away: it is back within a second, and that is said and counted.
fn program_is_put_back(deed: &str) {
    Test::new().root().server(Kind::BuiltIn).limit(seconds(90)).run(|scene| {
        let server = Kind::BuiltIn.server();
        let relisten = scene.relisten().options(["--require", "ebpf"]).server(&server).workers(2).start();
        let before = relisten.status().totals.programs_restored;
        assert_eq!(before, 0);
        let rogue = Rogue::join(scene, deed);
        relisten.wait_status("it is noticed", seconds(5), |s| s.totals.programs_restored == 1);
        relisten.wait_output("steering program", seconds(5));
        // From here on it gets nothing any more.
        let pids = relisten.status().pids();
        let got = shares(&server, 300);
        assert!(got.keys().all(|pid| pids.contains(pid)), "{got:?}");
        rogue.leave();
        assert_eq!(relisten.status().totals.programs_restored, 1, "once is once");
        relisten.stop(seconds(20));
    });
}

#[test]
fn detached_program_is_put_back() {
    program_is_put_back(rogue::DETACH);
}

#[test]
fn replaced_program_is_put_back() {
    program_is_put_back(rogue::REPLACE);
}

/// What `status` says of open connections is what the kernel's tables say.
#[test]
fn counts_are_the_kernels() {
    Test::new().root().server(Kind::Node).limit(seconds(90)).run(|scene| {
        let server = Kind::Node.server();
        let relisten = scene.relisten().options(["--require", "ebpf"]).server(&server).workers(3).start();
        let open = |n: usize| -> Vec<_> {
            (0..n)
                .map(|_| {
                    let mut connection =
                        http::Connection::open(server.address, seconds(20)).expect("connect");
                    connection.get("/").expect("answered");
                    connection
                })
                .collect()
        };
        let agree = |what: &str, expected: u64| {
            wait_until(what, seconds(20), || {
                let status = relisten.status();
                let counted: u64 = status.listeners[0].slots.iter().filter_map(|s| s.active).sum();
                let held = status.ready().iter().filter_map(|w| w.active).sum::<u64>();
                counted == expected && held == expected
            });
        };
        let mut connections = open(60);
        agree("60 are open", 60);
        // Level: least connections.
        let status = relisten.status();
        let each: Vec<_> = status.listeners[0].slots.iter().filter_map(|s| s.active).collect();
        assert_eq!(each, [20, 20, 20], "{status:#?}");
        connections.truncate(25);
        agree("25 are open", 25);
        connections.clear();
        agree("none is open", 0);
        // A dead worker's are gone, and its successor begins with none.
        let connections = open(30);
        process::kill(relisten.status().pids()[0]);
        relisten.wait_status("it is replaced", seconds(20), |s| s.totals.restarts == 1 && s.settled(3));
        agree("20 are open", 20);
        drop(connections);
        agree("none is open", 0);
        relisten.stop(seconds(20));
    });
}

/// A worker that publishes its load gets new connections by that: one that works at a single request has more to do than one
/// with many idle connections.
#[test]
fn published_load_decides() {
    Test::new().root().server(Kind::Library).limit(seconds(90)).run(|scene| {
        let server = Kind::Library.server();
        let relisten = scene.relisten().options(["--require", "ebpf"]).server(&server).workers(2).start();
        let open = || http::Connection::open(server.address, seconds(60)).expect("connect");
        let mut slow = open();
        slow.send("/slow?ms=4000", true).expect("sent");
        // The connection that is at work is counted by nobody but its worker.
        let mut idle = Vec::new();
        let mut served = BTreeMap::<u32, u32>::new();
        wait_until("the request is being worked at", seconds(10), || {
            let mut connection = open();
            let pid = connection.get("/").expect("answered").pid();
            idle.push(connection);
            *served.entry(pid).or_insert(0) += 1;
            // Six in a row at one worker, though it has more open connections each time.
            served.values().max().is_some_and(|most| *most >= 6)
        });
        let busy = slow.receive().expect("answered").pid();
        assert!(served.get(&busy).is_none_or(|n| *n <= 1), "{busy} was at work: {served:?}");
        // A worker that has died publishes nothing: its successor gets its share.
        process::kill(busy);
        relisten.wait_status("it is replaced", seconds(20), |s| s.totals.restarts == 1 && s.settled(2));
        let got = shares(&server, 100);
        assert_eq!(got.len(), 2, "{got:?}");
        relisten.stop(seconds(20));
    });
}

/// `--pin`: each worker has a CPU of its own, as far as there are any.
#[test]
fn pinned_workers() {
    Test::new().server(Kind::BuiltIn).run(|scene| {
        let server = Kind::BuiltIn.server();
        let relisten =
            scene.relisten().options(["--pin", "--steer", "cpu"]).server(&server).workers(2).start();
        let allowed = |pid: u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
            let line =
                status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("a list");
            line.trim().to_owned()
        };
        let lists: Vec<_> = relisten.status().pids().into_iter().map(allowed).collect();
        assert!(lists.iter().all(|list| list.parse::<u32>().is_ok()), "{lists:?}");
        let load = Load::on(&server);
        load.more(200, seconds(30));
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}
