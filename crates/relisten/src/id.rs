//! The numbers that name things. New types, so that a slot can't be passed where a generation is meant.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A place for one worker, counted from 0. It outlives the workers that fill it.
    SlotId(u32)
}
id! {
    /// All workers started by one start or reload, counted from 1.
    Generation(u32)
}
id! {
    /// The inode of a socket, as in `/proc/PID/fd` and sock_diag. Unique while the socket lives.
    SocketInode(u64)
}
id! {
    /// The kernel's name of a socket (`SO_COOKIE`), never given twice in one boot. A connection keeps the
    /// cookie of the half-open request it came from.
    SocketCookie(u64)
}
