//! systemd's protocol between a supervisor and its services, in both directions: passed sockets
//! ([sd_listen_fds(3)](https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html)) and
//! notifications ([sd_notify(3)](https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html)).

mod fds;
mod message;
mod notifier;

pub use fds::{FIRST, Inherited, MAX_FDS, TakeError, environment, take};
pub use message::{MAX_MESSAGE, MAX_STATUS, Message, Watchdog};
pub use notifier::{Notifier, notify};
