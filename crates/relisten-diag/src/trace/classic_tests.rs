use super::*;
use crate::trace::{KnownListener, Look, Transport, Worker};

const SEND_RESET: &str =
    "__print_symbolic(REC->reason, { 1, \"NO_SOCKET\" }, { 6, \"TCP_FLAGS\" }, { 14, \"TCP_STATE\" })";

fn names() -> Names {
    Names::from_formats(SEND_RESET, "")
}

fn engine() -> Engine {
    let mut engine = Engine::new(names());
    engine.set_by_records(true);
    engine.set_resets_only();
    let listener = KnownListener {
        inode: 11,
        cookie: 0,
        transport: Transport::Tcp,
        address: "127.0.0.1:80".parse().unwrap(),
        queue: 0,
        limit: 8,
        drops: 0,
        workers: vec![Worker { pid: 1234, command: "a server".into(), ..Worker::default() }],
        foreign: false,
    };
    engine.look(Look { listeners: vec![listener], ..Look::default() });
    engine
}

fn told(lines: &[&str]) -> Vec<Fate> {
    let (mut engine, mut classic) = (engine(), Classic::new(true));
    for line in lines {
        for record in classic.line(line, &names()) {
            engine.record(&record);
        }
    }
    engine.take()
}

const CLOSED: &str = "  a server-1234    [001] .....  5555.123456: inet_sock_set_state: family=AF_INET protocol=IPPROTO_TCP \
    sport=80 dport=0 saddr=127.0.0.1 daddr=0.0.0.0 saddrv6=::ffff:127.0.0.1 daddrv6=::ffff:0.0.0.0 oldstate=TCP_LISTEN \
    newstate=TCP_CLOSE";

#[test]
fn a_queue_that_is_reset() {
    let fates = told(&[
        CLOSED,
        "  a server-1234    [001] b..1.  5555.123466: tcp_send_reset: skbaddr=0000000000000000 skaddr=00000000e2b5d1d7 \
         src=127.0.0.1:80 dest=127.0.0.1:40000 state=TCP_CLOSE reason=TCP_STATE",
    ]);
    let [fate] = &fates[..] else { panic!("{fates:#?}") };
    assert_eq!((fate.cause, fate.phase), (Cause::ListenerClosed, Phase::Queued));
    assert_eq!(fate.client, Some("127.0.0.1:40000".parse().unwrap()));
    assert_eq!(fate.worker.as_ref().unwrap().command, "a server");
    assert_eq!(fate.time_ns, 5_555_123_466_000);
}

#[test]
fn a_closed_port_and_a_listener_that_knows_nothing() {
    let nobody = "   <idle>-0       [000] ..s1.     1.000001: tcp_send_reset: skbaddr=00000000c14d51cf \
        skaddr=0000000000000000 src=127.0.0.1:81 dest=127.0.0.1:40001 state=UNKNOWN reason=NO_SOCKET";
    let echo = nobody.replace("src=127.0.0.1:81", "src=127.0.0.1:80");
    let listening = "   <idle>-0       [000] ..s1.     1.000002: tcp_send_reset: skbaddr=00000000c14d51cf \
        skaddr=00000000e2b5d1d7 src=127.0.0.1:80 dest=0.0.0.0:0 state=TCP_LISTEN reason=TCP_FLAGS";
    let fates = told(&[nobody, &echo, listening]);
    let causes: Vec<Cause> = fates.iter().map(|fate| fate.cause).collect();
    assert_eq!(causes, [Cause::NobodyListens, Cause::NoRequest], "{fates:#?}");
    assert_eq!((fates[1].client, fates[1].worker.as_ref().map(|worker| worker.pid)), (None, Some(1234)));
}

/// Linux 6.1 tells a reset's addresses in parts, and no reason.
#[test]
fn an_older_form() {
    let line = "  python3-7 (5) [000] .....     2.5: tcp_send_reset: family=AF_INET6 sport=80 dport=9 saddr=0.0.0.0 \
        daddr=0.0.0.0 saddrv6=::1 daddrv6=::2 state=TCP_ESTABLISHED skaddr=00000000e2b5d1d7";
    let records = Classic::new(false).line(line, &names());
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!((record.local, record.remote), ("[::1]:80".parse().ok(), "[::2]:9".parse().ok()));
    assert_eq!((record.pid, record.tid, record.reason, record.state), (0, 7, None, 1));
}

#[test]
fn ports_that_ran_out() {
    let line = CLOSED
        .replace("sport=80 dport=0", "sport=0 dport=80")
        .replace("oldstate=TCP_LISTEN", "oldstate=TCP_SYN_SENT");
    assert_eq!(told(&[&line])[0].cause, Cause::PortsExhausted);
}

#[test]
fn what_is_lost_is_counted_and_nonsense_is_nothing() {
    let mut classic = Classic::default();
    for line in [
        "CPU:1 [LOST 123 EVENTS]",
        "",
        "x",
        "a-1 [0] 1.1: b: c",
        "a-x [0] 1.1: tcp_send_reset: skaddr=1",
        "[LOST x",
    ] {
        assert_eq!(classic.line(line, &names()), []);
    }
    assert_eq!(classic.lost(), 123);
    for end in 0..CLOSED.len() {
        let _ = classic.line(&CLOSED[..end], &names());
    }
}
