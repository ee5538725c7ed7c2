//! An answer has the same fate in whatever pieces it comes.

use relisten_lab::load::seam;

pub(crate) fn check(data: &[u8]) {
    // The limit of a head is looked at when a piece comes, so longer ones may differ.
    let data = &data[..data.len().min(32 * 1024)];
    for to_head in [false, true] {
        let whole = seam::read(data, data.len().max(1), to_head);
        for size in [1, 2, 7] {
            assert_eq!(seam::read(data, size, to_head), whole, "in pieces of {size}");
        }
        assert!(whole.is_none_or(|read| read.used <= data.len()));
    }
}
