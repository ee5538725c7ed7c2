//! Has a leaving worker anything left to lose?
//!
//! A worker is **quiet** when no half-open request can still reach it, its accept queue is empty, and every
//! connection it holds is closed or idle. A connection moves in one direction only: half open, queued, accepted,
//! closed. So a look goes **upstream first**: half-open requests, then queue lengths, then connections, then who
//! holds them. What moves on during the look is met again further down; the other order would let it slip past.
//!
//! [`Observer`] looks, [`QuietWatch`] judges. One [`Observation`] serves all workers that are leaving at that
//! time. Before the first look: steer away, then wait until no CPU can use the old steering
//! (`membarrier(2)`), then remember the half-open requests ([`Observer::half_open`]). A half-open request does
//! not show whose listener it belongs to; but all that could be ours existed at that moment, and a request keeps
//! its cookie until it is gone.
//!
//! # Who holds a connection
//!
//! - A process of the worker: it must be idle, also if somebody else holds it too. The other may be the one who
//!   answers, or only have inherited the descriptor; nobody can tell from outside.
//! - Only other workers of the instance, or only processes outside: none of ours. The worker's end does not
//!   close it.
//! - Nobody that we can see (just accepted, on its way to another process, an io_uring direct descriptor, a
//!   process that we may not look into): it may be ours, so it must be idle as if it were. It is counted apart,
//!   as unknown.
//! - Nobody at all (no inode): ESTABLISHED and CLOSE_WAIT wait in an accept queue, ours being empty, in another
//!   one; FIN_WAIT, CLOSING, LAST_ACK and TIME_WAIT are orphans, which the kernel brings to their end alone.
//!
//! # Idle
//!
//! Nothing unread, nothing unsent or unacknowledged, the server spoke last, and nothing has moved for a while:
//! see [`IdleRules`] and [`judge`].
//!
//! What that can't see: a server that sent something (an interim answer, an HTTP/2 or TLS control frame, an event
//! of a stream, the first of several pipelined answers) and then computes in silence for longer than
//! [`after_answer_ms`](IdleRules::after_answer_ms). And a request that arrives on an idle connection in the very
//! moment of the stop signal. UDP has no connections at all: only what waits in the sockets' buffers is seen.
//!
//! # Twice
//!
//! A dump is no snapshot: a socket whose hash bucket changes between two parts of the answer may be missed. So
//! quiet means two quiet looks in a row, at least [`CONFIRM_AFTER_MS`] apart, both begun under the steering in
//! force.

mod idle;
mod observation;
mod observer;
mod watch;

pub use idle::{Activity, IdleRules, judge};
pub use observation::{Observation, Seen, Tally};
pub use observer::{Census, Observer, Workers};
pub use watch::{CONFIRM_AFTER_MS, QuietWatch, Reason, Verdict};
