//! Waiting for all CPUs.

use rustix::thread::{MembarrierCommand, membarrier};
use std::io;

/// `membarrier(MEMBARRIER_CMD_GLOBAL)`: returns once every CPU has passed through a state in which it holds no
/// RCU reference. A packet that was being steered by a program replaced before the call has found its
/// listener by then. Linux 4.3; no privilege needed.
///
/// **Blocks for some 8 to 20 ms**: call it from a thread that may wait.
///
/// The kernel does `synchronize_rcu` for it
/// ([`membarrier.c`](https://github.com/torvalds/linux/blob/v6.12/kernel/sched/membarrier.c)).
///
/// # Errors
///
/// `EINVAL` on a kernel booted with `nohz_full`, `ENOSYS` without `CONFIG_MEMBARRIER`: wait a while instead.
pub fn global() -> io::Result<()> {
    membarrier(MembarrierCommand::Global).map_err(Into::into)
}
