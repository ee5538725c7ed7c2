//! `--recycle-after`: one worker after the other is replaced, under load, and nobody notices.

use relisten_e2e::load::Load;
use relisten_e2e::{Kind, Test, millis, seconds, wait_until};
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

const WORKERS: usize = 3;

#[test]
fn one_at_a_time() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let relisten =
            scene.relisten().options(["--recycle-after", "1s"]).server(&server).workers(WORKERS).start();
        let load = Load::on(&server);
        let first: BTreeSet<u32> = relisten.status().pids().into_iter().collect();
        let mut seen = BTreeSet::<u32>::new();
        let begin = Instant::now();
        // Until everybody has been replaced twice.
        while seen.len() < 3 * WORKERS {
            assert!(begin.elapsed() < seconds(20), "too few replacements: {seen:?}");
            let status = relisten.status();
            assert!(status.ready().len() >= WORKERS, "too few in service: {status:#?}");
            let starting = status.workers.iter().filter(|worker| worker.state == "starting").count();
            assert!(starting <= 1, "more than one is being replaced: {status:#?}");
            seen.extend(status.pids());
            thread::sleep(millis(5));
        }
        let status = relisten.status();
        assert!(
            status.pids().iter().all(|pid| !first.contains(pid)),
            "some never changed: {first:?}, {status:#?}"
        );
        assert_eq!((status.generation, status.totals.restarts, status.totals.reloads), (1, 0, 0));
        load.more(100, seconds(10));
        load.finish_clean();
        relisten.stop(seconds(20));
        scene.nothing_left(&[8000]);
    });
}

/// Workers that became ready together do not end together: each one's time is varied by a tenth either way. Built-in
/// workers start in milliseconds, so what is seen between replacements is the variation and not the wait for each
/// other.
#[test]
fn times_are_spread() {
    Test::new().server(Kind::BuiltIn).run(|scene| {
        let server = Kind::BuiltIn.server();
        let relisten =
            scene.relisten().options(["--recycle-after", "4s"]).server(&server).workers(WORKERS).start();
        let load = Load::on(&server);
        // When it was said, not when it was seen: a look at the instance may take its time.
        let said = |what: &str| -> Vec<Duration> {
            relisten
                .output()
                .lines()
                .iter()
                .filter(|line| line.text.contains(what))
                .map(|line| line.at)
                .collect()
        };
        let recycled = "why=\"recycled\"";
        wait_until("all have been replaced", seconds(20), || said(recycled).len() >= WORKERS);
        let (ready, gone) = (said("ready worker"), said(recycled));
        assert!(gone[0] >= ready[0] + millis(3500), "earlier than nine tenths: {ready:?}, {gone:?}");
        // 800 ms is the whole range; on a busy machine later is no fault.
        assert!(gone[WORKERS - 1] >= gone[0] + millis(100), "all at once: {gone:?}");
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}
