//! More and fewer workers under load, nothing lost.

use relisten_e2e::load::Load;
use relisten_e2e::{Kind, Test, per_server, rounds, seconds};
use rustix::process::Signal;

fn over_and_over(kind: Kind) {
    Test::new().server(kind).limit(seconds(rounds(150, 600))).run(|scene| {
        let server = kind.server();
        let relisten = scene.relisten().server(&server).workers(4).start();
        let load = Load::on(&server);
        for _ in 0..rounds(1, 10) {
            for workers in [1, 6, 2, 4] {
                relisten.scale(workers).ok();
                relisten.settle(workers, server.start * 3 + seconds(20));
                load.more(50, seconds(20));
            }
        }
        load.finish_clean();
        relisten.stop(seconds(30));
        scene.nothing_left(&[server.address.port()]);
    });
}
per_server!(over_and_over);

#[test]
fn without_waiting_in_between() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene.relisten().server(&server).workers(4).start();
        let load = Load::on(&server);
        for workers in [1, 6, 2, 4, 1, 3] {
            relisten.control(&["scale", "--no-wait", &workers.to_string()]).ok();
        }
        relisten.settle(3, seconds(30));
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}

#[test]
fn signals_add_and_remove_one() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene.relisten().server(&server).workers(2).start();
        let load = Load::on(&server);
        relisten.signal(Signal::TTIN);
        relisten.settle(3, seconds(15));
        relisten.signal(Signal::TTOU);
        relisten.settle(2, seconds(15));
        relisten.signal(Signal::TTOU);
        relisten.settle(1, seconds(15));
        // The last one stays.
        relisten.signal(Signal::TTOU);
        load.more(200, seconds(10));
        relisten.settle(1, seconds(15));
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}

#[test]
fn zero_workers_is_refused() {
    Test::new().server(Kind::Python).run(|scene| {
        let relisten = scene.relisten().server(&Kind::Python.server()).start();
        let refused = relisten.scale(0);
        assert_eq!(refused.code(), Some(2), "{refused:?}");
        assert!(!refused.err.is_empty());
        relisten.settle(1, seconds(5));
        relisten.stop(seconds(20));
    });
}

/// The kernel's groups close the gap of a member that goes with the last one. When that is the only one that stays in service,
/// no program is right before and after.
#[test]
fn the_last_to_join_stays() {
    Test::new().server(Kind::Python).limit(seconds(90)).run(|scene| {
        let server = Kind::Python.server();
        for _ in 0..rounds(3, 20) {
            // The worker of slot 0 is the one that stays.
            let late = "[ $RELISTEN_SLOT != 0 ] || sleep 0.5; exec \"$@\"";
            let command = ["sh", "-c", late, "sh"].map(str::to_owned);
            let relisten = scene.relisten().workers(6).command(command.iter().chain(&server.command)).start();
            let load = Load::on(&server);
            relisten.scale(1).ok();
            relisten.settle(1, seconds(20));
            load.more(100, seconds(10));
            load.finish_clean();
            relisten.stop(seconds(20));
        }
    });
}
