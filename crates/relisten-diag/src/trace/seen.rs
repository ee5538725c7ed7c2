use std::collections::HashMap;
use std::net::SocketAddr;

/// For how long one connection's further resets are taken for echoes of the first, nanoseconds.
const MEMORY: u64 = 5_000_000_000;
/// The most that are remembered; then all old ones go, and if none is old, all.
const LIMIT: usize = 65_536;

/// Connections whose fate has been told. A reset has echoes: it arrives at the other end, which may be on this machine
/// too, and what was under way meets no socket and is answered by a reset once more.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<(SocketAddr, SocketAddr), u64>);

impl Seen {
    /// Was it told already? If not, it counts as told now. Which end is named first makes no difference.
    pub(super) fn again(&mut self, one: SocketAddr, other: SocketAddr, now: u64) -> bool {
        let key = if one <= other { (one, other) } else { (other, one) };
        if self.0.len() >= LIMIT {
            self.0.retain(|_, told| now.saturating_sub(*told) < MEMORY);
            if self.0.len() >= LIMIT {
                self.0.clear();
            }
        }
        let before = self.0.insert(key, now);
        before.is_some_and(|told| now.saturating_sub(told) < MEMORY)
    }

    /// Was it told already?
    pub(super) fn told(&self, one: SocketAddr, other: SocketAddr, now: u64) -> bool {
        let key = if one <= other { (one, other) } else { (other, one) };
        self.0.get(&key).is_some_and(|told| now.saturating_sub(*told) < MEMORY)
    }

    /// A new connection between the same ends begins.
    pub(super) fn forget(&mut self, one: SocketAddr, other: SocketAddr) {
        self.0.remove(&if one <= other { (one, other) } else { (other, one) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_and_a_new_one() {
        let (a, b) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        let mut seen = Seen::default();
        assert!(!seen.again(a, b, 0));
        assert!(seen.told(a, b, 0) && seen.again(b, a, MEMORY - 1));
        assert!(!seen.told(a, b, 3 * MEMORY));
        assert!(!seen.again(b, a, 3 * MEMORY));
        seen.forget(a, b);
        assert!(!seen.again(a, b, 3 * MEMORY));
    }

    #[test]
    fn it_stays_bounded() {
        let mut seen = Seen::default();
        for number in 0..=u32::try_from(2 * LIMIT).unwrap() {
            let client = SocketAddr::new(std::net::Ipv4Addr::from(number).into(), 1);
            seen.again(client, "127.0.0.1:2".parse().unwrap(), 0);
            assert!(seen.0.len() <= LIMIT);
        }
    }
}
