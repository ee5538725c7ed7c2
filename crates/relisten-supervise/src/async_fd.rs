//! Descriptors in tokio's event loop.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watch a descriptor that we own. Must be called within a tokio runtime.
///
/// Fails with EPERM for files that can't be polled (regular files).
#[expect(
    deprecated,
    reason = "unsound only for types that may close or change their descriptor while it is watched; an OwnedFd \
              does neither, and the new name is an unsafe function, which this crate does without"
)]
pub(crate) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, interest)
}
