//! What sockets take of the kernel's memory.

use std::collections::BTreeMap;
use std::fs;

/// Sizes of the kernel's objects for sockets, and how many there are, of the whole machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slab {
    caches: BTreeMap<String, Cache>,
}

/// One kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Bytes of one, rounded up as the allocator does.
    pub object_bytes: u64,
    /// How many there are, free ones included; `None` where only root may know.
    pub objects: Option<u64>,
}

/// Those that are looked at.
const NAMES: [&str; 6] =
    ["tw_sock_TCP", "request_sock_TCP", "TCP", "TCPv6", "tcp_bind_bucket", "tcp_bind2_bucket"];

impl Slab {
    /// Reads `/proc/slabinfo` (root only), else the sizes from `/sys/kernel/slab`. The allocator merges kinds of the
    /// same size unless it was told not to, so some may be missing.
    pub fn read() -> Self {
        if let Ok(text) = fs::read_to_string("/proc/slabinfo") {
            let slab = Self::parse(&text);
            if !slab.caches.is_empty() {
                return slab;
            }
        }
        let size = |name: &&str| {
            let text = fs::read_to_string(format!("/sys/kernel/slab/{name}/slab_size")).ok()?;
            let cache = Cache { object_bytes: text.trim().parse().ok()?, objects: None };
            Some(((*name).to_owned(), cache))
        };
        Self { caches: NAMES.iter().filter_map(size).collect() }
    }

    /// `name <active_objs> <num_objs> <objsize> …` (slabinfo(5)).
    pub(super) fn parse(text: &str) -> Self {
        let cache = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let name = words.next().filter(|name| NAMES.contains(name))?;
            let (objects, size) = (words.nth(1)?.parse().ok()?, words.next()?.parse().ok()?);
            Some((name.to_owned(), Cache { object_bytes: size, objects: Some(objects) }))
        };
        Self { caches: text.lines().filter_map(cache).collect() }
    }

    /// One kind.
    pub fn get(&self, name: &str) -> Option<Cache> {
        self.caches.get(name).copied()
    }

    /// A model, for tests of rules.
    #[cfg(test)]
    pub(crate) fn of(caches: &[(&str, u64)]) -> Self {
        let cache =
            |(name, size): &(&str, u64)| ((*name).to_owned(), Cache { object_bytes: *size, objects: None });
        Self { caches: caches.iter().map(cache).collect() }
    }

    /// What so many TIME_WAIT entries take, bytes; those of outgoing connections keep a port's entry, too.
    pub fn time_wait_bytes(&self, inbound: u64, outbound: u64) -> Option<u64> {
        let entry = self.get("tw_sock_TCP")?.object_bytes;
        let port = ["tcp_bind_bucket", "tcp_bind2_bucket"];
        let port: u64 = port.iter().filter_map(|name| self.get(name)).map(|cache| cache.object_bytes).sum();
        Some((inbound + outbound) * entry + outbound * port)
    }
}

/// The machine's memory, bytes.
pub(super) fn memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabinfo() {
        let slab = Slab::parse(
            "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize> <objperslab>\n\
             tw_sock_TCP 10 49725 256 16 1 : tunables 0 0 0\ntcp_bind_bucket 3 640 128 32\nother 1 2 3\n",
        );
        assert_eq!(slab.get("tw_sock_TCP"), Some(Cache { object_bytes: 256, objects: Some(49725) }));
        assert_eq!(slab.get("other"), None);
        assert_eq!(slab.time_wait_bytes(1000, 10), Some(1010 * 256 + 10 * 128));
        assert_eq!(Slab::default().time_wait_bytes(1, 1), None);
    }

    #[test]
    fn the_machine_has_memory() {
        assert!(memory_bytes() > Some(1 << 20));
    }
}
