//! The little of BTF (<https://www.kernel.org/doc/html/v6.12/bpf/btf.html>) that is needed to read an enum.

const MAGIC: u16 = 0xeb9f;
const INT: u32 = 1;
const ARRAY: u32 = 3;
const ENUM: u32 = 6;

struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

/// The names and numbers of an enum of 32 bits. `None`: there is no such enum, or the bytes are no BTF.
pub(super) fn values(bytes: &[u8], name: &str) -> Option<Vec<(String, i32)>> {
    let btf = Btf::open(bytes)?;
    let mut at = 0;
    while at < btf.types.len() {
        let (named, info) = (u32_at(btf.types, at)?, u32_at(btf.types, at + 4)?);
        let (kind, count) = (info >> 24 & 0x1f, info as usize & 0xffff);
        let body = at + 12;
        if kind == ENUM && btf.string(named) == Some(name) {
            return (0..count).map(|i| btf.value(body + i * 8)).collect();
        }
        at = body + tail(kind, count)?;
    }
    None
}

/// Bytes behind the 12 that all types have. `None`: a kind that this version does not know, so the end of the walk.
fn tail(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        // Variable, declaration tag.
        INT | 14 | 17 => 4,
        ARRAY => 12,
        // Structure, union, data section, enum of 64 bits.
        4 | 5 | 15 | 19 => count * 12,
        // Enum, function's prototype.
        ENUM | 13 => count * 8,
        _ => return None,
    })
}

impl<'a> Btf<'a> {
    fn open(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let header = u32_at(bytes, 4)? as usize;
        let part = |at: usize| {
            let (offset, length) = (u32_at(bytes, at)? as usize, u32_at(bytes, at + 4)? as usize);
            let start = header.checked_add(offset)?;
            bytes.get(start..start.checked_add(length)?)
        };
        Some(Self { types: part(8)?, strings: part(16)? })
    }

    fn string(&self, offset: u32) -> Option<&'a str> {
        let rest = self.strings.get(offset as usize..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }

    fn value(&self, at: usize) -> Option<(String, i32)> {
        Some((self.string(u32_at(self.types, at)?)?.to_owned(), u32_at(self.types, at + 4)? as i32))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An integer, then an enum `e` with A=0 and B=-1.
    fn sample() -> Vec<u8> {
        let words = |list: &[u32]| list.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let types = words(&[0, INT << 24, 4, 32, 1, ENUM << 24 | 2, 4, 3, 0, 5, u32::MAX]);
        let strings = b"\0e\0A\0B\0";
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend(words(&[24, 0, types.len() as u32, types.len() as u32, strings.len() as u32]));
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn golden() {
        let expected = vec![("A".to_owned(), 0), ("B".to_owned(), -1)];
        assert_eq!(values(&sample(), "e"), Some(expected));
        assert_eq!(values(&sample(), "f"), None);
    }

    #[test]
    fn whatever_is_cut_off_or_wrong_no_panic() {
        let whole = sample();
        for length in 0..whole.len() {
            let _ = values(&whole[..length], "e");
        }
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] = 0xff;
            let _ = values(&broken, "e");
        }
    }
}
