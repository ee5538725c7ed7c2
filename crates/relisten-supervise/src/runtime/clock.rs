use crate::core::Millis;
use rustix::time::{ClockId, clock_gettime};

/// Now, by the clock that goes on over suspend and is the same for the next supervisor.
pub(crate) fn now() -> Millis {
    let t = clock_gettime(ClockId::Boottime);
    Millis(u64::try_from(t.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(t.tv_nsec).unwrap_or(0) / 1_000_000)
}
