//! Who gets the connections, for each policy, against what it promises.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Member, Scene, V4, V6, until};
use relisten_bpf::{Avoid, Choice, GroupCounts, Policy, Table};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::net::IpAddr;

/// Each connection is counted once, where it was accepted.
fn check_funnel(scene: &Scene) {
    for member in &scene.members {
        let counts = member.place.counts();
        assert_eq!(counts.new_connections(), member.total, "{counts:?}");
        assert_eq!((counts.by_policy, counts.established), (member.total, member.total), "{counts:?}");
    }
    assert_eq!(scene.group().counts(), GroupCounts::default());
}

fn even(address: &str, policy: Policy, tolerance: f64) {
    let mut scene = Scene::new(address, 4, policy);
    let got = scene.connect_and_reset(4000, &[]);
    check_funnel(&scene);
    for n in got {
        assert!((n as f64 - 1000.0).abs() <= tolerance, "{policy:?} on {address}: {n}");
    }
}

#[test]
fn hash_and_random_are_even_on_average() {
    // The standard deviation is 27.
    for address in [V4, V6] {
        even(address, Policy::Hash, 140.0);
        even(address, Policy::Random, 140.0);
    }
}

#[test]
fn round_robin_is_even() {
    even(V4, Policy::RoundRobin, 0.0);
    even(V6, Policy::RoundRobin, 0.0);
}

/// Weights of 5, 25 and 70 % of 20,000, each within five standard deviations (0.8 % of all for 5 %); then the other
/// way round while running.
fn weights(address: &str) {
    let mut scene = Scene::new(address, 3, Policy::Weighted);
    for weights in [[5, 25, 70], [70, 25, 5]] {
        scene.weights = weights.to_vec();
        scene.publish();
        let got = scene.connect_and_reset(20_000, &[]);
        for (n, weight) in got.into_iter().zip(weights) {
            let share = f64::from(weight) / 100.0;
            let (expected, deviation) = (20_000.0 * share, (20_000.0 * share * (1.0 - share)).sqrt());
            assert!((n as f64 - expected).abs() <= 5.0 * deviation, "{address}: {n}, not {expected}");
        }
    }
    check_funnel(&scene);
}

#[test]
fn weights_are_kept_over_ipv4() {
    weights(V4);
}

#[test]
fn weights_are_kept_over_ipv6() {
    weights(V6);
}

#[test]
fn weight_0_takes_out_with_any_policy() {
    for policy in Policy::ALL {
        let mut scene = Scene::new(V4, 3, policy);
        scene.weights[1] = 0;
        scene.publish();
        let got = scene.connect_and_reset(300, &[]);
        assert_eq!(got[1], 0, "{policy:?}: {got:?}");
        assert_eq!(got.iter().sum::<u64>(), 300);
    }
}

/// Connections stay open; listeners of a group of this size differ by at most `spread` at the end.
fn least_connections(address: &str, members: usize, spread: u64) {
    let mut scene = Scene::new(address, members, Policy::LeastConnections);
    // One has more to begin with.
    scene.policy = Policy::Hash;
    for m in 1..members {
        scene.members[m].place.add(Avoid::OUT);
    }
    let mut clients: Vec<_> = (0..20).map(|_| scene.client(None)).collect();
    for m in 1..members {
        scene.members[m].place.remove(Avoid::OUT);
    }
    assert_eq!(scene.members[0].place.counts().open, 20);
    clients.extend((0..50 * members - 20).map(|_| scene.client(None)));
    let open: Vec<u64> = scene.members.iter().map(|m| m.place.counts().open).collect();
    assert_eq!(open.iter().sum::<u64>(), 50 * members as u64);
    let (least, most) = (open.iter().min().unwrap(), open.iter().max().unwrap());
    assert!(most - least <= spread, "{open:?}");
}

#[test]
fn least_connections_levels_out() {
    least_connections(V4, 4, 1);
    least_connections(V6, 8, 1);
    // Two choices.
    least_connections(V4, 12, 8);
}

#[test]
fn a_burst_of_half_open_requests_is_spread() {
    // With TCP_DEFER_ACCEPT nothing is open until data has come, so only what is expected can tell.
    let scene = Scene::new(V4, 4, Policy::LeastConnections);
    for member in &scene.members {
        use std::os::fd::AsFd;
        relisten_sys::sockopt::set_defer_accept(member.socket.as_fd(), 30).unwrap();
    }
    let clients: Vec<_> = (0..100).map(|_| scene.client(None)).collect();
    let counts: Vec<_> = scene.members.iter().map(|m| m.place.counts()).collect();
    assert!(counts.iter().all(|c| c.by_policy == 25 && c.open == 0), "{counts:?}");
    for client in &clients {
        client.send(b"x").unwrap();
    }
    until("all to be open", || scene.members.iter().all(|m| m.place.counts().open == 25));
}

#[test]
fn published_load_counts_instead() {
    let mut scene = Scene::new(V4, 3, Policy::LeastConnections);
    for (member, load) in scene.members.iter().zip([7, 3, 5]) {
        member.place.publish_load(load, 1);
        member.place.set_publishes(true);
    }
    // What is expected counts too, for up to a second.
    assert_eq!(scene.connect_and_reset(2, &[]), [0, 2, 0]);
    scene.members[0].place.publish_load(0, 2);
    assert_eq!(scene.connect_and_reset(2, &[]), [2, 0, 0]);
    assert_eq!(scene.members[0].place.beat(), 2);
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).unwrap();
}

