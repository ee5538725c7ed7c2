//! `https://`: the fates of TLS connections, produced on purpose, and what is trusted.
#![allow(missing_docs, reason = "a test program")]

mod servers;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use relisten_lab::load::{
    Fate, KeepAlive, Pace, Plan, Report, Runner, StartError, Target, TargetAddress, TlsError, Trust,
};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use servers::{answering, reset, server, wait_for_end};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const REQUESTS: u64 = 12;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const UNTIL_CLOSE: &[u8] = b"HTTP/1.0 200 OK\r\n\r\nhello";

type Session = StreamOwned<ServerConnection, TcpStream>;

/// An authority, and a certificate of it for 127.0.0.1 and server.test.
struct Authority {
    directory: tempfile::TempDir,
    config: Arc<ServerConfig>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, name);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key"))
            .expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let names = ["127.0.0.1".to_owned(), "server.test".to_owned()];
        let certificate =
            CertificateParams::new(names).and_then(|made| made.signed_by(&key, &authority)).expect("signed");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("a file");
        let config = config(certificate.der().clone(), &key);
        Self { directory, config }
    }

    /// A certificate that signed itself, and who trusts it.
    fn of_itself(is_ca: IsCa) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(["127.0.0.1".to_owned()]).expect("parameters");
        parameters.is_ca = is_ca;
        let certificate = parameters.self_signed(&key).expect("signed");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.pem"), certificate.pem()).expect("a file");
        let config = config(certificate.der().clone(), &key);
        Self { directory, config }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Serves each connection on a thread of its own.
    fn serving(&self, serve: impl Fn(Session) + Send + Sync + 'static) -> SocketAddr {
        let config = Arc::clone(&self.config);
        server(move |stream, _| {
            // The tickets go out before an answer: it must not wait for their ACK, which a reset would not.
            stream.set_nodelay(true).expect("TCP_NODELAY");
            let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            serve(StreamOwned::new(session, stream));
        })
    }

    fn plan(&self, address: SocketAddr) -> Plan {
        Plan { trust: Trust::File(self.file()), ..plan(address) }
    }
}

fn config(certificate: CertificateDer<'static>, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

fn plan(address: SocketAddr) -> Plan {
    Plan {
        pace: Pace::Clients(4),
        requests: Some(REQUESTS),
        timeout: Duration::from_secs(20),
        ..Plan::get(&format!("https://{address}/")).expect("a target")
    }
}

fn run(plan: Plan) -> Report {
    Runner::start(plan).expect("a plan that can be carried out").wait()
}

/// Reads one request. False when there is none: the handshake failed or the client has no more to ask.
fn asked(session: &mut Session) -> bool {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") {
        match session.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            _ => return false,
        }
    }
    true
}

fn say(session: &mut Session, answer: &[u8]) {
    session.write_all(answer).and_then(|()| session.flush()).expect("the client reads");
}

/// Closes as TLS asks for.
fn farewell(mut session: Session) {
    session.conn.send_close_notify();
    session.flush().expect("the client reads");
}

#[track_caller]
fn assert_all(report: &Report, fate: Fate) {
    assert_eq!(report.attempts.fates.get(fate), REQUESTS, "{report}");
    assert_eq!(report.attempts.fates.sum(), REQUESTS, "{report}");
    assert_eq!(report.connections.started, REQUESTS, "{report}");
    assert_eq!(report.lost, if fate == Fate::Completed { 0 } else { REQUESTS }, "{report}");
}

/// All failed in the handshake, and this is why.
#[track_caller]
fn assert_failed(report: &Report, why: &str) {
    assert_all(report, Fate::TlsHandshakeFailed);
    let named: Vec<_> = report.errors.iter().collect();
    assert!(matches!(named[..], [(text, &REQUESTS)] if text.contains(why)), "{named:?}, not {why:?}");
    assert_eq!((report.connections.broken, report.handshake.count), (REQUESTS, 0), "{report}");
}

#[test]
fn completed() {
    let authority = Authority::new("one");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let names = Arc::clone(&seen);
    let address = authority.serving(move |mut session| {
        if asked(&mut session) {
            let alpn = session.conn.alpn_protocol().map(<[u8]>::to_vec);
            names.lock().expect("no panic").push((session.conn.server_name().map(str::to_owned), alpn));
            say(&mut session, ANSWER);
        }
    });
    let report = run(authority.plan(address));
    assert_all(&report, Fate::Completed);
    assert_eq!((report.connect.count, report.handshake.count), (REQUESTS, REQUESTS), "{report}");
    assert!(report.to_string().contains("handshake"), "{report}");
    // An address is not a name.
    assert!(seen.lock().expect("no panic").iter().all(|s| *s == (None, Some(b"http/1.1".to_vec()))));

    seen.lock().expect("no panic").clear();
    let named = Target {
        address: TargetAddress::Tcp(address),
        host: format!("server.test:{}", address.port()),
        path: "/".to_owned(),
        tls: true,
    };
    assert_all(&run(Plan { target: named, ..authority.plan(address) }), Fate::Completed);
    let seen = seen.lock().expect("no panic");
    assert!(seen.iter().all(|(name, _)| name.as_deref() == Some("server.test")), "{seen:?}");
}

