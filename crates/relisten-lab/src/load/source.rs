//! Source addresses: one address has 28,232 ports by default, and a busy run needs more.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use thiserror::Error;

/// An address or a range of them, as `ADDR` or `ADDR/PREFIX`. Never expanded, so `127.0.0.0/8` costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRange {
    first: IpAddr,
    count: u64,
}

/// Why a source range is not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SourceError {
    /// Not an address.
    #[error("'{0}' is not an IP address or ADDRESS/PREFIX")]
    Address(String),
    /// The prefix is too long for the family.
    #[error("'{0}' has no valid prefix length")]
    Prefix(String),
}

impl SourceRange {
    /// The addresses used by default towards IPv4 loopback: 254 of them.
    pub const LOOPBACK: SourceRange = SourceRange { first: IpAddr::V4(Ipv4Addr::LOCALHOST), count: 254 };

    /// How many addresses there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether these are IPv4 addresses.
    pub fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// The address number `index`, counted round and round.
    pub fn nth(&self, index: u64) -> IpAddr {
        let index = index % self.count;
        match self.first {
            IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from_bits(first.to_bits().wrapping_add(index as u32))),
            IpAddr::V6(first) => {
                IpAddr::V6(Ipv6Addr::from_bits(first.to_bits().wrapping_add(u128::from(index))))
            }
        }
    }
}

impl FromStr for SourceRange {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<SourceRange, SourceError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| SourceError::Address(text.to_owned()))?;
        let width: u32 = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => width,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|&bits| bits <= width)
                .ok_or_else(|| SourceError::Prefix(text.to_owned()))?,
        };
        let host_bits = width - prefix;
        // The first and last address of a network are its own and its broadcast address: left out.
        let edges = u64::from(host_bits >= 2);
        let size = 1_u64.checked_shl(host_bits).unwrap_or(u64::MAX);
        let first = match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits((address.to_bits() & mask) + edges as u32))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits((address.to_bits() & mask) + u128::from(edges)))
            }
        };
        Ok(SourceRange { first, count: size - 2 * edges })
    }
}

/// The address for connection number `index`, going through all ranges in turn.
pub(super) fn pick(ranges: &[SourceRange], index: u64) -> Option<IpAddr> {
    let total = ranges.iter().fold(0_u64, |sum, range| sum.saturating_add(range.count));
    let mut index = index.checked_rem(total)?;
    for range in ranges {
        if index < range.count {
            return Some(range.nth(index));
        }
        index -= range.count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> SourceRange {
        text.parse().expect(text)
    }

    #[test]
    fn ranges_leave_their_edges_out() {
        assert_eq!(range("127.0.0.9/24"), SourceRange::LOOPBACK);
        assert_eq!(range("127.0.0.0/8").count(), (1 << 24) - 2);
        assert_eq!(range("127.0.0.0/8").nth(255).to_string(), "127.0.1.0");
        assert_eq!((range("10.0.0.7").count(), range("10.0.0.7").nth(3).to_string()), (1, "10.0.0.7".into()));
        assert_eq!(
            (range("10.0.0.6/31").count(), range("10.0.0.6/31").nth(1).to_string()),
            (2, "10.0.0.7".into())
        );
        assert_eq!(range("0.0.0.0/0").count(), (1 << 32) - 2);
        assert_eq!(range("::/0").count(), u64::MAX - 2);
        assert_eq!(range("fd00::/126").nth(1).to_string(), "fd00::2");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "localhost", "127.0.0.1/33", "127.0.0.1/", "127.0.0.1/-1", "::1/129", "1.2.3/8"] {
            assert!(text.parse::<SourceRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn several_ranges_are_taken_in_turn() {
        let ranges = [range("127.0.0.1"), range("127.0.1.0/30")];
        let seen: Vec<_> = (0..4).filter_map(|index| pick(&ranges, index)).map(|a| a.to_string()).collect();
        assert_eq!(seen, ["127.0.0.1", "127.0.1.1", "127.0.1.2", "127.0.0.1"]);
        assert_eq!(pick(&[], 1), None);
    }
}
