use super::*;
use crate::counters::Counters;
use proptest::prelude::*;
use relisten_bpf::trace::{Packet, Way};

const CLIENT: &str = "127.0.0.1:40000";
const SERVER: &str = "127.0.0.1:80";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn names() -> Names {
    let list = |names: &[&str]| {
        let pairs: Vec<String> =
            names.iter().enumerate().map(|(i, name)| format!("{{ {}, \"{name}\" }}", i + 1)).collect();
        format!("__print_symbolic(REC->reason, {})", pairs.join(", "))
    };
    Names::from_formats(
        &list(&[
            "NO_SOCKET",
            "TCP_STATE",
            "TCP_ABORT_ON_CLOSE",
            "TCP_FLAGS",
            "INVALID_SYN",
            "TCP_ABORT_ON_DATA",
        ]),
        &list(&["NO_SOCKET", "TCP_RFC7323_PAWS", "NOT_SPECIFIED"]),
    )
}

fn listener(inode: u64, address: &str) -> KnownListener {
    KnownListener {
        inode,
        cookie: inode + 1000,
        transport: Transport::Tcp,
        address: at(address),
        queue: 0,
        limit: 128,
        drops: 0,
        workers: vec![Worker { pid: 7, command: "server --port 80".into(), ..Worker::default() }],
        foreign: false,
    }
}

fn look(time_ns: u64, listeners: Vec<KnownListener>) -> Look {
    Look { time_ns, listeners, ..Look::default() }
}

fn engine() -> Engine {
    let mut engine = Engine::new(names());
    engine.set_by_records(true);
    engine.look(look(0, vec![listener(11, "0.0.0.0:80")]));
    engine
}

fn packet(flags: u16) -> Packet {
    Packet {
        from: at(CLIENT),
        to: at(SERVER),
        protocol: TCP,
        seq: 1,
        ack: 2,
        flags,
        window: 0,
        checksum: 0,
        urgent: 0,
        length: 40,
        ttl: 64,
        tos: 0,
        id: 0,
        way: Way::In,
    }
}

fn record(kind: Kind) -> Record {
    Record {
        kind,
        pid: 7,
        tid: 7,
        comm: "server".into(),
        protocol: TCP,
        count: 1,
        time: 1,
        ..Record::default()
    }
}

/// The listener closes with these clients in its queue.
fn close(engine: &mut Engine, half_open: u32, clients: &[&str]) {
    engine.record(&Record {
        inode: 11,
        socket: 0x11,
        local: Some(at(SERVER)),
        queue: clients.len() as u32,
        queue_limit: 128,
        half_open,
        exit_code: 9,
        task_flags: 4,
        ..record(Kind::ListenerClosed)
    });
    for client in clients {
        let ends = (Some(at(SERVER)), Some(at(client)));
        engine.record(&Record { local: ends.0, remote: ends.1, other: 0x11, ..record(Kind::QueuedAtClose) });
    }
}

fn only(engine: &mut Engine) -> Fate {
    let fates = engine.take();
    assert_eq!(fates.len(), 1, "{fates:#?}");
    fates.into_iter().next().unwrap()
}

#[test]
fn nobody_listens_and_its_echo_is_not_told_again() {
    let mut engine = engine();
    let syn = Packet { to: at("127.0.0.1:81"), ..packet(Packet::SYN) };
    let sent = Record { reason: Some(1), packet: Some(syn), ..record(Kind::ResetSent) };
    engine.record(&sent);
    engine.record(&Record { reason: Some(1), kind: Kind::Dropped, ..sent });
    let arrived =
        Record { local: Some(at(CLIENT)), remote: Some(at("127.0.0.1:81")), ..record(Kind::ResetReceived) };
    engine.record(&arrived);
    engine.settle_arrived(u64::MAX);
    let fate = only(&mut engine);
    assert_eq!((fate.cause, fate.phase, fate.client), (Cause::NobodyListens, Phase::Syn, Some(at(CLIENT))));
    assert_eq!(fate.listener.unwrap().address, at("127.0.0.1:81"));
}

