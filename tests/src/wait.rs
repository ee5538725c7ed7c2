use std::thread;
use std::time::{Duration, Instant};

/// Waits until `condition` holds, looking every 10 ms.
///
/// # Panics
/// When it does not hold within `bound`; `what` names it.
#[track_caller]
pub fn wait_until(what: &str, bound: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, bound, || condition().then_some(()));
}

/// Waits until `probe` gives something, looking every 10 ms.
///
/// # Panics
/// When nothing came within `bound`; `what` names it.
#[track_caller]
pub fn wait_for<T>(what: &str, bound: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begin.elapsed() < bound, "waited {bound:?} in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
