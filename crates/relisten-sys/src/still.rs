//! Threads that stand still for as long as another one lives (ptrace(2)).
//!
//! Who is stopped by SIGSTOP stays so until somebody sends SIGCONT, and whoever was to do that may be killed. A traced
//! thread goes on when the thread that traces it ends, whatever ends that: the kernel lets it go
//! ([`exit_ptrace`](https://github.com/torvalds/linux/blob/v6.12/kernel/ptrace.c)).

use rustix::process::Pid;
use std::io;
use std::ptr::null_mut;

/// `ptrace(PTRACE_SEIZE)`, Linux 3.4: the calling **thread** traces this one until it [lets it go](release) or ends. By
/// itself that changes nothing for the traced one.
///
/// # Errors
///
/// `EPERM` where it is traced already, or may not be: the rule is that of ptrace(2), "PTRACE_MODE_ATTACH_REALCREDS", as
/// for `pidfd_getfd`. `ESRCH` when it is gone.
pub fn seize(thread: Pid) -> io::Result<()> {
    call(libc::PTRACE_SEIZE, thread)
}

/// `ptrace(PTRACE_INTERRUPT)`: a seized thread stops as soon as it would return from the kernel, or enter it. Blocking
/// calls are interrupted as by SIGSTOP and SIGCONT.
pub fn interrupt(thread: Pid) -> io::Result<()> {
    call(libc::PTRACE_INTERRUPT, thread)
}

/// `ptrace(PTRACE_DETACH)`: a thread that stands still goes on.
///
/// # Errors
///
/// `ESRCH` also when it does not stand still yet.
pub fn release(thread: Pid) -> io::Result<()> {
    call(libc::PTRACE_DETACH, thread)
}

/// A request without arguments, or with both zero: no options, no signal.
fn call(request: libc::c_uint, thread: Pid) -> io::Result<()> {
    let none = null_mut::<libc::c_void>();
    // SAFETY: none of the three requests reads or writes memory of this process through its arguments, and another process
    // is only stopped and let go on.
    let r = unsafe { libc::ptrace(request, thread.as_raw_pid(), none, none) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