/// Over loopback the CPU that sends handles what is received as well.
#[test]
fn cpu_leads_to_its_own_listener() {
    let mut scene = Scene::new(V4, 3, Policy::Cpu);
    let mut table = common::table(Policy::Cpu, &scene.members, &[1, 1, 1]);
    table.cpus = vec![(0, scene.members[2].place.key()), (1, scene.members[0].place.key())];
    scene.group.as_mut().unwrap().publish(&table).unwrap();
    let mut measured = [0; 2];
    for (cpu, member) in [(0, 2), (1, 0), (0, 2)] {
        pin(cpu);
        let got = scene.connect_and_reset(200, &[]);
        // A timer or a ksoftirqd of the other CPU may take one now and then.
        assert!(got[member] >= 190, "on CPU {cpu}: {got:?}");
        measured[cpu] += 1;
    }
    // Without an own listener: the number modulo how many there are.
    scene.policy = Policy::Cpu;
    scene.publish();
    pin(1);
    assert!(scene.connect_and_reset(200, &[])[1] >= 190);
}

/// The model: the number of the client's slot among ids 0 to n-1.
fn slot_of(client: IpAddr, ids: &[u32]) -> usize {
    fn scramble(mut x: u32) -> u32 {
        x ^= x >> 16;
        x = x.wrapping_mul(0x7feb_352d);
        x ^= x >> 15;
        x = x.wrapping_mul(0x846c_a68b);
        x ^ (x >> 16)
    }
    let bytes = match client {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let hash = bytes.chunks(4).fold(0x2545_f491_u32, |a, word| {
        let a = (a ^ u32::from_be_bytes(word.try_into().unwrap())).wrapping_mul(0x9e37_79b1);
        a ^ (a >> 15)
    });
    let client = scramble(hash);
    let number = |id: u32| {
        let seed = scramble(id.wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995);
        (client ^ seed).wrapping_mul(scramble(seed ^ 0x27d4_eb2f) | 1)
    };
    (0..ids.len()).rev().max_by_key(|i| number(ids[*i])).unwrap()
}

fn check_clients(scene: &mut Scene, sources: &[IpAddr], ids: &[u32]) {
    let choice = |(m, id): (&Member, &u32)| Choice { key: m.place.key(), id: *id, weight: 1 };
    let live = scene.members.iter().zip(ids).map(choice).collect();
    let table = Table { policy: Policy::ClientIp, live, ..Table::default() };
    scene.group.as_mut().unwrap().publish(&table).unwrap();
    for source in sources {
        let got = scene.connect_and_reset(1, &[*source]);
        assert_eq!(got.iter().position(|n| *n == 1).unwrap(), slot_of(*source, ids), "{source}, ids {ids:?}");
    }
}

#[test]
fn clients_stay_with_their_slot() {
    let mut scene = Scene::new(V4, 5, Policy::ClientIp);
    let sources: Vec<IpAddr> =
        (0..200u8).map(|i| IpAddr::from([127, i % 7, i.wrapping_mul(31), 1 + i % 250])).collect();
    check_clients(&mut scene, &sources, &[0, 1, 2, 3, 4]);
    // Other members, in another order.
    check_clients(&mut scene, &sources, &[7, 3, 1, 9, 4]);
    // One client is one slot, whatever its port.
    let got = scene.connect_and_reset(100, &sources[..1]);
    assert!(got.contains(&100), "{got:?}");
}

#[test]
fn clients_stay_with_their_slot_over_ipv6() {
    let addresses: Vec<String> = (1..60).map(|i| format!("fd00::{i:x}:{:x}", i * 7919 % 65521)).collect();
    let up: Vec<String> = addresses.iter().map(|a| format!("ip addr add {a}/128 dev lo nodad")).collect();
    if common::in_own_network("clients_stay_with_their_slot_over_ipv6", &up.join(" && ")) {
        let mut scene = Scene::new(&format!("[{}]:0", addresses[0]), 5, Policy::ClientIp);
        let sources: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        check_clients(&mut scene, &sources, &[0, 1, 2, 3, 4]);
    }
}

#[test]
fn few_clients_move_when_a_slot_goes() {
    let clients: Vec<IpAddr> =
        (0..20_000u32).map(|i| IpAddr::from(i.wrapping_mul(2_654_435_761).to_be_bytes())).collect();
    for n in [2u32, 4, 8, 16] {
        let all: Vec<u32> = (0..n).collect();
        for gone in 0..n {
            let left: Vec<u32> = all.iter().copied().filter(|id| *id != gone).collect();
            let moved =
                clients.iter().filter(|c| all[slot_of(**c, &all)] != left[slot_of(**c, &left)]).count();
            let share = moved as f64 / clients.len() as f64;
            assert!(
                share <= 1.0 / f64::from(n) + 0.01,
                "{share} of the clients moved when {gone} of {n} went"
            );
        }
    }
}

#[test]
fn a_dual_stack_listener_is_steered_too() {
    let mut scene = Scene::new("[::]:0", 3, Policy::RoundRobin);
    scene.address = std::net::SocketAddr::from(([127, 0, 0, 1], scene.address.port()));
    assert_eq!(scene.connect_and_reset(30, &[]), [10, 10, 10]);
    let choice = |m: &Member| Choice { key: m.place.key(), id: m.place.key().number(), weight: 1 };
    let live = scene.members.iter().map(choice).collect();
    let table = Table { policy: Policy::ClientIp, live, ..Table::default() };
    scene.group.as_mut().unwrap().publish(&table).unwrap();
    for i in 1..40u8 {
        let source = IpAddr::from([127, 0, i, 1]);
        let got = scene.connect_and_reset(1, &[source]);
        assert_eq!(got.iter().position(|n| *n == 1).unwrap(), slot_of(source, &[0, 1, 2]), "{source}");
    }
}
