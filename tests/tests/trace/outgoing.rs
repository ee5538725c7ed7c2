//! Connections that were not even begun.

use crate::sysctl;
use relisten_e2e::Test;
use relisten_e2e::puppet::Puppet;
use relisten_e2e::trace::Trace;
use std::net::TcpListener;

const PORTS: u16 = 8;

/// No local port is left. No counter of the kernel's tells that.
#[test]
fn no_port_left() {
    Test::new().root().run(|scene| {
        let _servers = ["127.0.0.1:8001", "127.0.0.1:8002"].map(|at| TcpListener::bind(at).expect("bind"));
        let trace = Trace::start(&[]);
        sysctl("ip_local_port_range", &format!("40000 {}", 40_000 + PORTS - 1));
        let mut puppets = ["one", "two"].map(|name| Puppet::start(scene, name));
        let connect = |puppet: &mut Puppet, port: u16| {
            puppet.does("c = socket.socket(); held = globals().get('held', []) + [c]");
            puppet.says(&format!("print(c.connect_ex(('127.0.0.1', {port})))"))
        };
        for _ in 0..PORTS {
            assert_eq!(connect(&mut puppets[0], 8001), "0");
        }
        // EADDRNOTAVAIL
        for (at, times) in [(0, 3), (1, 2)] {
            for _ in 0..times {
                assert_eq!(connect(&mut puppets[at], 8001), "99");
            }
        }
        assert_eq!(connect(&mut puppets[1], 8002), "0", "another destination has ports of its own");
        let pids = [puppets[0].pid(), puppets[1].pid()];
        let last = trace.wait("ports-exhausted", |f| f.worker.as_ref().is_some_and(|w| w.pid == pids[1]));
        assert_eq!((last.outcome.as_str(), last.phase.as_str()), ("failed", "connect"));
        assert!(last.shows("EADDRNOTAVAIL") && last.shows("127.0.0.1"), "{last:#?}");
        let told = trace.end();
        told.only(&["ports-exhausted"]);
        let mut counts: Vec<(u32, String, String, u64)> = Vec::new();
        for failed in &told.summary.failed_connects {
            let Some(at) = pids.iter().position(|pid| *pid == failed.worker.pid) else {
                panic!("somebody else: {told:#?}");
            };
            assert_eq!(failed.worker.command, puppets[at].command());
            counts.push((
                failed.worker.pid,
                failed.worker.command.clone(),
                failed.destination.to_string(),
                failed.count,
            ));
        }
        let expected =
            |at: usize, count| (pids[at], puppets[at].command(), "127.0.0.1:8001".to_owned(), count);
        assert_eq!(counts, [expected(0, 3), expected(1, 2)], "the most frequent first");
        assert_eq!(told.fates_of("ports-exhausted").len(), 5);
    });
}
