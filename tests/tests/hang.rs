//! Workers that hang: what waits for them is served by others, and they get no more until they accept again.

use relisten_e2e::load::{self, Load};
use relisten_e2e::{
    Kind, Relisten, Server, Status, Test, http, millis, per_server, process, rogue, rounds, seconds,
    wait_for, wait_until,
};
use rustix::process::Signal;
use std::thread::JoinHandle;
use std::time::Instant;

/// A worker with all its children stands still.
fn freeze(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    family.extend(process::descendants(pid).iter().map(|child| child.pid));
    for pid in &family {
        process::signal(*pid, Signal::STOP);
    }
    wait_until("the worker is stopped", seconds(5), || {
        family.iter().all(|pid| process::read(*pid).is_none_or(|process| matches!(process.state, 'T' | 'Z')))
    });
    family
}

fn go_on(family: &[u32]) {
    for pid in family {
        process::signal(*pid, Signal::CONT);
    }
}

/// Steering has the backend that it will have.
fn steered(relisten: &Relisten, backend: &str) -> Status {
    relisten.wait_status("the steering program is in force", seconds(20), |s| s.steering.backend == backend)
}

fn hung(status: &Status) -> usize {
    status.listeners.iter().flat_map(|l| &l.slots).filter(|slot| slot.state == "hung").count()
}

/// One of four stops under load, goes on, stops again: nothing is lost, and while it stands still the others serve.
fn stopped_under_load(kind: Kind) {
    Test::new().root().server(kind).limit(seconds(rounds(90, 200))).run(|scene| {
        let server = kind.server();
        // By turns, so that some come to who stands still. With the fewest connections none may: it keeps those that it has
        // accepted, so it has the most.
        let options = ["--require", "ebpf", "--steer", "round-robin"];
        let relisten = scene.relisten().options(options).server(&server).workers(4).start();
        steered(&relisten, "ebpf");
        let load = Load::on(&server);
        for round in 1..=rounds(2, 10) {
            let pid = relisten.status().pids()[round % 4];
            let family = freeze(pid);
            relisten
                .wait_status("it is found", seconds(10), |s| s.totals.hangs >= round as u64 && hung(s) > 0);
            load.more(1_000, seconds(60));
            go_on(&family);
            relisten.wait_status("it has its place again", seconds(20), |s| hung(s) == 0);
            load.more(200, seconds(60));
        }
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}
per_server!(
    stopped_under_load,
    [
        python = Python,
        node = Node,
        go = Go,
        gunicorn = Gunicorn,
        nginx = Nginx,
        java = Java,
        built_in = BuiltIn,
        library = Library
    ]
);

fn ask(server: &Server, count: usize) -> Vec<JoinHandle<(u32, std::time::Duration)>> {
    let address = server.address;
    let one = move || {
        let begin = Instant::now();
        let answer = http::get(address, "/").expect("every one is served");
        (answer.pid(), begin.elapsed())
    };
    (0..count).map(|_| std::thread::spawn(one)).collect()
}

/// What waits for a stopped worker is moved to the others, soon; the worker is not killed.
#[test]
fn queue_is_rescued() {
    Test::new().root().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene.relisten().options(["--require", "ebpf"]).server(&server).workers(4).start();
        steered(&relisten, "ebpf");
        let pid = relisten.status().pids()[1];
        let family = freeze(pid);
        let clients = ask(&server, 40);
        let answers: Vec<_> = clients.into_iter().map(|c| c.join().expect("client")).collect();
        assert!(answers.iter().all(|(served_by, _)| *served_by != pid), "{answers:?}");
        let slowest = answers.iter().map(|(_, took)| *took).max().unwrap_or_default();
        // Hung after 200 ms; the rest is for a machine that is busy with other tests.
        assert!(slowest < seconds(3), "{slowest:?}");
        let status =
            relisten.wait_status("it is counted", seconds(5), |s| s.totals.rescued > 0 && hung(s) == 1);
        let listener = &status.listeners[0];
        assert_eq!(listener.slots.iter().filter_map(|s| s.rescued_total).sum::<u64>(), status.totals.rescued);
        assert_eq!(status.totals.restarts, 0, "{status:#?}");
        go_on(&family);
        relisten.wait_status("it has its place again", seconds(10), |s| hung(s) == 0);
        wait_until("it serves again", seconds(20), || {
            http::get(server.address, "/").is_ok_and(|a| a.pid() == pid)
        });
        relisten.stop(seconds(20));
    });
}

