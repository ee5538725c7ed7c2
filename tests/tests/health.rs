//! `--health`: a worker that fails its probe leaves like any other and is replaced; nobody notices.

use relisten_e2e::load::{self, Load, lab};
use relisten_e2e::{
    Builder, Kind, Relisten, Scene, Test, http, millis, process, seconds, sockets, wait_until,
};
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

const WORKERS: usize = 3;

/// Python that looks into `ill` at each probe, twice a second, and lets three
/// failures in a row be one too many: on a busy machine a good worker may miss one.
fn probed(scene: &Scene, more: &[&str]) -> Builder {
    let mut command = Kind::Python.server().command;
    command.extend(["--health".to_owned(), scene.directory().join("ill").display().to_string()]);
    let options = ["--health", "http:/health", "--health-every", "500ms", "--health-failures", "3"];
    scene.relisten().options(options).options(more).command(command).workers(WORKERS)
}

/// Less than elsewhere: the probes must get their answers in time.
fn load() -> Load {
    let mut plan = load::plan(Kind::Python.server().address, "/");
    plan.pace = lab::Pace::Clients(16);
    Load::start(plan)
}

/// One of three fails its probe in this way, while it is computing answers.
fn one_is_replaced(how: &str) {
    Test::new().server(Kind::Python).run(|scene| {
        let address = Kind::Python.server().address;
        let relisten = probed(scene, &[]).start();
        let before = relisten.status().pids();
        scene.write("ill", "503 -1");
        let long: Vec<_> = (0..12).map(|_| thread::spawn(move || http::get(address, "/hold"))).collect();
        wait_until("the long requests are accepted", seconds(5), || sockets::accepted(8000).len() >= 12);
        let busy = |pid: &u32| {
            let accepted = sockets::accepted(8000);
            process::sockets(*pid).iter().filter(|inode| accepted.contains(inode)).count()
        };
        let ill = *before.iter().max_by_key(|pid| busy(pid)).expect("a worker");
        let load = load();
        scene.write("ill", &format!("{how} {ill}"));
        let told = Instant::now();
        relisten.wait_status("it has a successor", seconds(18), |status| {
            status.ready().len() == WORKERS && !status.pids().contains(&ill)
        });
        assert!(process::alive(ill), "it was not let finish: it is computing answers");
        scene.write("ill", "well nobody");
        let mut of_the_ill = 0;
        for client in long {
            let answer = client.join().expect("client").expect("a long answer was cut");
            of_the_ill += usize::from(answer.pid() == ill);
        }
        assert!(of_the_ill > 0, "the worker that failed was computing nothing");
        let status = relisten.settle(WORKERS, seconds(15));
        assert!(!process::alive(ill), "it is still there after {:?}", told.elapsed());
        // The others were left alone, and nobody crashed.
        let same = before.iter().filter(|pid| status.pids().contains(pid)).count();
        assert_eq!(same, WORKERS - 1, "before: {before:?}, after: {status:#?}");
        assert_eq!((status.generation, status.totals.restarts), (1, 0));
        for why in ["health probe failed", "unhealthy"] {
            relisten.wait_output(why, seconds(1));
        }
        load.more(100, seconds(10));
        load.finish_clean();
        relisten.stop(seconds(20));
        scene.nothing_left(&[8000]);
    });
}

#[test]
fn a_worker_that_answers_503_is_replaced() {
    one_is_replaced("503");
}

/// "A probe may take as long" as the time between two of them, so three take three seconds at most.
#[test]
fn a_worker_that_never_answers_is_replaced() {
    one_is_replaced("hang");
}

/// Looks at the instance for so long. At no look are fewer workers in service than there should be. Gives the
/// process IDs seen in service.
#[track_caller]
fn never_fewer(relisten: &Relisten, span: Duration) -> BTreeSet<u32> {
    let (mut seen, begin) = (BTreeSet::new(), Instant::now());
    while begin.elapsed() < span {
        let status = relisten.status();
        assert!(status.ready().len() >= WORKERS, "too few in service: {status:#?}");
        seen.extend(status.pids());
        thread::sleep(millis(10));
    }
    seen
}

/// Something that all workers need is gone, so every probe fails. The workers do serve, and must not be taken away.
#[test]
fn all_fail_and_serve_on() {
    Test::new().server(Kind::Python).run(|scene| {
        let relisten = probed(scene, &[]).start();
        let load = load();
        scene.write("ill", "503 all");
        let mut seen = BTreeSet::new();
        wait_until("all have been replaced", seconds(20), || {
            seen.extend(never_fewer(&relisten, millis(100)));
            seen.len() >= 2 * WORKERS
        });
        scene.write("ill", "well nobody");
        relisten.settle(WORKERS, seconds(15));
        load.more(100, seconds(10));
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}

/// The same where successors have to pass the probe before they serve: the old ones stay.
#[test]
fn all_fail_and_nobody_better_comes() {
    Test::new().server(Kind::Python).run(|scene| {
        let relisten = probed(scene, &["--ready", "http:/health", "--ready-timeout", "4s"]).start();
        let before: BTreeSet<u32> = relisten.status().pids().into_iter().collect();
        let load = load();
        scene.write("ill", "503 all");
        let same = |span| {
            assert_eq!(never_fewer(&relisten, span), before, "who fails the probe was put into service");
        };
        wait_until("successors are tried and fail", seconds(15), || {
            same(millis(100));
            relisten.output().contains("not ready")
        });
        same(seconds(1));
        scene.write("ill", "well nobody");
        relisten.settle(WORKERS, seconds(20));
        load.more(100, seconds(10));
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}

/// Probes go to the worker's own listener: with one worker well and one ill, exactly the ill one goes, whoever the
/// clients' connections go to. Each time another.
#[test]
fn the_right_one_is_replaced() {
    Test::new().server(Kind::Python).run(|scene| {
        let relisten = probed(scene, &[]).start();
        let load = load();
        for round in 0..3 {
            let before = relisten.status().pids();
            let ill = before[round % WORKERS];
            scene.write("ill", &format!("503 {ill}"));
            relisten.wait_status("it is replaced", seconds(10), |s| {
                !s.pids().contains(&ill) && s.settled(WORKERS)
            });
            let after = relisten.status().pids();
            let same = before.iter().filter(|pid| after.contains(pid)).count();
            assert_eq!(same, WORKERS - 1, "{before:?} became {after:?}, {ill} was ill");
        }
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}
