//! `src/abi.rs` and the object agree on every structure: names, places, sizes. Read from the object's own type
//! information (BTF). Needs no privilege.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use object::{Object, ObjectSection};
use relisten_bpf::{Avoid, OBJECT, Policy, abi};
use std::collections::HashMap;

/// The little of BTF that is needed
/// (<https://www.kernel.org/doc/html/v6.12/bpf/btf.html>).
struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Where each type begins; type 0 is void.
    types: Vec<usize>,
}

const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const ENUM: u32 = 6;

impl Btf {
    fn read() -> Self {
        let file = object::File::parse(OBJECT).unwrap();
        let data = file.section_by_name(".BTF").unwrap().data().unwrap().to_vec();
        let mut btf = Self { data, strings: 0, types: vec![0] };
        assert_eq!(btf.u32(0) & 0xffff, 0xeb9f, "BTF's magic");
        let header = btf.u32(4) as usize;
        let (types, length) = (header + btf.u32(8) as usize, btf.u32(12) as usize);
        btf.strings = header + btf.u32(16) as usize;
        let mut at = types;
        while at < types + length {
            btf.types.push(at);
            at += 12 + btf.tail(at);
        }
        btf
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.data[at..at + 4].try_into().unwrap())
    }

    fn string(&self, offset: u32) -> &str {
        let rest = &self.data[self.strings + offset as usize..];
        std::str::from_utf8(&rest[..rest.iter().position(|b| *b == 0).unwrap()]).unwrap()
    }

    fn kind(&self, at: usize) -> u32 {
        (self.u32(at + 4) >> 24) & 0x1f
    }

    /// Bytes behind the 12 that all types have.
    fn tail(&self, at: usize) -> usize {
        let count = (self.u32(at + 4) & 0xffff) as usize;
        match self.kind(at) {
            INT | 14 | 17 => 4,
            ARRAY => 12,
            STRUCT | 5 | 15 | 19 => count * 12,
            ENUM | 13 => count * 8,
            _ => 0,
        }
    }

    fn named(&self, kind: u32, name: &str) -> usize {
        let found =
            self.types[1..].iter().find(|at| self.kind(**at) == kind && self.string(self.u32(**at)) == name);
        *found.unwrap_or_else(|| panic!("{name} is not in the object"))
    }

    /// Bytes of a type.
    fn size(&self, id: u32) -> usize {
        let at = self.types[id as usize];
        match self.kind(at) {
            INT | STRUCT | ENUM => self.u32(at + 8) as usize,
            ARRAY => self.size(self.u32(at + 12)) * self.u32(at + 20) as usize,
            // Typedef, volatile, const.
            8..=10 => self.size(self.u32(at + 8)),
            other => panic!("kind {other}"),
        }
    }

    /// Name, offset and size of each member, and the size of the whole.
    fn structure(&self, name: &str) -> (Vec<(String, usize, usize)>, usize) {
        let at = self.named(STRUCT, name);
        let count = (self.u32(at + 4) & 0xffff) as usize;
        let member = |i: usize| {
            let at = at + 12 + i * 12;
            let name = self.string(self.u32(at)).to_owned();
            (name, self.u32(at + 8) as usize / 8, self.size(self.u32(at + 4)))
        };
        ((0..count).map(member).collect(), self.u32(at + 8) as usize)
    }

    fn values(&self, name: &str) -> HashMap<String, u32> {
        let at = self.named(ENUM, name);
        let count = (self.u32(at + 4) & 0xffff) as usize;
        let value = |i: usize| (self.string(self.u32(at + 12 + i * 8)).to_owned(), self.u32(at + 16 + i * 8));
        (0..count).map(value).collect()
    }
}

