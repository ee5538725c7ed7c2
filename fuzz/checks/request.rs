//! What the path of a request leads to lies beneath the directory, and written as a link it leads there again; the part of
//! a file that is asked for lies within it.

use super::path::{Target, to_url};
use super::range::{Range, parse};

pub(crate) fn check(data: &[u8]) {
    let (size, data) = data.split_at(data.len().min(8));
    let size = size.iter().fold(0, |size, byte| size << 8 | u64::from(*byte));
    if let Range::Part { first, length } = parse(data, size) {
        assert!(
            length > 0 && first.checked_add(length).is_some_and(|end| end <= size),
            "{first}, {length} of {size}"
        );
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(target) = Target::parse(text).filter(|target| !target.is_identity) else { return };
    let path = target.path;
    let safe = |part: &[u8]| !part.is_empty() && part[0] != b'.' && !part.contains(&0);
    assert!(
        path.is_empty() || path.split(|byte| *byte == b'/').all(safe),
        "{text:?} leads to {}",
        path.escape_ascii()
    );
    let link = to_url(&path);
    assert_eq!(
        Target::parse(&link).map(|target| target.path).as_ref(),
        Some(&path),
        "{link:?} from {text:?}"
    );
}
