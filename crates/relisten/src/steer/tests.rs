use super::interpret::{Packet, check, run};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An even sequence of numbers that is the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }
}

fn packet(from: IpAddr, ports: (u16, u16)) -> Packet {
    let ports = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    match from {
        IpAddr::V4(from) => {
            // With options, so that the ports are not where they would be without.
            let mut network = vec![0x46, 0, 0, 60, 0, 0, 0x40, 0, 64, 6, 0, 0];
            network.extend(from.octets());
            network.extend([10, 0, 0, 1]);
            network.extend([1, 1, 1, 0]);
            network.extend(ports);
            Packet { network, ethertype: 0x0800, ..Packet::default() }
        }
        IpAddr::V6(from) => {
            let mut network = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
            network.extend(from.octets());
            network.extend(Ipv6Addr::LOCALHOST.octets());
            network.extend(ports);
            Packet { network, ethertype: 0x86dd, ..Packet::default() }
        }
    }
}

fn targets(count: usize) -> Vec<Target> {
    (0..count).map(|i| Target { index: i, id: i as u32, weight: 1 }).collect()
}

/// Clients as load tests have them: few addresses, ports one after the other.
fn tame_clients(v6: bool) -> impl Iterator<Item = Packet> {
    (0..60_000_u32).map(move |i| {
        let port = 1024 + i as u16 / 4;
        let from = if v6 {
            IpAddr::V6(Ipv6Addr::from(0xfd00 << 112 | u128::from(i % 4)))
        } else {
            IpAddr::V4(Ipv4Addr::from(0x7f00_0001 + i % 4))
        };
        packet(from, (port, 8080))
    })
}

fn spread(program: &[Instruction], packets: impl Iterator<Item = Packet>) -> BTreeMap<u32, f64> {
    let mut counts = BTreeMap::new();
    for packet in packets {
        *counts.entry(run(program, &packet).0).or_insert(0.0) += 1.0;
    }
    counts
}

/// Within five deviations of what an even draw gives.
fn assert_shares(counts: &BTreeMap<u32, f64>, shares: &BTreeMap<u32, f64>, what: &str) {
    let all: f64 = counts.values().sum();
    let total: f64 = shares.values().sum();
    for (index, share) in shares {
        let expected = all * share / total;
        let deviation = (expected * (1.0 - share / total)).sqrt();
        let count = counts.get(index).copied().unwrap_or(0.0);
        assert!((count - expected).abs() <= 5.0 * deviation, "{what}: {index} got {count}, not {expected}");
    }
    assert!(counts.keys().all(|i| shares.contains_key(i)), "{what}: somebody else got something");
}

fn even(count: usize) -> BTreeMap<u32, f64> {
    (0..count as u32).map(|i| (i, 1.0)).collect()
}

#[test]
fn hash_is_even_for_neighbouring_ports() {
    for count in [2, 3, 7, 64, 256, MAX_TARGETS] {
        let program = program(Policy::Hash, count, &targets(count)).unwrap();
        check(&program);
        for v6 in [false, true] {
            assert_shares(&spread(&program, tame_clients(v6)), &even(count), &format!("{count}, IPv6 {v6}"));
        }
    }
}

#[test]
fn random_is_even() {
    let program = program(Policy::Random, 256, &targets(256)).unwrap();
    check(&program);
    let mut numbers = Numbers(7);
    let packets = (0..100_000).map(|_| Packet { random: numbers.next(), ..Packet::default() });
    assert_shares(&spread(&program, packets), &even(256), "random");
}

#[test]
fn weights_are_kept() {
    for count in [2, 5, 256] {
        let mut targets = targets(count);
        let mut shares = BTreeMap::new();
        for (i, target) in targets.iter_mut().enumerate() {
            target.weight = [1, 5, 100, 94][i % 4];
            shares.insert(i as u32, f64::from(target.weight));
        }
        let program = program(Policy::Weighted, count, &targets).unwrap();
        check(&program);
        assert_shares(&spread(&program, tame_clients(false)), &shares, "weighted");
    }
}

#[test]
fn the_largest_weights_do_not_overflow() {
    let mut targets = targets(MAX_TARGETS);
    for target in &mut targets {
        target.weight = u32::MAX;
    }
    let program = program(Policy::Weighted, MAX_TARGETS, &targets).unwrap();
    check(&program);
    assert_shares(&spread(&program, tame_clients(false)), &even(MAX_TARGETS), "weighted");
}

#[test]
fn cpus_go_round() {
    let program = program(Policy::Cpu, 3, &targets(3)).unwrap();
    check(&program);
    for cpu in 0..12 {
        assert_eq!(run(&program, &Packet { cpu, ..Packet::default() }).0, cpu % 3);
    }
}

#[test]
fn clients_are_spread_and_stay() {
    for (count, v6) in [(2, false), (5, true), (64, false), (256, true), (MAX_TARGETS, false)] {
        let program = program(Policy::ClientIp, count, &targets(count)).unwrap();
        check(&program);
        let clients = (0..40_000_u32).map(|i| {
            let from = if v6 {
                IpAddr::V6(Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(i)))
            } else {
                IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + i))
            };
            packet(from, (i as u16, 80))
        });
        assert_shares(&spread(&program, clients), &even(count), &format!("{count} clients"));
    }
}