#[test]
fn the_server_is_told_of_the_end() {
    let authority = Authority::new("one");
    let ends = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&ends);
    let address = authority.serving(move |mut session| {
        while asked(&mut session) {
            say(&mut session, ANSWER);
        }
        let end = session.read(&mut [0]).map_err(|error| error.kind());
        seen.lock().expect("no panic").push(end);
    });
    let plan = authority.plan(address);
    let report = run(Plan { keep_alive: KeepAlive::Requests(3), pace: Pace::Clients(1), ..plan });
    assert_eq!((report.lost, report.connections.closed_by_client), (0, REQUESTS / 3), "{report}");
    let told = || ends.lock().expect("no panic").len() as u64 == REQUESTS / 3;
    for _ in 0..500 {
        if !told() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert_eq!(*ends.lock().expect("no panic"), [Ok(0); REQUESTS as usize / 3]);
}

#[test]
fn keep_alive_uses_one_connection() {
    let authority = Authority::new("one");
    let address = authority.serving(|mut session| {
        while asked(&mut session) {
            say(&mut session, ANSWER);
        }
    });
    let report =
        run(Plan { keep_alive: KeepAlive::Unlimited, pace: Pace::Clients(1), ..authority.plan(address) });
    assert_eq!((report.attempts.fates.completed, report.connections.started), (REQUESTS, 1), "{report}");
    assert_eq!((report.handshake.count, report.connections.stale), (1, 0), "{report}");
}

#[test]
fn a_connection_closed_between_requests_is_stale() {
    let authority = Authority::new("one");
    // The close is announced together with the answer, and the connection below stays open: the kernel knows nothing.
    let address = authority.serving(|mut session| {
        if asked(&mut session) {
            session.conn.writer().write_all(ANSWER).expect("buffered");
            session.conn.send_close_notify();
            session.flush().expect("the client reads");
            wait_for_end(&mut session.sock);
        }
    });
    let report = run(Plan {
        keep_alive: KeepAlive::Unlimited,
        pause: Duration::from_millis(100),
        pace: Pace::Clients(1),
        requests: Some(5),
        ..authority.plan(address)
    });
    assert_eq!((report.attempts.fates.completed, report.lost), (5, 0), "{report}");
    assert_eq!((report.connections.started, report.connections.stale), (5, 4), "{report}");
}

#[test]
fn an_unknown_authority() {
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    let address = authority.serving(|mut session| {
        asked(&mut session);
    });
    assert_failed(&run(other.plan(address)), "UnknownIssuer");
}

#[test]
fn any_certificate_if_told_so() {
    let authority = Authority::new("one");
    let address = authority.serving(|mut session| {
        if asked(&mut session) {
            say(&mut session, ANSWER);
        }
    });
    assert_all(&run(Plan { trust: Trust::Anyone, ..plan(address) }), Fate::Completed);
}

#[test]
fn a_certificate_that_signed_itself() {
    let answer = |mut session: Session| {
        if asked(&mut session) {
            say(&mut session, ANSWER);
        }
    };
    let server = Authority::of_itself(IsCa::ExplicitNoCa);
    assert_all(&run(server.plan(server.serving(answer))), Fate::Completed);
    let server = Authority::of_itself(IsCa::Ca(BasicConstraints::Unconstrained));
    assert_failed(&run(server.plan(server.serving(answer))), "an authority's own");
}

#[test]
fn another_name_than_the_certificate_is_for() {
    let authority = Authority::new("one");
    let address = authority.serving(|mut session| {
        asked(&mut session);
    });
    let mut plan = authority.plan(address);
    plan.target.host = "elsewhere.test".to_owned();
    assert_failed(&run(plan), "not valid for name");
}

#[test]
fn a_server_that_speaks_no_tls() {
    let address = server(|mut stream, _| {
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        wait_for_end(&mut stream);
    });
    assert_failed(&run(Plan { trust: Trust::Anyone, ..plan(address) }), "does not speak TLS");
}