/// A worker that leaves is killed just when somebody has taken the program away: what waits for it moves all the same.
#[test]
fn queue_of_a_killed_leaver_moves_though_the_program_was_taken_away() {
    Test::new().root().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let options = ["--require", "ebpf", "--hang-after", "never", "--steer", "round-robin"];
        let relisten = scene.relisten().options(options).server(&server).workers(2).start();
        steered(&relisten, "ebpf");
        let pid = relisten.status().pids()[1];
        let _family = freeze(pid);
        let clients = ask(&server, 20);
        relisten.wait_status("half of them wait", seconds(10), |s| {
            s.listeners[0].slots.iter().any(|slot| slot.slot == 1 && slot.queue == Some(10))
        });
        relisten.control(&["scale", "1", "--no-wait"]).ok();
        let rogue = rogue::Rogue::join(scene, rogue::DETACH);
        process::kill(pid);
        let answers: Vec<_> = clients.into_iter().map(|c| c.join().expect("client")).collect();
        assert!(answers.iter().all(|(served_by, _)| *served_by != pid), "{answers:?}");
        relisten.wait_status("the program is back", seconds(10), |s| s.totals.programs_restored > 0);
        rogue.leave();
        relisten.stop(seconds(20));
    });
}

/// Where nothing can be moved another worker takes the same listener over, with all that waits in it.
#[test]
fn queue_is_taken_over_where_it_cannot_move() {
    Test::new().server(Kind::Python).limit(seconds(90)).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene.relisten().options(["--backend", "cbpf"]).server(&server).workers(3).start();
        steered(&relisten, "cbpf");
        let load = Load::on(&server);
        let pid = relisten.status().pids()[1];
        let family = freeze(pid);
        relisten.wait_status("another takes over", seconds(30), |s| {
            s.totals.hangs == 1 && s.ready().len() == 3 && !s.pids().contains(&pid)
        });
        load.more(500, seconds(60));
        go_on(&family);
        relisten.wait_status("the old one is gone", seconds(40), |s| s.settled(3));
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}

/// Where nothing can be steered at all, a worker that was taken over finishes what it is doing before it is told to stop,
/// although it comes round only then, accepts again meanwhile, and dies of the signal at once.
#[test]
fn taken_over_where_nothing_steers_it_finishes_what_it_has() {
    Test::new().server(Kind::Python).limit(seconds(90)).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene.relisten().options(["--backend", "kernel"]).server(&server).workers(3).start();
        let sockets = |pid: &u32| (*pid, process::sockets(*pid).len());
        let before: Vec<(u32, usize)> = relisten.status().pids().iter().map(sockets).collect();
        let mut connection = http::Connection::open(server.address, seconds(60)).expect("connect");
        let answer = std::thread::spawn(move || connection.get("/slow?ms=1000").expect("answered"));
        let pid = wait_for("it is accepted", seconds(10), || {
            before.iter().find(|(pid, before)| sockets(pid).1 > *before).map(|(pid, _)| *pid)
        });
        let family = freeze(pid);
        let load = Load::on(&server);
        relisten.wait_status("another takes over", seconds(30), |s| {
            s.totals.hangs == 1 && s.ready().len() == 3 && s.ready().iter().all(|w| w.pid != Some(pid))
        });
        go_on(&family);
        assert_eq!(answer.join().expect("client").pid(), pid);
        load.finish_clean();
        relisten.wait_status("the old one is gone", seconds(40), |s| s.settled(3));
        relisten.stop(seconds(20));
    });
}

