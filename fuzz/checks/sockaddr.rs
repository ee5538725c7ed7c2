//! The bytes of a socket address are understood or are of a kind that is none of ours; IP addresses only where there
//! are enough bytes.

use relisten_supervise::runtime::seam::{self, Bound};

pub(crate) fn check(data: &[u8]) {
    match seam::sockaddr(data) {
        Some(Bound::Internet(address)) => {
            assert!(data.len() >= if address.is_ipv4() { 8 } else { 28 }, "{address} from {data:?}");
            assert_eq!(address.port().to_be_bytes(), data[2..4]);
        }
        Some(Bound::Unix(_)) | None => {}
    }
}
