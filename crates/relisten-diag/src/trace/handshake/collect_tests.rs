use super::*;
use crate::trace::{KnownListener, Look, Names, Symbols, Transport};
use relisten_bpf::trace::{ByHash, Program, Request};

const CLIENT: &str = "127.0.0.1:40000";
const SERVER: &str = "127.0.0.1:80";
const SYN: u16 = Packet::SYN;
const ACK: u16 = Packet::ACK;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn engine() -> Engine {
    let reasons = "__print_symbolic(REC->reason, { 4, \"TCP_FLAGS\" })";
    let mut engine = Engine::new(Names::from_formats(reasons, ""));
    engine.set_symbols(Symbols::parse("ffffffff81000100 T tcp_v4_rcv\n"));
    let listener = |inode| KnownListener {
        inode,
        cookie: 0,
        transport: Transport::Tcp,
        address: at(SERVER),
        queue: 0,
        limit: 128,
        drops: 0,
        workers: vec![Worker { pid: inode as u32 * 10, command: "server".into(), ..Worker::default() }],
        foreign: false,
    };
    engine.look(Look { listeners: vec![listener(1), listener(2)], ..Look::default() });
    engine
}

fn packet(way: Way, flags: u16, seq: u32) -> Packet {
    let (from, to) = if way == Way::In { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    Packet {
        from: at(from),
        to: at(to),
        protocol: 6,
        seq,
        ack: 0,
        flags: flags | 0x5000,
        window: 1,
        checksum: 2,
        urgent: 0,
        length: 40,
        ttl: 64,
        tos: 0,
        id: 7,
        way,
    }
}

fn seen(time: u64, inode: u64, packet: Packet) -> Sighting {
    let record = Record {
        time,
        socket: 0x1000 + inode,
        inode,
        state: LISTEN,
        group_size: 2,
        group_index: (inode as u16).checked_sub(1),
        packet: Some(packet),
        ..Record::default()
    };
    Sighting { what: What::Seen, score: 2, matches: Some(2), record, ..Sighting::default() }
}

fn take_all(sightings: &[Sighting]) -> Vec<Handshake> {
    let (engine, mut handshakes) = (engine(), Handshakes::default());
    for sighting in sightings {
        handshakes.take_in(sighting, &engine);
    }
    handshakes.finish(&engine)
}

/// The classical fault: the SYN is hashed to one listener, the ACK to another, which answers with a reset.
#[test]
fn a_syn_and_an_ack_at_different_listeners_stand_side_by_side() {
    let ack = packet(Way::In, ACK, 2);
    let mut reset = seen(4, 2, ack);
    reset.what = What::Reset;
    reset.record.reason = Some(4);
    reset.record.stack = vec![0xffff_ffff_8100_0110];
    let told = take_all(&[
        seen(1, 1, packet(Way::In, SYN, 1)),
        Sighting { hash: Some(99), ..seen(2, 1, packet(Way::Out, SYN | ACK, 50)) },
        seen(3, 2, ack),
        reset,
        seen(5, 2, packet(Way::Out, Packet::RST, 51)),
    ]);
    let [one] = &told[..] else { panic!("{told:#?}") };
    assert_eq!((one.client, one.server, one.end, one.hash), (at(CLIENT), at(SERVER), End::Reset, Some(99)));
    assert_eq!((&one.listeners[..], one.split), (&[1, 2][..], true));
    let flags: Vec<&str> = one.packets.iter().map(|packet| packet.header.flags.as_str()).collect();
    assert_eq!(flags, ["SYN", "SYN+ACK", "ACK", "RST"]);
    let owners: Vec<_> =
        one.packets.iter().map(|p| p.socket.as_ref().unwrap().owner.as_ref().unwrap().pid).collect();
    assert_eq!(owners, [10, 10, 20, 20]);
    let why = one.reset.as_ref().unwrap();
    assert_eq!(
        (why.reason.as_deref(), &why.stack[..]),
        (Some("TCP_FLAGS"), &["tcp_v4_rcv+0x10".to_owned()][..])
    );
}

#[test]
fn the_verdict_of_a_program_beside_the_hash() {
    let picked = |inode: u64| Some(ByHash { socket: 0x1000 + inode, inode, index: Some(0) });
    let program = Some(Program { kind: REUSEPORT_PROGRAM, id: Some(5), name: "steer".into() });
    let verdict = |inode| {
        let syn = seen(1, 2, packet(Way::In, SYN, 1));
        let told = take_all(&[Sighting { by_hash: picked(inode), program: program.clone(), ..syn }]);
        told[0].packets[0].lookup.clone().unwrap().program.unwrap().verdict
    };
    assert_eq!(verdict(1).as_deref(), Some("other"));
    assert_eq!(verdict(2).as_deref(), Some("same"));
}

#[test]
fn stacks_and_requests_find_their_packet() {
    let with_stack = |what, time, packet| {
        let mut sighting = seen(time, 1, packet);
        sighting.record.stack = vec![0xffff_ffff_8100_0100];
        Sighting { what, ..sighting }
    };
    let (syn, ack) = (packet(Way::In, SYN, 1), packet(Way::In, ACK, 2));
    let mut done = with_stack(What::Established, 5, ack);
    done.record.packet = None;
    done.record.local = Some(at(SERVER));
    done.record.remote = Some(at(CLIENT));
    let request = Some(Request { address: 0x77, references: 3 });
    let told = take_all(&[
        seen(1, 1, syn),
        with_stack(What::Handled, 2, syn),
        Sighting { request, ..seen(4, 1, ack) },
        done,
    ]);
    let [one] = &told[..] else { panic!("{told:#?}") };
    assert_eq!((one.end, one.split), (End::Established, false));
    assert!(one.packets.iter().all(|packet| packet.stack == ["tcp_v4_rcv+0x0"]), "{one:#?}");
    let expected = RequestSeen { address: "0x77".into(), references: 3 };
    assert_eq!(one.packets[1].request, Some(expected));
}

/// A listener that was gone before anybody looked is that of who opened it.
#[test]
fn who_opened_it() {
    let (engine, mut handshakes) = (engine(), Handshakes::default());
    for inode in [2, 3] {
        handshakes.opened(&Record { inode, pid: 77, comm: "short".into(), ..Record::default() });
        handshakes.take_in(&seen(inode, inode, packet(Way::In, SYN, inode as u32)), &engine);
    }
    let told = handshakes.finish(&engine);
    let owner = |at: usize| told[at].packets[0].socket.as_ref().unwrap().owner.as_ref().unwrap().pid;
    assert_eq!((owner(0), owner(1)), (20, 77), "what a look found comes first");
}

/// A SYN for which there is no socket is seen only as it is answered.
#[test]
fn a_refused_syn() {
    let mut reset = seen(1, 0, packet(Way::In, SYN, 1));
    reset.what = What::Reset;
    reset.record.socket = 0;
    reset.record.group_index = None;
    let told = take_all(&[reset]);
    assert_eq!((told[0].end, &told[0].listeners[..]), (End::Reset, &[][..]));
    assert_eq!((told[0].packets[0].socket.clone(), told[0].packets[0].lookup.clone()), (None, None));
}

#[test]
fn the_same_syn_again_and_another_one() {
    let (engine, mut handshakes) = (engine(), Handshakes::default());
    for (time, seq) in [(1, 1), (2, 1), (3, 9)] {
        handshakes.take_in(&seen(time, 1, packet(Way::In, SYN, seq)), &engine);
    }
    let told = handshakes.take(4, &engine);
    assert_eq!((told.len(), told[0].packets.len()), (1, 2), "the first is over when another begins");
    assert_eq!(handshakes.take(3 + GIVEN_UP, &engine), []);
    assert_eq!(handshakes.take(4 + GIVEN_UP, &engine).len(), 1);
}

#[test]
fn it_stays_bounded() {
    let (engine, mut handshakes) = (engine(), Handshakes::default());
    let mut told = 0;
    for number in 0..2 * LIMIT {
        let mut syn = packet(Way::In, SYN, 1);
        syn.from = SocketAddr::new(std::net::Ipv4Addr::from(number as u32).into(), 1);
        handshakes.take_in(&seen(1, 1, syn), &engine);
        assert!(handshakes.open.len() <= LIMIT);
        told += handshakes.take(1, &engine).len();
    }
    assert_eq!(told + handshakes.finish(&engine).len(), 2 * LIMIT);
    let many: Vec<Sighting> =
        (0..PACKETS as u64 + 3).map(|time| seen(time, 1, packet(Way::In, SYN, 1))).collect();
    assert_eq!(take_all(&many)[0].more, 3);
}
