//! A packet between supervisor and keeper that is understood says the same when it is written anew.

use relisten_supervise::runtime::seam;

pub(crate) fn check(data: &[u8]) {
    for (number, anew) in seam::keeper(data).into_iter().enumerate() {
        if let Some(anew) = anew {
            assert_eq!(seam::keeper(&anew)[number].as_ref(), Some(&anew), "of {}", data.escape_ascii());
        }
    }
}
