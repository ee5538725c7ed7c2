//! A thread that lets nobody come before it.

use std::io;
use std::mem::MaybeUninit;

/// The calling thread runs under `SCHED_FIFO` until this is dropped: whom it wakes on its CPU runs after it, not in its
/// place. For moments only. Needs CAP_SYS_NICE or RLIMIT_RTPRIO.
#[derive(Debug)]
pub struct Urgent {
    policy: libc::c_int,
    parameters: libc::sched_param,
}

impl Urgent {
    /// `sched_setscheduler(2)`.
    ///
    /// # Errors
    ///
    /// `EPERM`, also in a control group without time for such threads.
    pub fn begin() -> io::Result<Self> {
        // SAFETY: no arguments that are addresses; 0 is the calling thread.
        let policy = check(unsafe { libc::sched_getscheduler(0) })?;
        let mut parameters = MaybeUninit::<libc::sched_param>::zeroed();
        // SAFETY: room for what is written.
        check(unsafe { libc::sched_getparam(0, parameters.as_mut_ptr()) })?;
        // SAFETY: all zero is valid, and it has been written.
        let before = Self { policy, parameters: unsafe { parameters.assume_init() } };
        let lowest = libc::sched_param { sched_priority: 1 };
        // SAFETY: the parameters are only read.
        check(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const lowest) })?;
        Ok(before)
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        // SAFETY: the parameters are only read. Going back needs no privilege.
        unsafe { libc::sched_setscheduler(0, self.policy, &raw const self.parameters) };
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_before_afterwards() {
        // SAFETY: as above.
        let now = || unsafe { libc::sched_getscheduler(0) };
        let before = now();
        match Urgent::begin() {
            Ok(urgent) => {
                assert_eq!(now(), libc::SCHED_FIFO);
                drop(urgent);
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
        }
        assert_eq!(now(), before);
    }
}