/// The same, and then the supervisor dies: the next one knows who shares a listener with whom. Else the old worker would
/// accept what comes to its successor, and never be quiet.
#[test]
fn who_shares_a_listener_is_known_to_the_next_supervisor() {
    Test::new().server(Kind::Python).limit(seconds(120)).run(|scene| {
        let server = Kind::Python.server();
        let start = || {
            let options = ["--backend", "cbpf", "--drain", "100s"];
            scene.relisten().name("web").options(options).server(&server).workers(3).start()
        };
        let mut relisten = start();
        steered(&relisten, "cbpf");
        // Somebody has something to do at each moment.
        let load = Load::start(load::plan(server.address, "/slow?ms=150"));
        let pid = relisten.status().pids()[1];
        let family = freeze(pid);
        relisten.wait_status("another takes over", seconds(30), |s| {
            s.totals.hangs == 1 && s.ready().len() == 3 && !s.pids().contains(&pid)
        });
        relisten.kill();
        go_on(&family);
        // It has started when nobody leaves any more.
        let relisten = start();
        load.more(200, seconds(30));
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}

/// Nobody is left who could take it: nothing is thrown away.
#[test]
fn all_hung_lose_nothing() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene.relisten().server(&server).workers(3).start();
        let families: Vec<_> = relisten.status().pids().into_iter().map(freeze).collect();
        let clients = ask(&server, 60);
        wait_until("all of them wait", seconds(10), || {
            let waiting = |s: &Status| s.listeners[0].slots.iter().filter_map(|slot| slot.queue).sum::<u64>();
            waiting(&relisten.status()) >= 60
        });
        // Longer than anybody may wait.
        let begin = Instant::now();
        wait_until("nothing is moved for nothing", seconds(5), || begin.elapsed() > millis(1_500));
        assert_eq!(clients.iter().filter(|c| c.is_finished()).count(), 0);
        for family in &families {
            go_on(family);
        }
        for client in clients {
            client.join().expect("client");
        }
        relisten.stop(seconds(20));
    });
}

/// Requests that take long, at servers that accept meanwhile and at such that do not: all of them are busy, none hangs.
fn busy(kind: Kind, most_ms: u64) {
    let lasts = seconds(rounds(8, 300));
    Test::new().server(kind).limit(lasts + seconds(60)).run(|scene| {
        let server = kind.server();
        let relisten = scene.relisten().server(&server).workers(4).start();
        let begin = Instant::now();
        let clients: Vec<_> = (0..20u64)
            .map(|client| {
                let address = server.address;
                std::thread::spawn(move || {
                    let mut served = 0;
                    while begin.elapsed() < lasts {
                        // From almost nothing to the longest.
                        let ms = (client * 7919 + served * 104_729) % most_ms;
                        let mut connection = http::Connection::open(address, seconds(60)).expect("connect");
                        connection.get(&format!("/slow?ms={ms}")).expect("answered");
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        let served: u64 = clients.into_iter().map(|c| c.join().expect("client")).sum();
        let status = relisten.status();
        assert_eq!((status.totals.hangs, status.totals.restarts), (0, 0), "{served} served\n{status:#?}");
        relisten.stop(seconds(20));
    });
}

#[test]
fn busy_workers_that_accept_do_not_hang() {
    busy(Kind::Node, 5_000);
}

#[test]
fn busy_workers_that_do_not_accept_do_not_hang_together() {
    busy(Kind::Python, rounds(1_500, 5_000));
}

/// `--hang-kill`: replaced, and the others go on.
#[test]
fn hung_for_too_long_is_replaced() {
    Test::new().root().server(Kind::Python).limit(seconds(90)).run(|scene| {
        let server = Kind::Python.server();
        let options = ["--require", "ebpf", "--hang-kill", "500ms", "--drain", "1s", "--grace", "1s"];
        let relisten = scene.relisten().options(options).server(&server).workers(3).start();
        let load = Load::on(&server);
        let pid = relisten.status().pids()[2];
        freeze(pid);
        relisten.wait_status("it is gone and replaced", seconds(40), |s| {
            s.settled(3) && !s.pids().contains(&pid)
        });
        // What it had accepted is lost, nothing else.
        let report = load.finish();
        assert!(report.lost <= 64, "{report}");
        relisten.stop(seconds(20));
    });
}

/// `--hang-after never`: nobody looks.
#[test]
fn never_is_never() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene.relisten().options(["--hang-after", "never"]).server(&server).workers(2).start();
        let family = freeze(relisten.status().pids()[0]);
        let clients = ask(&server, 40);
        wait_until("some wait", seconds(10), || {
            relisten.status().listeners[0].slots.iter().any(|slot| slot.queue.unwrap_or(0) > 0)
        });
        let begin = Instant::now();
        wait_until("some time passes", seconds(5), || begin.elapsed() > millis(700));
        assert_eq!(relisten.status().totals.hangs, 0);
        go_on(&family);
        for client in clients {
            client.join().expect("client");
        }
        relisten.stop(seconds(20));
    });
}
