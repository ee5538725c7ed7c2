//! Run as root with `--user`, the listeners stay root's: the workers' user can't join their groups.

use relisten_e2e::{Kind, Test, http, seconds};
use std::process::{Command, Output};

/// Joins the group of port 8000: exit status 0 if it could, else the error's number.
const JOIN: &str = "
import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
try:
    s.bind(('127.0.0.1', 8000))
    s.listen()
except OSError as error:
    sys.exit(error.errno)
";
const EADDRINUSE: i32 = 98;

/// As this user, outside of the instance.
fn join_as(uid: u32) -> Output {
    let reuid = format!("--reuid={uid}");
    Command::new("setpriv")
        .args([&reuid, "--clear-groups", "python3", "-c", JOIN])
        .current_dir("/")
        .output()
        .expect("setpriv (util-linux)")
}

fn nobody_joins(options: &[&str], kind: Kind) {
    Test::new().root().server(kind).run(|scene| {
        let server = kind.server();
        let relisten =
            scene.relisten().options(["--user", "nobody"]).options(options).server(&server).workers(2);
        let relisten = relisten.start();
        let nobody = 65534;
        for round in 1..=2 {
            let refused = join_as(nobody);
            assert_eq!(refused.status.code(), Some(EADDRINUSE), "generation {round}: {refused:?}");
            // So it is the user that matters, and not the address.
            let root = join_as(0);
            assert_eq!(root.status.code(), Some(0), "{root:?}");
            for _ in 0..10 {
                http::get(server.address, server.path).expect("served");
            }
            relisten.reload().ok();
            relisten.settle(2, seconds(20));
        }
        relisten.stop(seconds(20));
        // And with the instance gone nothing is in the way.
        let free = join_as(nobody);
        assert_eq!(free.status.code(), Some(0), "{free:?}");
    });
}

#[test]
fn adopted_listeners_are_not_the_workers_users() {
    nobody_joins(&[], Kind::Node);
}

#[test]
fn passed_listeners_are_not_the_workers_users() {
    nobody_joins(&["--sockets", "pass"], Kind::BuiltIn);
}
