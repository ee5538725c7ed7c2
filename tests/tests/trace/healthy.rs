//! A server that is well gives nothing to tell.

use relisten_e2e::load::Load;
use relisten_e2e::trace::Trace;
use relisten_e2e::{Kind, Test, rounds, seconds};

/// Under full load, through a reload, and with clients that stay and clients that leave.
#[test]
fn no_false_cause() {
    let time = rounds(10, 60);
    Test::new().root().server(Kind::Node).limit(seconds(time + 60)).run(|scene| {
        let server = Kind::Node.server();
        let relisten = scene.relisten().name("web").server(&server).workers(2).start();
        let trace = Trace::start(&[]);
        let load = Load::on(&server);
        load.run_until(seconds(time / 2));
        relisten.reload().ok();
        load.run_until(seconds(time));
        load.more(100, seconds(20));
        load.finish_clean();
        relisten.stop(seconds(40));
        let told = trace.end();
        told.only(&[]);
    });
}