fn size_of_field<S, F>(_: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! check {
    ($btf:expr, $name:literal, $type:ty, $($field:ident),+) => {{
        let expected = vec![$((
            stringify!($field).to_owned(),
            std::mem::offset_of!($type, $field),
            size_of_field::<$type, _>(|s| &s.$field),
        )),+];
        assert_eq!($btf.structure($name), (expected, size_of::<$type>()), "{}", $name);
    }};
}

#[test]
fn structures_are_those_of_the_object() {
    let btf = Btf::read();
    check!(
        btf,
        "relisten_listener",
        abi::ListenerEntry,
        state,
        open,
        chosen,
        settled,
        begun,
        label,
        reserved
    );
    check!(
        btf,
        "relisten_counters",
        abi::CountersEntry,
        incarnation,
        reserved0,
        by_fallback,
        by_last_resort,
        established,
        moved_in,
        moved_out,
        reserved1
    );
    check!(btf, "relisten_head", abi::HeadEntry, policy, live, members, total);
    check!(btf, "relisten_draw", abi::DrawEntry, seed, factor);
    check!(btf, "relisten_table", abi::TableEntry, keys, below, draws, cpus);
    check!(
        btf,
        "relisten_group",
        abi::GroupEntry,
        active,
        epoch_ticks,
        heads,
        epoch,
        excepted,
        reserved0,
        tended_until,
        turn,
        by_kernel,
        acks,
        moved_requests,
        move_failed,
        move_uncounted,
        by_exception,
        reserved2,
        tables,
        exceptions
    );
    check!(btf, "relisten_exception", abi::ExceptionEntry, port, key);
    check!(btf, "relisten_instance", abi::InstanceEntry, version, counting, moved, reserved);
    check!(btf, "relisten_load", abi::LoadEntry, load, beat);
    check!(btf, "relisten_owner", abi::OwnerEntry, key, incarnation);
    check!(btf, "relisten_moved", abi::MovedEntry, cookie, owner);
}

#[test]
fn numbers_are_those_of_the_object() {
    let btf = Btf::read();
    let policies = btf.values("relisten_policy");
    assert_eq!(policies.len(), Policy::ALL.len());
    let known = [
        ("HASH", Policy::Hash),
        ("RANDOM", Policy::Random),
        ("ROUND_ROBIN", Policy::RoundRobin),
        ("LEAST_CONNECTIONS", Policy::LeastConnections),
        ("CPU", Policy::Cpu),
        ("CLIENT_IP", Policy::ClientIp),
        ("WEIGHTED", Policy::Weighted),
    ];
    for (name, policy) in known {
        assert_eq!(policies[&format!("RELISTEN_{name}")], policy as u32, "{name}");
    }
    let reasons = btf.values("relisten_avoid");
    let known = [
        ("OUT", Avoid::OUT),
        ("DRAINING", Avoid::DRAINING),
        ("SUSPECTED", Avoid::SUSPECTED),
        ("HUNG", Avoid::HUNG),
        ("FULL", Avoid::FULL),
    ];
    // And one that is no reason.
    assert_eq!(reasons.len(), known.len() + 1);
    assert_eq!(reasons["RELISTEN_PUBLISHES"], 1 << 30);
    for (name, reason) in known {
        assert_eq!(reasons[&format!("RELISTEN_{name}")], reason.bits(), "{name}");
    }
    let limits = btf.values("relisten_limit");
    let known = [
        ("VERSION", abi::VERSION as usize),
        ("GROUPS", abi::GROUPS),
        ("LISTENERS", abi::LISTENERS),
        ("LIVE", abi::LIVE),
        ("MEMBERS", abi::MEMBERS),
        ("CPUS", abi::CPUS),
        ("MOVED", abi::MOVED),
        ("MOVED_PLACES", abi::MOVED_PLACES as usize),
        ("EXCEPTIONS", abi::EXCEPTIONS),
    ];
    assert_eq!(limits.len(), known.len());
    for (name, limit) in known {
        assert_eq!(limits[&format!("RELISTEN_{name}")] as usize, limit, "{name}");
    }
}