#[test]
fn a_queue_that_is_reset_names_the_process_and_its_end() {
    let mut engine = engine();
    close(&mut engine, 0, &[CLIENT]);
    let ends = (Some(at(SERVER)), Some(at(CLIENT)));
    engine.record(&Record { reason: Some(2), local: ends.0, remote: ends.1, ..record(Kind::ResetSent) });
    let fate = only(&mut engine);
    assert_eq!((fate.cause, fate.phase), (Cause::ListenerClosed, Phase::Queued));
    assert_eq!(fate.worker.unwrap().command, "server --port 80");
    assert!(fate.explanation.contains("killed by SIGKILL"), "{}", fate.explanation);
    assert_eq!(fate.listener.unwrap().inode, Some(11));
}

#[test]
fn a_reset_from_another_thread_is_not_the_queues() {
    let mut engine = engine();
    close(&mut engine, 0, &[CLIENT]);
    let ends = (Some(at(SERVER)), Some(at(CLIENT)));
    engine.record(&Record {
        reason: Some(3),
        tid: 8,
        local: ends.0,
        remote: ends.1,
        ..record(Kind::ResetSent)
    });
    assert_eq!(only(&mut engine).cause, Cause::UnreadData);
}

#[test]
fn what_was_not_reset_has_moved_if_the_kernel_counted_it() {
    for (counted, told) in [(0, 0), (1, 1), (2, 2)] {
        let mut engine = engine();
        close(&mut engine, 0, &[CLIENT, "127.0.0.1:40001"]);
        let mut later = look(200, Vec::new());
        later.counters = Counters::of([("TcpExt", "TCPMigrateReqSuccess", counted)]);
        engine.look(later);
        let fates = engine.take();
        assert_eq!(fates.len(), told, "{fates:#?}");
        assert!(fates.iter().all(|f| f.cause == Cause::Migrated && f.client.is_some()));
    }
}

#[test]
fn an_ack_at_another_listener_was_half_open_at_the_exit_of_the_first() {
    let mut engine = engine();
    let ack = Record {
        reason: Some(4),
        socket: 0x12,
        state: LISTEN,
        inode: 12,
        local: Some(at(SERVER)),
        packet: Some(packet(Packet::ACK)),
        ..record(Kind::ResetSent)
    };
    let ends = Record { local: Some(at(CLIENT)), remote: Some(at(SERVER)), ..record(Kind::ResetReceived) };
    let (arrived, late) = (Record { state: 1, ..ends.clone() }, Record { state: 9, ..ends });
    let fin = Record { packet: Some(packet(Packet::ACK | Packet::FIN)), ..ack.clone() };
    let told = |records: &[&Record]| {
        let mut without = Engine::new(names());
        for record in records {
            without.record(record);
        }
        without.settle_arrived(u64::MAX);
        without.take().iter().map(|fate| fate.cause).collect::<Vec<_>>()
    };
    assert_eq!(told(&[&ack, &arrived]), [Cause::NoRequest]);
    assert_eq!(told(&[&arrived, &ack]), [Cause::NoRequest]);
    for ended in [&[&ack][..], &[&ack, &late], &[&late, &ack], &[&fin, &arrived]] {
        assert!(!told(ended).contains(&Cause::NoRequest), "the connection had ended");
    }
    close(&mut engine, 1, &[]);
    engine.record(&ack);
    let fate = only(&mut engine);
    assert_eq!((fate.cause, fate.listener.unwrap().inode), (Cause::HalfOpenAtExit, Some(11)));
    // There was one, so the next ACK has another cause.
    let from = at("10.0.0.1:40001");
    engine.record(&Record { packet: Some(Packet { from, ..packet(Packet::ACK) }), ..ack });
    assert_eq!(only(&mut engine).cause, Cause::NoRequest);
}

