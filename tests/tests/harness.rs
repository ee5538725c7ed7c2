//! The harness itself: it sees what it must see, before it is believed.

use relisten_e2e::load::Load;
use relisten_e2e::{Kind, Test, http, late, process, seconds, sockets, wait_for, wait_until};

/// The client loses nothing by itself, and sees it when a server dies.
#[test]
fn a_loss_is_seen() {
    Test::new().server(Kind::Node).run(|scene| {
        let server = Kind::Node.server();
        let mut child = server.bare(scene.directory());
        wait_for("the first answer", server.start, || http::get(server.address, "/").ok());
        let load = Load::on(&server);
        load.more(500, seconds(10));
        load.finish_clean();
        let load = Load::on(&server);
        child.kill().expect("kill");
        child.wait().expect("wait");
        wait_until("refusals are counted", seconds(5), || load.snapshot().fates.refused > 0);
        let report = load.finish();
        assert!(report.lost > 0 && !report.is_clean(), "{report}");
    });
}

/// A test's network is its own.
#[test]
fn the_network_is_empty() {
    Test::new().run(|_| {
        for port in [22, 80, 8000] {
            assert!(sockets::listening(port).is_empty());
        }
        let interfaces = std::fs::read_to_string("/proc/net/dev").expect("/proc/net/dev");
        assert_eq!(interfaces.lines().count(), 3, "two lines of heading and lo:\n{interfaces}");
        assert!(process::all().is_empty(), "{}", process::table());
    });
}

/// A handshake can be held back and finished later.
#[test]
fn late_clients_are_late() {
    Test::new().root().server(Kind::Node).run(|scene| {
        let server = Kind::Node.server();
        let mut child = server.bare(scene.directory());
        wait_for("the first answer", server.start, || http::get(server.address, "/").ok());
        let half_open = || sockets::half_open(8000) == 1;
        let mut client = late::Client::begin(server.address);
        wait_until("half open", seconds(2), half_open);
        client.acknowledge();
        assert_eq!(client.get("/").expect("served late").status, 200);
        assert!(!half_open());
        child.kill().expect("kill");
        child.wait().expect("wait");
    });
}

/// What is left behind fails the test.
#[test]
fn a_leftover_is_seen() {
    Test::new().fails_with("processes are left behind").run(|_| {
        // The shell ends, its child stays.
        let shell = std::process::Command::new("sh").args(["-c", "sleep 100 &"]).status().expect("sh");
        assert!(shell.success() && process::all().len() == 1);
    });
}

/// A test that hangs is ended in time.
#[test]
fn a_hang_is_ended() {
    Test::new().limit(seconds(1)).fails_with("the test's time is over").run(|_| std::thread::park());
}
