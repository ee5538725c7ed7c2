//! What an ordinary user gets, and what is said about the rest. The whole suite also runs as such a user; these
//! tests look at what is particular.

use relisten_e2e::{Kind, Status, Test, millis, process, seconds};
use std::time::Instant;

/// Ports below 1024 are refused with the cause and the cure.
#[test]
fn privileged_port() {
    Test::new().server(Kind::Python).run(|scene| {
        if scene.is_root() {
            let server = Kind::Python.at(([127, 0, 0, 1], 80).into());
            scene.relisten().server(&server).start().stop(seconds(20));
            return;
        }
        let options = ["--listen", "127.0.0.1:80"];
        let finished = scene.relisten().options(options).command(["sleep", "1000"]).fail(seconds(10));
        assert_eq!(finished.code(), Some(2), "{finished:#?}");
        assert!(finished.err.contains("port 80"), "{finished:#?}");
        let cure = finished.err.contains("CAP_NET_BIND_SERVICE")
            || finished.err.contains("ip_unprivileged_port_start");
        assert!(cure, "no cure is named: {finished:#?}");
    });
}

/// Another user may not control the instance.
#[test]
fn control_is_for_the_owner() {
    Test::new().root().server(Kind::Python).run(|scene| {
        let relisten = scene.relisten().name("web").server(&Kind::Python.server()).start();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(scene.directory(), open).expect("chmod");
        let binary = std::env::var("RELISTEN_BIN").expect("the binary");
        let other = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--clear-groups", &binary, "stop", "web"])
            .output()
            .expect("setpriv");
        assert!(!other.status.success(), "{other:?}");
        relisten.settle(1, seconds(5));
        relisten.stop(seconds(20));
    });
}

/// Workers run as the user given, and the instance can do everything with them.
#[test]
fn workers_of_another_user() {
    Test::new().root().server(Kind::Node).run(|scene| {
        let server = Kind::Node.server();
        let options = ["--user", "nobody", "--drain", "5s"];
        let relisten = scene.relisten().options(options).server(&server).workers(2).start();
        for pid in relisten.status().pids() {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
            let uid = status.lines().find(|line| line.starts_with("Uid:")).expect("Uid").to_owned();
            assert_eq!(uid.split_ascii_whitespace().nth(1), Some("65534"), "{uid}");
        }
        let load = relisten_e2e::load::Load::on(&server);
        relisten.reload().ok();
        relisten.settle(2, seconds(20));
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}

/// What is missing is said at the start and in the status, with what it costs.
#[test]
fn missing_features_are_named() {
    Test::new().server(Kind::Python).run(|scene| {
        let relisten = scene.relisten().server(&Kind::Python.server()).start();
        // Programs are loaded while the workers start, if they may be.
        let decided = |status: &Status| {
            status.steering.backend == "ebpf" || status.steering.missing.iter().any(|m| m.feature == "ebpf")
        };
        let status = relisten.wait_status("it is known what steers", seconds(20), decided);
        let backend = if scene.is_root() { "ebpf" } else { "cbpf" };
        assert_eq!(status.steering.backend, backend, "{status:#?}");
        for missing in &status.steering.missing {
            assert!(!missing.why.is_empty() && !missing.effect.is_empty(), "{missing:?}");
            assert!(relisten.output().contains(&missing.feature), "{missing:?} is not said at the start");
        }
        relisten.stop(seconds(20));
    });
}

/// Supervisor and keeper stay small: what only starting needs is given back soon after.
#[test]
fn memory() {
    Test::new().server(Kind::Python).run(|scene| {
        let relisten = scene.relisten().server(&Kind::Python.server()).workers(8).start();
        for _ in 0..3 {
            relisten.reload().ok();
        }
        relisten.settle(8, seconds(30));
        let keepers = process::all().into_iter().filter(|p| p.command.contains("keeper")).map(|p| p.pid);
        let both: Vec<u32> = keepers.chain([relisten.pid()]).collect();
        assert_eq!(both.len(), 2, "{}", process::table());
        let resident = || -> Vec<u64> { both.iter().map(|pid| process::resident(*pid)).collect() };
        let small = |all: &[u64]| all.iter().all(|bytes| *bytes > 0) && all.iter().sum::<u64>() <= 8 << 20;
        let begin = Instant::now();
        while !small(&resident()) && begin.elapsed() < seconds(15) {
            std::thread::sleep(millis(50));
        }
        assert!(small(&resident()), "resident, bytes: {:?}", resident());
        relisten.stop(seconds(20));
    });
}