#[test]
fn a_cookie_is_told_once_whenever_it_is_counted() {
    let mut engine = engine();
    engine.settings.cookies = Some(true);
    engine.record(&Record {
        inode: 11,
        half_open: 128,
        queue_limit: 128,
        local: Some(at(SERVER)),
        packet: Some(packet(Packet::SYN)),
        ..record(Kind::SynAtListener)
    });
    let mut told = engine.take().len();
    for (time, counted) in [(20, 0), (30, 1), (40, 3)] {
        let mut later = look(time, vec![listener(11, "0.0.0.0:80")]);
        later.counters = Counters::of([("TcpExt", "SyncookiesSent", counted)]);
        engine.look(later);
        let fates = engine.take();
        assert!(fates.iter().all(|fate| fate.cause == Cause::SynCookies));
        told += fates.iter().map(|fate| fate.count as usize).sum::<usize>();
    }
    assert_eq!(told, 3);
}

#[test]
fn a_look_that_is_overtaken_counts_for_nothing() {
    let mut engine = engine();
    let mut newer = look(20, vec![listener(12, "0.0.0.0:80")]);
    newer.counters = Counters::of([("TcpExt", "SyncookiesSent", 1)]);
    engine.look(newer);
    engine.take();
    engine.look(look(10, vec![listener(11, "0.0.0.0:80")]));
    assert!(engine.listener(12).is_some() && engine.listener(11).is_none());
    assert_eq!(engine.take(), []);
}

#[test]
fn before_6_10_the_drop_of_the_ack_tells_the_same() {
    let mut engine = engine();
    let ack = Record { reason: Some(1), packet: Some(packet(Packet::ACK)), ..record(Kind::Dropped) };
    engine.record(&ack);
    assert_eq!(engine.take(), []);
    close(&mut engine, 1, &[]);
    let from = at("127.0.0.1:40001");
    engine.record(&Record { packet: Some(Packet { from, ..packet(Packet::ACK) }), ..ack });
    let fate = only(&mut engine);
    assert_eq!((fate.cause, fate.phase, fate.client), (Cause::HalfOpenAtExit, Phase::HalfOpen, Some(from)));
}

#[test]
fn moving_failed_only_where_the_kernel_tried() {
    for (migrates, cause) in [(true, Cause::MigrationFailed), (false, Cause::ListenerClosed)] {
        let mut engine = engine();
        engine.record(&Record {
            inode: 11,
            socket: 0x11,
            local: Some(at(SERVER)),
            migrates,
            ..record(Kind::ListenerClosed)
        });
        let ends = Record { local: Some(at(SERVER)), remote: Some(at(CLIENT)), ..record(Kind::ResetSent) };
        engine.record(&Record { kind: Kind::QueuedAtClose, other: 0x11, ..ends.clone() });
        engine.record(&Record { reason: Some(2), ..ends });
        assert_eq!(only(&mut engine).cause, cause);
    }
}

#[test]
fn of_a_group_the_listener_of_the_process_is_named() {
    let mut engine = engine();
    let worker = |pid| Worker { pid, command: format!("server {pid}"), ..Worker::default() };
    let of = |inode, pid| KnownListener { workers: vec![worker(pid)], ..listener(inode, "0.0.0.0:80") };
    engine.look(look(1, vec![of(11, 7), of(12, 8)]));
    let ends = (Some(at(SERVER)), Some(at(CLIENT)));
    engine.record(&Record {
        pid: 8,
        reason: Some(3),
        local: ends.0,
        remote: ends.1,
        ..record(Kind::ResetSent)
    });
    let fate = only(&mut engine);
    assert_eq!((fate.listener.unwrap().inode, fate.worker), (Some(12), Some(worker(8))));
}

#[test]
fn abort_on_overflow_needs_both_a_full_queue_and_the_setting() {
    for (queue, setting, cause) in
        [(129, true, Cause::AbortOnOverflow), (128, true, Cause::NoRequest), (129, false, Cause::NoRequest)]
    {
        let mut engine = engine();
        engine.settings.abort_on_overflow = Some(setting);
        engine.record(&Record {
            reason: Some(5),
            socket: 0x11,
            state: LISTEN,
            inode: 11,
            queue,
            queue_limit: 128,
            local: Some(at(SERVER)),
            packet: Some(Packet { from: at("10.0.0.1:40000"), ..packet(Packet::ACK) }),
            ..record(Kind::ResetSent)
        });
        assert_eq!(only(&mut engine).cause, cause);
    }
}

