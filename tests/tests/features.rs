//! `--require FEATURE`: what is missing is an error, and what is there is not.

use relisten_e2e::{Kind, Test, cli, http, seconds, wait_for};
use socket2::{Domain, SockFilter, Socket, Type};

/// `BPF_RET | BPF_K` with everything: lets all packets through.
const PASS_ALL: [SockFilter; 1] = [SockFilter::new(0x06, 0, 0, u32::MAX)];

/// Deafening is a filter on a TCP socket: the kernel is asked directly, not the product.
#[test]
fn deafening() {
    Test::new().server(Kind::Python).run(|scene| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let permitted = socket.attach_filter(&PASS_ALL).is_ok();
        let server = Kind::Python.server();
        let required = scene.relisten().options(["--require", "deafening"]).server(&server);
        if permitted {
            let relisten = required.start();
            assert!(relisten.status().steering.missing.iter().all(|missing| missing.feature != "deafening"));
            relisten.stop(seconds(20));
        } else {
            let refused = required.fail(seconds(10));
            assert_eq!(refused.code(), Some(5), "{refused:#?}");
            let said = |word: &str| refused.err.contains(word);
            assert!(said("--require") && said("deafening") && said("CAP_NET_ADMIN"), "{refused:#?}");
            // Without the option it is done without, and said.
            let relisten = scene.relisten().server(&server).start();
            assert!(relisten.status().steering.missing.iter().any(|missing| missing.feature == "deafening"));
            relisten.stop(seconds(20));
        }
        scene.nothing_left(&[8000]);
    });
}

/// Where nothing is in the way, the others are there for everybody.
#[test]
fn the_others_are_there() {
    Test::new().server(Kind::Python).run(|scene| {
        let options = ["--require", "adoption", "--require", "keeper", "--require", "steering"];
        let relisten = scene.relisten().options(options).server(&Kind::Python.server()).start();
        let missing = relisten.status().steering.missing;
        // These two need privileges.
        let privileged = |feature: &str| ["deafening", "ebpf"].contains(&feature);
        assert!(missing.iter().all(|missing| privileged(&missing.feature)), "{missing:?}");
        relisten.stop(seconds(20));
    });
}

/// A second filter of this kind is not possible above the first (EBUSY), so an instance that runs inside another one
/// can't adopt.
#[test]
fn adoption_inside_of_another_instance() {
    Test::new().server(Kind::Python).run(|scene| {
        let inner = std::env::var("RELISTEN_BIN").expect("the binary");
        let server = Kind::Python.server();
        let command = |require: &[&str]| {
            let mut words = vec![inner.clone(), "run".to_owned(), "--name".to_owned(), "inner".to_owned()];
            words.extend(require.iter().map(|&word| word.to_owned()));
            words.extend(["--workers".to_owned(), "1".to_owned(), "--".to_owned()]);
            words.extend(server.command.iter().cloned());
            words
        };
        let outer =
            scene.relisten().name("outer").command(command(&["--require", "adoption"])).fail(seconds(20));
        assert_eq!(outer.code(), Some(5), "{outer:#?}");
        let text = outer.text();
        assert!(text.contains("--require adoption"), "{text}");
        scene.nothing_left(&[8000]);
    });
}

/// Something else lies where the keeper's socket is to be.
#[test]
fn keeper() {
    Test::new().server(Kind::Python).run(|scene| {
        let control = scene.directory().join("web.sock").display().to_string();
        std::fs::create_dir_all(format!("{control}.keeper/full")).expect("mkdir");
        let builder = || scene.relisten().options(["--control", &control]).server(&Kind::Python.server());
        let refused = builder().options(["--require", "keeper"]).fail(seconds(10));
        assert_eq!(refused.code(), Some(5), "{refused:#?}");
        assert!(refused.err.contains("--require keeper"), "{refused:#?}");
        assert!(refused.err.contains("web.sock.keeper"), "the cause is not named: {refused:#?}");
        let relisten = builder().spawn();
        relisten.wait_output("feature=\"keeper\"", seconds(10));
        wait_for("served without", seconds(10), || http::get(([127, 0, 0, 1], 8000).into(), "/").ok());
        cli(&["stop", "--control", &control]).ok();
        drop(relisten);
        scene.nothing_left(&[8000]);
    });
}

/// Programs are memory of the socket's owner, and here nobody may have any. The limit is the network namespace's own
/// since Linux 6.8.
#[test]
fn steering() {
    const LIMIT: &str = "/proc/sys/net/core/optmem_max";
    Test::new().root().server(Kind::Go).run(|scene| {
        if !std::path::Path::new(LIMIT).exists() {
            let release =
                std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
            let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
            let version = (numbers.next(), numbers.next());
            assert!(version < (Some(6), Some(8)), "{release} has no {LIMIT} in a network namespace");
            return;
        }
        std::fs::write(LIMIT, "1").expect("write the limit");
        let server = Kind::Go.server();
        let refused = scene.relisten().options(["--require", "steering"]).server(&server).fail(seconds(10));
        assert_eq!(refused.code(), Some(5), "{refused:#?}");
        assert!(refused.err.contains("--require steering"), "{refused:#?}");
        let relisten = scene.relisten().server(&server).workers(2).start();
        let status = relisten.status();
        assert_eq!(status.steering.backend, "kernel", "{status:#?}");
        assert!(status.steering.missing.iter().any(|missing| missing.feature == "steering"), "{status:#?}");
        http::get(server.address, "/").expect("served");
        relisten.stop(seconds(20));
        scene.nothing_left(&[8000]);
    });
}

/// A name that is none is a mistake in the command line.
#[test]
fn unknown_feature() {
    Test::new().run(|_| {
        let refused = cli(&["run", "--require", "telepathy", "--", "sleep", "1000"]);
        assert_eq!(refused.code(), Some(2), "{refused:#?}");
        assert!(refused.err.contains("telepathy") && refused.err.contains("deafening"), "{refused:#?}");
    });
}
