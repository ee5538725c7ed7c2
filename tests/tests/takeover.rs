//! The supervisor dies: workers go on serving, and the next supervisor of that name takes over.

use relisten_e2e::load::Load;
use relisten_e2e::{Kind, Test, http, per_server, process, seconds, wait_until};

/// Killed and started again under load.
fn killed_and_started_again(kind: Kind) {
    Test::new().server(kind).limit(seconds(90)).run(|scene| {
        let server = kind.server();
        let mut first = scene.relisten().name("web").server(&server).workers(3).start();
        first.reload().ok();
        first.settle(3, seconds(30));
        let before = first.status();
        let load = Load::on(&server);
        first.kill();
        load.more(500, seconds(10));
        let second = scene.relisten().name("web").server(&server).workers(3).start();
        let after = second.status();
        assert_eq!(after.pids(), before.pids(), "other workers: {after:#?}");
        assert_eq!(after.generation, before.generation);
        assert!(after.uptime_ms > before.uptime_ms);
        assert_eq!(after.totals.reloads, 1, "{after:#?}");
        // Everything works as before: a reload, a crash, less workers, the end.
        second.reload().ok();
        second.settle(3, seconds(30));
        second.scale(2).ok();
        second.settle(2, seconds(30));
        load.more(100, seconds(10));
        load.finish_clean();
        process::kill(second.status().pids()[0]);
        second
            .wait_status("restarted", seconds(20), |status| status.totals.restarts == 1 && status.settled(2));
        second.stop(seconds(30));
        scene.nothing_left(&[server.address.port()]);
    });
}
per_server!(
    killed_and_started_again,
    [python = Python, node = Node, go = Go, nginx = Nginx, built_in = BuiltIn, library = Library]
);

/// While no supervisor is there, a worker's own new process can still bind and listen.
#[test]
fn workers_can_bind_without_a_supervisor() {
    Test::new().server(Kind::Python).run(|scene| {
        let script = "import socket, sys, os, time, http.server
s = http.server.ThreadingHTTPServer(('127.0.0.1', 8000), http.server.SimpleHTTPRequestHandler)
import threading; threading.Thread(target=s.serve_forever, daemon=True).start()
while not os.path.exists('go'): time.sleep(0.02)
t = socket.socket(); t.bind(('127.0.0.1', 8900)); t.listen(5)
open('bound', 'w').close()
time.sleep(600)
";
        let mut relisten = scene.relisten().name("web").command(["python3", "-c", script]).workers(1).start();
        relisten.kill();
        scene.write("go", "");
        wait_until("the worker has bound another port", seconds(5), || {
            scene.directory().join("bound").exists()
        });
        http::get(([127, 0, 0, 1], 8000).into(), "/").expect("still served");
        let next = scene.relisten().name("web").command(["python3", "-c", script]).workers(1).start();
        next.stop(seconds(20));
    });
}

/// What waits in queues is there for the next supervisor's workers.
#[test]
fn queues_survive() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let mut first = scene.relisten().name("web").server(&server).workers(1).start();
        let pid = first.status().pids()[0];
        process::stop(pid);
        let address = server.address;
        let clients: Vec<_> = (0..20).map(|_| std::thread::spawn(move || http::get(address, "/"))).collect();
        wait_until("they wait", seconds(5), || relisten_e2e::sockets::waiting(8000) >= 20);
        first.kill();
        process::kill(pid);
        wait_until("the worker is gone", seconds(2), || !process::alive(pid));
        let second = scene.relisten().name("web").server(&server).workers(1).start();
        for client in clients {
            client.join().expect("client").expect("what waited in the queue was lost");
        }
        second.stop(seconds(20));
    });
}

/// Supervisor and keeper killed: the workers serve on; the next supervisor says what it found and goes on.
#[test]
fn keeper_killed_as_well() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let mut first = scene.relisten().name("web").server(&server).workers(2).start();
        let workers = first.status().pids();
        first.kill();
        let keepers: Vec<_> = process::all()
            .into_iter()
            .filter(|p| p.command.contains("keeper") && !workers.contains(&p.pid))
            .collect();
        assert_eq!(keepers.len(), 1, "one keeper is expected:\n{}", process::table());
        process::kill(keepers[0].pid);
        for _ in 0..20 {
            http::get(server.address, "/").expect("the workers serve on");
        }
        // Nobody has their descriptors any more, so they can't be taken over: they are foreign now, and that is said.
        let second = scene.relisten().name("web").server(&server).workers(2).start();
        second.wait_status("the old workers are reported", seconds(5), |status| {
            let foreign: Vec<u32> =
                status.listeners[0].foreign.iter().filter_map(|socket| socket.pid).collect();
            workers.iter().all(|pid| foreign.contains(pid) || !process::alive(*pid))
        });
        for _ in 0..20 {
            http::get(server.address, "/").expect("served");
        }
        second.wait_output("foreign", seconds(5));
        for pid in &workers {
            process::kill(*pid);
        }
        second.stop(seconds(30));
        scene.nothing_left(&[8000]);
    });
}

/// The keeper alone killed: the supervisor notices, says so, and gets another one.
#[test]
fn keeper_is_replaced() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let mut first = scene.relisten().name("web").server(&server).workers(2).start();
        let load = Load::on(&server);
        let keepers = || -> Vec<u32> {
            process::all()
                .iter()
                .filter(|p| p.state != 'Z' && p.command.contains("keeper"))
                .map(|p| p.pid)
                .collect()
        };
        let old = keepers();
        assert_eq!(old.len(), 1, "{}", process::table());
        process::kill(old[0]);
        wait_until("there is another keeper", seconds(5), || keepers().iter().any(|pid| *pid != old[0]));
        first.wait_output("keeper", seconds(2));
        let before = first.settle(2, seconds(5)).pids();
        first.kill();
        load.more(200, seconds(10));
        let second = scene.relisten().name("web").server(&server).workers(2).start();
        assert_eq!(second.status().pids(), before);
        load.finish_clean();
        second.stop(seconds(20));
    });
}
