use crate::abi::{CountersEntry, GroupEntry, ListenerEntry};
use crate::key::{GroupId, ListenerKey};
use crate::maps::Maps;
use std::mem::offset_of;
use std::sync::atomic::Ordering;

/// Of one listener, since its key was given to it. New connections are SYNs: one that was dropped and sent again
/// counts again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerCounts {
    /// Open connections (ESTABLISHED, CLOSE_WAIT). Only while [`Counting`](crate::Counting).
    pub open: u64,
    /// Connections opened, likewise. With `moved_in` and `moved_out` this tells those closed.
    pub established: u64,
    /// New connections that the policy gave it.
    pub by_policy: u64,
    /// New connections it got in place of a listener that could not be chosen.
    pub by_fallback: u64,
    /// New connections it got because nobody was in service.
    pub by_last_resort: u64,
    /// Open connections that came from the queue of a listener that left, while counting.
    pub moved_in: u64,
    /// Open connections that went away to another listener's queue, while counting.
    pub moved_out: u64,
}

impl ListenerCounts {
    pub(crate) fn read(maps: &Maps, key: ListenerKey) -> Self {
        let read = |offset| maps.counters_u64(key.index(), offset).load(Ordering::Relaxed);
        let open = maps.listener_u32(key.index(), offset_of!(ListenerEntry, open)).load(Ordering::Relaxed);
        let chosen =
            maps.listener_u64(key.index(), offset_of!(ListenerEntry, chosen)).load(Ordering::Relaxed);
        let by_fallback = read(offset_of!(CountersEntry, by_fallback));
        let by_last_resort = read(offset_of!(CountersEntry, by_last_resort));
        Self {
            // Below zero for a moment at most: an end is counted after its beginning, by another CPU.
            open: u64::try_from(open as i32).unwrap_or(0),
            established: read(offset_of!(CountersEntry, established)),
            by_policy: chosen.saturating_sub(by_fallback + by_last_resort),
            by_fallback,
            by_last_resort,
            moved_in: read(offset_of!(CountersEntry, moved_in)),
            moved_out: read(offset_of!(CountersEntry, moved_out)),
        }
    }

    /// New connections, however they came here.
    pub fn new_connections(&self) -> u64 {
        self.by_policy + self.by_fallback + self.by_last_resort
    }
}

/// Of one group, beside those of its listeners. New connections of the group are those of its listeners and
/// `by_kernel`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// New connections for which no listener could be chosen: the kernel's hash over all members decided.
    pub by_kernel: u64,
    /// Packets that are no SYN and belong to no connection: ACKs while SYN cookies are used, and strays. Steered,
    /// but not counted as new.
    pub acks: u64,
    /// Half-open requests that were given a listener in place of one that left.
    pub moved_requests: u64,
    /// Requests and queued connections whose listener left and for which nobody could be chosen.
    pub move_failed: u64,
    /// Moved connections whose count stayed with the listener that left, because too many are open.
    pub move_uncounted: u64,
    /// New connections that an [exception](crate::Group::except) led to their listener.
    pub by_exception: u64,
}

impl GroupCounts {
    pub(crate) fn read(maps: &Maps, group: GroupId) -> Self {
        let read = |offset| maps.group_u64(group.index(), offset).load(Ordering::Relaxed);
        Self {
            by_kernel: read(offset_of!(GroupEntry, by_kernel)),
            acks: read(offset_of!(GroupEntry, acks)),
            moved_requests: read(offset_of!(GroupEntry, moved_requests)),
            move_failed: read(offset_of!(GroupEntry, move_failed)),
            move_uncounted: read(offset_of!(GroupEntry, move_uncounted)),
            by_exception: read(offset_of!(GroupEntry, by_exception)),
        }
    }
}
