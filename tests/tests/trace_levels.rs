//! `relisten trace` where no programs may be loaded into the kernel, but its own tracepoints may be read.

use relisten_e2e::Test;
use relisten_e2e::trace::Trace;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

/// Root by name, without any capability: it may read what belongs to root, and load no programs.
const POWERLESS_ROOT: [&str; 3] = ["--bounding-set=-all", "--inh-caps=-all", "--"];

/// Resets are told with the client, and what became of its listener.
#[test]
fn classic_tracepoints() {
    Test::new().root().run(|_| {
        let mut command = Command::new("setpriv");
        command.args(POWERLESS_ROOT).arg(std::env::var("RELISTEN_BIN").expect("the binary"));
        command.args(["trace", "--json", "--port", "8080"]);
        let trace = Trace::run(command);
        // What happens in other namespaces is told as well: so look for this client.
        let listener = TcpListener::bind("127.0.0.1:8080").expect("bind");
        let queued = TcpStream::connect("127.0.0.1:8080").expect("connect");
        let client = queued.local_addr().expect("address");
        drop(listener);
        let fate = trace.of("listener-closed", client);
        let at = fate.listener.as_ref().map(|place| place.address);
        assert_eq!(
            (&*fate.phase, at),
            ("queued", Some(SocketAddr::from(([127, 0, 0, 1], 8080)))),
            "{fate:#?}"
        );
        assert!(fate.shows("TCP_STATE"), "{fate:#?}");

        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
        let client = socket.local_addr().ok().and_then(|name| name.as_socket()).expect("address");
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], 8080)).into()).expect_err("nobody listens");
        assert!(trace.of("nobody-listens", client).shows("NO_SOCKET"));

        let told = trace.end();
        let level =
            |name: &str| told.levels.iter().find(|level| level.name == name).expect("the level").clone();
        let (programs, classic) = (level("raw-tracepoints"), level("tracepoints"));
        assert!(classic.used, "{classic:?}");
        assert!(!programs.used && programs.why.is_some() && programs.hides.is_some(), "{programs:?}");
    });
}
