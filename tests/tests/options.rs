//! Options of `relisten run` that no other test is about.

use relisten_e2e::{Kind, Test, cli, http, seconds, sockets, wait_for, wait_until};
use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

/// `--workers auto`, the default: as many as there are CPUs that the process may use.
#[test]
fn as_many_workers_as_cpus() {
    Test::new().server(Kind::Python).run(|_| {
        let server = Kind::Python.server();
        let relisten = std::env::var_os("RELISTEN_BIN").expect("the binary");
        for cpus in 1..=std::thread::available_parallelism().map_or(1, usize::from).min(2) {
            let mut command = Command::new("taskset");
            command.args(["--cpu-list", &format!("0-{}", cpus - 1)]).arg(&relisten);
            command.args(["run", "--name", "auto", "--"]).args(&server.command);
            let mut child = command.stdin(Stdio::null()).spawn().expect("taskset (util-linux)");
            let status = || {
                let said = cli(&["status", "--json", "auto"]);
                serde_json::from_str::<relisten_e2e::Status>(&said.out).ok()
            };
            wait_for("as many as CPUs", seconds(15), || status().filter(|status| status.settled(cpus)));
            cli(&["stop", "auto"]).ok();
            wait_until("it ends", seconds(20), || child.try_wait().expect("wait").is_some());
        }
    });
}

/// A name stands for all its addresses.
#[test]
fn a_name_with_several_addresses() {
    Test::new().server(Kind::BuiltIn).run(|scene| {
        let addresses: BTreeSet<SocketAddr> =
            "localhost:8000".to_socket_addrs().expect("localhost").collect();
        let relisten = scene.relisten().options(["--listen", "localhost:8000"]).workers(2).start();
        assert_eq!(relisten.status().listeners.len(), addresses.len(), "{:#?}", relisten.status());
        for address in &addresses {
            assert_eq!(http::get(*address, "/.relisten").expect("served").status, 200, "{address}");
        }
        relisten.reload().ok();
        for address in &addresses {
            assert_eq!(http::get(*address, "/.relisten").expect("served").status, 200, "{address}");
        }
        relisten.settle(2, seconds(20));
        let left = || sockets::listening(8000).len() == 2 * addresses.len();
        wait_until("the old listeners are closed", seconds(20), left);
        relisten.stop(seconds(20));
        scene.nothing_left(&[8000]);
    });
}

/// `--metrics`: OpenMetrics over TCP.
#[test]
fn metrics_on_an_address() {
    Test::new().server(Kind::BuiltIn).run(|scene| {
        let options = ["--listen", "127.0.0.1:8000", "--metrics", "127.0.0.1:9000"];
        let relisten = scene.relisten().options(options).workers(2).start();
        relisten.reload().ok();
        let address = ([127, 0, 0, 1], 9000).into();
        let answer = http::get(address, "/metrics").expect("an answer");
        let text = answer.text();
        assert!(answer.status == 200 && text.ends_with("# EOF\n"), "{answer:?}");
        assert!(
            text.lines().any(|line| line.starts_with("relisten_reloads_total") && line.ends_with(" 1")),
            "{text}"
        );
        relisten.stop(seconds(20));
        scene.nothing_left(&[8000, 9000]);
    });
}

/// Who started the supervisor as a service of `Type=notify` is told when it serves, and when it stops.
#[test]
fn the_service_manager_is_told() {
    Test::new().server(Kind::Python).run(|scene| {
        let path = scene.directory().join("manager");
        let manager = UnixDatagram::bind(&path).expect("bind");
        manager.set_read_timeout(Some(seconds(20))).expect("a timeout");
        let server = Kind::Python.server();
        let relisten = scene.relisten().env("NOTIFY_SOCKET", &path.to_string_lossy()).server(&server).start();
        let hears = || {
            let mut buffer = [0; 256];
            let length = manager.recv(&mut buffer).expect("a message");
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        assert_eq!(hears(), format!("READY=1\nMAINPID={}\n", relisten.pid()));
        relisten.stop(seconds(20));
        assert_eq!(hears(), "STOPPING=1\n");
    });
}

/// `--log-format json`: each line is an object, the supervisor's own and those of the workers.
#[test]
fn log_as_json() {
    Test::new().server(Kind::Python).run(|scene| {
        let script = "print('hello', flush=True)
import http.server; http.server.HTTPServer(('127.0.0.1', 8000), http.server.SimpleHTTPRequestHandler).serve_forever()";
        let relisten =
            scene.relisten().options(["--log-format", "json"]).command(["python3", "-c", script]).start();
        let pid = relisten.status().pids()[0];
        let output = relisten.stop(seconds(20));
        let lines = output.lines();
        let objects: Vec<serde_json::Value> = lines
            .iter()
            .map(|line| serde_json::from_str(&line.text).unwrap_or_else(|e| panic!("{e}: {}", line.text)))
            .collect();
        let of_the_worker = objects.iter().find(|line| line["line"] == "hello").expect("the worker's line");
        assert_eq!((&of_the_worker["slot"], &of_the_worker["pid"]), (&0.into(), &pid.into()), "{of_the_worker}");
        assert!(objects.len() > 2 && objects.iter().all(serde_json::Value::is_object), "{objects:#?}");
    });
}