#[test]
fn what_cannot_be_said_is_an_error() {
    let all = targets(3);
    let none = [Target { index: 0, id: 0, weight: 0 }];
    assert_eq!(program(Policy::Hash, 3, &[]), Err(ProgramError::NoTarget));
    assert_eq!(program(Policy::Hash, 3, &none), Err(ProgramError::NoTarget));
    assert_eq!(program(Policy::Hash, 2, &all), Err(ProgramError::OutOfRange { index: 2, members: 2 }));
    assert_eq!(program(Policy::Hash, 999, &targets(513)), Err(ProgramError::TooMany(513)));
}

#[test]
fn names_of_policies() {
    for policy in Policy::ALL {
        assert_eq!(policy.to_string().parse(), Ok(policy));
        assert_eq!(serde_json::to_string(&policy).unwrap(), format!("\"{policy}\""));
        assert_eq!(serde_json::from_str::<Policy>(&format!("\"{policy}\"")).unwrap(), policy);
        assert_eq!(policy.effective_cbpf().for_cbpf(), ForClassicBpf::Possible);
    }
    assert!("fair".parse::<Policy>().unwrap_err().to_string().contains("least-connections"));
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|a| IpAddr::V4(a.into())),
        any::<u128>().prop_map(|a| IpAddr::V6(a.into())),
    ]
}

fn any_targets() -> impl Strategy<Value = Vec<Target>> {
    let target = (0_usize..600, 0_u32..5);
    proptest::collection::btree_map(any::<u32>(), target, 1..80).prop_map(|targets| {
        let mut seen = std::collections::BTreeSet::new();
        let all = targets.into_iter().map(|(id, (index, weight))| Target { index, id, weight });
        all.filter(|t| seen.insert(t.index)).collect()
    })
}

proptest! {
    #[test]
    fn only_targets_are_chosen(
        targets in any_targets(),
        policy in proptest::sample::select(&Policy::ALL[..]),
        from in any_address(),
        ports in any::<(u16, u16)>(),
        cpu in any::<u32>(),
        random in any::<u32>(),
    ) {
        let live: Vec<u32> = targets.iter().filter(|t| t.weight > 0).map(|t| t.index as u32).collect();
        match program(policy, 600, &targets) {
            Ok(program) => {
                check(&program);
                let (index, _) = run(&program, &Packet { cpu, random, ..packet(from, ports) });
                prop_assert!(live.contains(&index));
            }
            Err(error) => prop_assert!(live.is_empty() && error == ProgramError::NoTarget),
        }
    }

    /// The choice follows the id, whatever the group's order.
    #[test]
    fn order_does_not_matter(
        count in 2_usize..40,
        policy in proptest::sample::select(&[Policy::Hash, Policy::Weighted, Policy::Cpu, Policy::ClientIp][..]),
        from in any_address(),
        ports in any::<(u16, u16)>(),
        cpu in 0_u32..1024,
        turn in 0_usize..40,
    ) {
        let before = targets(count);
        let mut after = before.clone();
        after.rotate_left(turn % count);
        for (index, target) in after.iter_mut().enumerate() {
            target.index = index;
        }
        let packet = Packet { cpu, ..packet(from, ports) };
        let id = |targets: &[Target]| {
            let index = run(&program(policy, count, targets).unwrap(), &packet).0;
            targets.iter().find(|t| t.index == index as usize).unwrap().id
        };
        prop_assert_eq!(id(&before), id(&after));
    }

    /// What Rust says of a client is what the program does with its packets.
    #[test]
    fn clients_are_known_without_the_program(count in 1_usize..60, from in any_address()) {
        let targets = targets(count);
        let chosen = run(&program(Policy::ClientIp, count, &targets).unwrap(), &packet(from, (1, 2))).0;
        let client = client_hash(from);
        let numbers: Vec<u32> = targets.iter().map(|t| Draw::of(t.id).number(client)).collect();
        let highest = numbers.iter().max().unwrap();
        prop_assert_eq!(numbers.iter().position(|n| n == highest), Some(chosen as usize));
    }

    /// A target that goes moves only its own clients.
    #[test]
    fn clients_stay_with_their_target(
        ids in proptest::collection::btree_set(any::<u32>(), 2..60),
        gone in any::<proptest::sample::Index>(),
        from in any_address(),
    ) {
        let all: Vec<Target> =
            ids.iter().enumerate().map(|(index, id)| Target { index, id: *id, weight: 1 }).collect();
        let gone = gone.index(all.len());
        let rest: Vec<Target> = all.iter().copied().filter(|t| t.index != gone).collect();
        let choice = |targets: &[Target]| {
            run(&program(Policy::ClientIp, all.len(), targets).unwrap(), &packet(from, (1, 2))).0 as usize
        };
        let before = choice(&all);
        let after = choice(&rest);
        prop_assert!(before == after || before == gone);
    }
}
