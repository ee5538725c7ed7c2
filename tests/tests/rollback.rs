//! A reload to a generation that does not come up changes nothing, and nobody is refused meanwhile.

use relisten_e2e::load::Load;
use relisten_e2e::{Kind, Relisten, Scene, Test, http, per_server, seconds};

/// Two workers whose next generation does what the file `mode` says.
fn start(scene: &Scene, options: &[&str]) -> (Relisten, Load) {
    let mode = scene.write("mode", "ok").display().to_string();
    let server = Kind::Python.server();
    let command = server.command.iter().map(String::as_str).chain(["--mode", &mode]);
    let relisten = scene.relisten().options(options).command(command).workers(2).start();
    (relisten, Load::on(&server))
}

/// Everything is as before, and the next reload works.
fn unchanged(scene: &Scene, relisten: Relisten, load: Load, before: &[u32]) {
    let status = relisten.settle(2, seconds(15));
    let mut after = status.pids();
    after.sort_unstable();
    let mut before = before.to_vec();
    before.sort_unstable();
    assert_eq!(after, before, "other workers than before: {status:#?}");
    assert_eq!(status.totals.reloads, 0);
    assert_eq!(status.generation, 1);
    load.more(200, seconds(10));
    scene.write("mode", "ok");
    relisten.reload().ok();
    relisten.settle(2, seconds(15));
    load.more(200, seconds(10));
    load.finish_clean();
    relisten.stop(seconds(20));
    scene.nothing_left(&[8000]);
}

#[test]
fn exits_at_once() {
    Test::new().server(Kind::Python).run(|scene| {
        let (relisten, load) = start(scene, &[]);
        let before = relisten.status().pids();
        scene.write("mode", "exit 3");
        let reload = relisten.reload();
        assert_eq!(reload.code(), Some(1), "{reload:?}");
        assert!(
            reload.text().contains("this one exits at once, as it was told"),
            "no last lines: {reload:?}"
        );
        unchanged(scene, relisten, load, &before);
    });
}

#[test]
fn never_gets_ready() {
    Test::new().server(Kind::Python).run(|scene| {
        let (relisten, load) = start(scene, &["--ready-timeout", "2s"]);
        let before = relisten.status().pids();
        scene.write("mode", "never");
        let reload = relisten.reload();
        assert_eq!(reload.code(), Some(1), "{reload:?}");
        assert!(reload.took >= seconds(2), "{reload:?}");
        unchanged(scene, relisten, load, &before);
    });
}

/// It listens, so it has a queue, but never answers the probe: what reached it must not be lost.
#[test]
fn listens_but_never_answers() {
    Test::new().server(Kind::Python).run(|scene| {
        let (relisten, load) = start(scene, &["--ready", "http:/", "--ready-timeout", "2s"]);
        let before = relisten.status().pids();
        scene.write("mode", "half");
        let reload = relisten.reload();
        assert_eq!(reload.code(), Some(1), "{reload:?}");
        unchanged(scene, relisten, load, &before);
    });
}

#[test]
fn takes_five_seconds_to_start() {
    Test::new().server(Kind::Python).run(|scene| {
        let (relisten, load) = start(scene, &[]);
        scene.write("mode", "delay 5");
        let reload = relisten.reload().ok();
        assert!(reload.took >= seconds(5), "{reload:?}");
        let status = relisten.settle(2, seconds(15));
        assert_eq!(status.generation, 2);
        load.more(200, seconds(10));
        load.finish_clean();
        relisten.stop(seconds(20));
        scene.nothing_left(&[8000]);
    });
}

/// The command itself is gone.
#[test]
fn command_has_vanished() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let words: Vec<String> = server.command.iter().map(|word| format!("'{word}'")).collect();
        let script = scene.write("serve", &format!("#!/bin/sh\nexec {}\n", words.join(" ")));
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, executable).expect("chmod");
        let relisten = scene.relisten().command([script.display().to_string()]).workers(2).start();
        let load = Load::on(&server);
        let before = relisten.status().pids();
        std::fs::remove_file(&script).expect("remove the command");
        let reload = relisten.reload();
        assert_eq!(reload.code(), Some(1), "{reload:?}");
        assert!(reload.text().contains("serve"), "the message does not name the command: {reload:?}");
        let status = relisten.settle(2, seconds(10));
        assert_eq!(status.pids(), before);
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}

/// Those already leaving are taken back when one of the new generation fails late.
#[test]
fn second_slot_fails() {
    Test::new().server(Kind::Python).run(|scene| {
        // Of the new generation only the first to start gets going.
        let server = Kind::Python.server();
        let words: Vec<String> = server.command.iter().map(|word| format!("'{word}'")).collect();
        let script = format!(
            "if [ -e once ]; then mkdir taken 2>/dev/null || {{ sleep 1; exit 5; }}; fi; exec {}",
            words.join(" ")
        );
        let relisten = scene.relisten().command(["sh", "-c", &script]).workers(2).start();
        let load = Load::on(&server);
        let before = relisten.status().pids();
        scene.write("once", "");
        let reload = relisten.reload();
        assert_eq!(reload.code(), Some(1), "{reload:?}");
        let status = relisten.settle(2, seconds(15));
        assert_eq!(status.generation, 1, "{status:#?}");
        assert_eq!(status.pids(), before);
        assert!(before.contains(&http::get(server.address, "/").expect("an answer").pid()));
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}

/// The same whether a server binds by itself or takes what it is passed, and whether it says READY or not.
fn any_server(kind: Kind) {
    Test::new().server(kind).run(|scene| {
        scene.write("mode", "ok");
        let server = kind.server();
        // Who never gets ready is waited for: two quick ones have to do.
        let both = matches!(kind, Kind::Node | Kind::Library);
        let timeout = if both { "2s" } else { "60s" };
        let words: Vec<String> = server.command.iter().map(|word| format!("'{word}'")).collect();
        let script = format!(
            "case $(cat mode) in exit) echo exits as told; exit 3;; never) exec sleep 1000;; esac; exec {}",
            words.join(" ")
        );
        let relisten = scene
            .relisten()
            .server(&server)
            .command(["sh", "-c", &script])
            .options(["--ready-timeout", timeout])
            .workers(2)
            .start();
        let load = Load::on(&server);
        let before = relisten.status().pids();
        for mode in if both { &["exit", "never"][..] } else { &["exit"] } {
            scene.write("mode", mode);
            let reload = relisten.reload();
            assert_eq!(reload.code(), Some(1), "{mode}: {reload:?}");
            assert_eq!(reload.text().contains("exits as told"), *mode == "exit", "{reload:?}");
        }
        unchanged(scene, relisten, load, &before);
    });
}
per_server!(
    any_server,
    [node = Node, java = Java, netty = Netty, go = Go, gunicorn = Gunicorn, nginx = Nginx, library = Library,]
);