#[test]
fn closed_or_reset_in_the_handshake() {
    let closing = server(|mut stream, _| {
        let _ = stream.read(&mut [0; 4096]);
    });
    assert_failed(&run(Plan { trust: Trust::Anyone, ..plan(closing) }), "closed in the TLS handshake");
    let resetting = server(|mut stream, _| {
        let _ = stream.read(&mut [0; 512]);
        reset(&stream);
    });
    assert_failed(&run(Plan { trust: Trust::Anyone, ..plan(resetting) }), "ECONNRESET");
}

#[test]
fn refused_is_no_matter_of_tls() {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|gone| gone.local_addr()).expect("a free port");
    let report = run(Plan { trust: Trust::Anyone, ..plan(address) });
    assert_all(&report, Fate::Refused);
}

#[test]
fn timed_out_in_the_handshake() {
    let address = server(|mut stream, _| wait_for_end(&mut stream));
    let plan = Plan { trust: Trust::Anyone, timeout: Duration::from_millis(100), ..plan(address) };
    let report = run(plan);
    assert_all(&report, Fate::TimedOut);
    assert_eq!(report.connections.broken, REQUESTS, "{report}");
}

#[test]
fn a_failed_handshake_is_tried_again_whatever_the_method() {
    let authority = Authority::new("one");
    let config = Arc::clone(&authority.config);
    let address = server(move |mut stream, number| {
        if number % 2 == 0 {
            let _ = stream.read(&mut [0; 4096]);
            return;
        }
        let mut session =
            StreamOwned::new(ServerConnection::new(Arc::clone(&config)).expect("a session"), stream);
        if asked(&mut session) {
            say(&mut session, ANSWER);
        }
    });
    let report =
        run(Plan { method: "POST".into(), retry: 3, pace: Pace::Clients(1), ..authority.plan(address) });
    assert_eq!((report.requests.served_after_retry, report.requests.failed), (REQUESTS, 0), "{report}");
    assert_eq!((report.attempts.fates.tls_handshake_failed, report.lost), (REQUESTS, REQUESTS), "{report}");
}

#[test]
fn ends_with_and_without_a_farewell() {
    let authority = Authority::new("one");
    let cases: [(&'static [u8], bool, Fate); 6] = [
        (UNTIL_CLOSE, true, Fate::Completed),
        // Whether this was all nobody can tell.
        (UNTIL_CLOSE, false, Fate::Truncated),
        (b"", true, Fate::Empty),
        (b"", false, Fate::Empty),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", true, Fate::Truncated),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", false, Fate::Truncated),
    ];
    for (answer, with_farewell, fate) in cases {
        let address = authority.serving(move |mut session| {
            if asked(&mut session) {
                say(&mut session, answer);
                if with_farewell {
                    farewell(session);
                }
            }
        });
        assert_all(&run(authority.plan(address)), fate);
    }
}

#[test]
fn reset_before_and_after_the_answer_has_begun() {
    let authority = Authority::new("one");
    for (answer, fate) in [(&b""[..], Fate::ResetBeforeByte), (&ANSWER[..30], Fate::ResetMidReply)] {
        let address = authority.serving(move |mut session| {
            if asked(&mut session) {
                say(&mut session, answer);
                reset(&session.sock);
            }
        });
        assert_all(&run(authority.plan(address)), fate);
    }
}

#[test]
fn what_cannot_be_trusted_is_said_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let start = |file: PathBuf| {
        let target = Target::parse("https://127.0.0.1:1/").expect("a target");
        Runner::start(Plan { trust: Trust::File(file), ..Plan::new(target) }).expect_err("it can't start")
    };
    let file = directory.path().join("none.pem");
    assert!(matches!(start(file.clone()), StartError::Tls(TlsError::File(..))));
    for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&file, text).expect("a file");
        assert!(matches!(start(file.clone()), StartError::Tls(TlsError::NoCertificate(_))), "{text:?}");
    }
    let mut target = Target::parse("https://127.0.0.1:1/").expect("a target");
    target.host = "no name".to_owned();
    let named = Runner::start(Plan { trust: Trust::Anyone, ..Plan::new(target) }).expect_err("no name");
    assert!(matches!(named, StartError::Tls(TlsError::Name(_))), "{named:?}");
}

#[test]
fn plain_http_goes_on_as_before() {
    let address = answering(ANSWER);
    let plan = Plan { requests: Some(REQUESTS), ..Plan::new(Target::from(address)) };
    let report = run(plan);
    assert_eq!((report.attempts.fates.completed, report.handshake.count), (REQUESTS, 0), "{report}");
}
