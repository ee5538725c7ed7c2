//! The `Range` header (RFC 9110, 14).

/// Which part of a file is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// All of it: no range, one that is not understood, or several at once (which a server may ignore; answering
    /// them costs more than they are used).
    Whole,
    /// At least one byte.
    Part {
        /// The first byte's place.
        first: u64,
        /// How many bytes.
        length: u64,
    },
    /// Nothing of the file lies in the range.
    Unsatisfiable,
}

/// Reads the header for a file of `size` bytes.
pub(super) fn parse(header: &[u8], size: u64) -> Range {
    try_parse(header, size).unwrap_or(Range::Whole)
}

fn try_parse(header: &[u8], size: u64) -> Option<Range> {
    let text = std::str::from_utf8(header).ok()?;
    let (unit, range) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    if first.is_empty() {
        let length = number(last)?.min(size);
        return Some(part(size - length, length));
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    if first >= size {
        return Some(Range::Unsatisfiable);
    }
    Some(part(first, last.min(size - 1) - first + 1))
}

fn part(first: u64, length: u64) -> Range {
    if length == 0 { Range::Unsatisfiable } else { Range::Part { first, length } }
}

/// Digits only; one too large for the file is as good as the largest.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send() {
        let part = |first, length| Range::Part { first, length };
        for (header, size, expected) in [
            ("bytes=0-0", 10, part(0, 1)),
            ("bytes=2-5", 10, part(2, 4)),
            ("Bytes = 2-5 ", 10, part(2, 4)),
            ("bytes=2-", 10, part(2, 8)),
            ("bytes=2-99", 10, part(2, 8)),
            ("bytes=-3", 10, part(7, 3)),
            ("bytes=-99", 10, part(0, 10)),
            ("bytes=0-99999999999999999999999", 10, part(0, 10)),
            ("bytes=9-9", 10, part(9, 1)),
            ("bytes=10-", 10, Range::Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Range::Unsatisfiable),
            ("bytes=-0", 10, Range::Unsatisfiable),
            ("bytes=-5", 0, Range::Unsatisfiable),
            ("bytes=0-", 0, Range::Unsatisfiable),
            ("bytes=5-2", 10, Range::Whole),
            ("bytes=0-1,3-4", 10, Range::Whole),
            ("bytes=a-b", 10, Range::Whole),
            ("bytes=-", 10, Range::Whole),
            ("bytes=+1-2", 10, Range::Whole),
            ("lines=1-2", 10, Range::Whole),
            ("", 10, Range::Whole),
        ] {
            assert_eq!(parse(header.as_bytes(), size), expected, "{header} of {size}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_part_lies_within_the_file(header in ".{0,30}|bytes=[0-9]{0,22}-[0-9]{0,22}", size: u64) {
            if let Range::Part { first, length } = parse(header.as_bytes(), size) {
                proptest::prop_assert!(length > 0 && first.checked_add(length).is_some_and(|end| end <= size));
            }
        }
    }
}