#[test]
fn who_closes_first_is_told_whichever_record_comes_first() {
    let mut engine = engine();
    let arrived = Record { local: Some(at(CLIENT)), remote: Some(at(SERVER)), ..record(Kind::ResetReceived) };
    let sent = Record {
        reason: Some(3),
        local: Some(at(SERVER)),
        remote: Some(at(CLIENT)),
        ..record(Kind::ResetSent)
    };
    engine.record(&arrived);
    engine.record(&sent);
    engine.settle_arrived(u64::MAX);
    let fate = only(&mut engine);
    assert_eq!((fate.cause, fate.client), (Cause::UnreadData, Some(at(CLIENT))));
}

#[test]
fn drops_are_told_once_by_record_or_by_number() {
    let mut engine = engine();
    let full = |drops| vec![KnownListener { queue: 129, drops, ..listener(11, "0.0.0.0:80") }];
    engine.look(look(1, full(0)));
    engine.record(&Record {
        inode: 11,
        queue: 129,
        queue_limit: 128,
        local: Some(at(SERVER)),
        packet: Some(packet(Packet::SYN)),
        ..record(Kind::SynAtListener)
    });
    engine.look(look(2, full(3)));
    engine.look(look(3, full(3)));
    engine.look(look(4, full(3)));
    let fates = engine.take();
    let told: Vec<(u64, bool)> = fates.iter().map(|f| (f.count, f.client.is_some())).collect();
    assert_eq!(told, [(1, true), (2, false)]);
    assert!(fates.iter().all(|f| f.cause == Cause::AcceptQueueFull));
}

#[test]
fn without_a_request_queue_cookies_or_nothing() {
    for (cookies, cause) in [(Some(true), Cause::SynCookies), (Some(false), Cause::SynQueueFull)] {
        let mut engine = engine();
        engine.settings.cookies = cookies;
        engine.record(&Record {
            inode: 11,
            half_open: 128,
            queue_limit: 128,
            local: Some(at(SERVER)),
            packet: Some(packet(Packet::SYN)),
            ..record(Kind::SynAtListener)
        });
        assert_eq!(only(&mut engine).cause, cause);
    }
}

proptest! {
    /// Whatever the kernel tells, in whatever order: no panic, and bounded memory.
    #[test]
    fn anything(steps in proptest::collection::vec((0u8..14, any::<u8>(), any::<u16>(), any::<u32>()), 0..200)) {
        let mut engine = engine();
        for (kind, small, flags, big) in steps {
            let kinds = [Kind::ResetSent, Kind::ResetReceived, Kind::ListenerClosed, Kind::ListenerOpened,
                Kind::QueuedAtClose, Kind::Dropped, Kind::ConnectFailed, Kind::SynAtListener,
                Kind::DatagramDropped, Kind::FlowMoved, Kind::Packet, Kind::Unknown];
            let Some(kind) = kinds.get(usize::from(kind)) else {
                engine.look(look(u64::from(big), vec![listener(u64::from(small % 4), "0.0.0.0:80")]));
                continue;
            };
            let bit = |n: u8| small >> n & 1 == 1;
            engine.record(&Record {
                time: u64::from(big),
                reason: bit(0).then_some(i32::from(flags % 8)),
                socket: u64::from(small % 3),
                inode: u64::from(small % 4),
                state: (flags % 13) as u8,
                local: bit(1).then(|| at(SERVER)),
                remote: bit(2).then(|| at(CLIENT)),
                packet: bit(3).then(|| packet(flags)),
                queue: big,
                other: u64::from(small % 3),
                ..record(*kind)
            });
        }
        engine.finish(look(u64::MAX, Vec::new()));
        for fate in engine.take() {
            prop_assert!(fate.count > 0);
            prop_assert!(!fate.explanation.is_empty());
        }
    }
}
