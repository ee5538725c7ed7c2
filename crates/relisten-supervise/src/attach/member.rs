//! One listener of a server that runs already, and our duplicate of it.

use super::members::Hold;
use crate::core::Millis;
use crate::hang::{Sample, Verdict};
use crate::runtime::now;
use relisten::listener::Listener;
use relisten::{SocketCookie, SocketInode};
use relisten_bpf::{Avoid, Choice, Steering};
use std::io;

/// Dropping it closes the duplicate and changes nothing else.
pub(super) struct Member {
    pub(super) listener: Listener,
    pub(super) place: relisten_bpf::Listener,
    cookie: SocketCookie,
    /// What it is known by to the policy, to `weight` and to `status`.
    pub(super) slot: u32,
    /// Descriptors of others that lead to it, when that was last looked up.
    pub(super) holds: Vec<Hold>,
    pub(super) verdict: Verdict,
    /// Since when.
    pub(super) since: Millis,
    /// Connections moved away while its worker hung.
    pub(super) rescued: u64,
    /// Connections that waited when it was taken in: nobody has counted them.
    waited: u64,
    /// Those of them that may still wait.
    uncounted: u64,
}

impl Member {
    /// Counted from now on and known to the program; not yet in a table.
    ///
    /// # Errors
    ///
    /// `EBUSY` while it is in the map of another program.
    pub(super) fn take(
        steering: &mut Steering,
        listener: &Listener,
        holds: &[Hold],
        slot: u32,
    ) -> io::Result<Self> {
        let (cookie, listener) = (listener.cookie()?, listener.try_clone()?);
        let full = || io::Error::new(io::ErrorKind::StorageFull, "there are too many listeners");
        let place = steering.claim().ok_or_else(full)?;
        let waited = u64::from(listener.queue().map_or(0, |queue| queue.waiting));
        let holds = holds.to_vec();
        let (verdict, since, rescued, uncounted) = (Verdict::Well, now(), 0, waited);
        let this = Self { listener, place, cookie, slot, holds, verdict, since, rescued, waited, uncounted };
        match this.place.mark(&this.listener).and_then(|()| this.place.enlist(&this.listener)) {
            Ok(()) => this.place.set(Avoid::NOTHING),
            Err(error) => {
                this.release(steering);
                return Err(error);
            }
        }
        Ok(this)
    }

    /// Its place is for others. No table may name it any more.
    pub(super) fn release(self, steering: &mut Steering) {
        if let Err(error) = self.place.unmark(&self.listener) {
            tracing::debug!(%error, "a listener's mark could not be taken off");
        }
        if let Err(error) = steering.release(&self.place, Some(self.cookie.0)) {
            tracing::debug!(%error, "a listener's place could not be cleared");
        }
    }

    /// Have its workers closed it, as far as we know?
    pub(super) fn seems_closed(&self, inode: SocketInode) -> bool {
        !self.holds.iter().any(|hold| hold.is_there(inode))
    }

    pub(super) fn choice(&self, weight: u32) -> Choice {
        Choice { key: self.place.key(), id: self.slot, weight }
    }

    pub(super) fn waiting(&self) -> io::Result<u64> {
        Ok(u64::from(self.listener.queue()?.waiting))
    }

    /// Connections accepted from it since it was taken in, those included that waited then.
    pub(super) fn accepted(&self, waiting: u64) -> u64 {
        let counts = self.place.counts();
        (self.waited + counts.established + counts.moved_in).saturating_sub(counts.moved_out + waiting)
    }

    /// What waits is about to be moved, by which each takes its count along. So who was there before is counted now. A queue
    /// is served from its front, where those are.
    pub(super) fn count_who_waits(&mut self) {
        let Ok(waiting) = self.waiting() else { return };
        let left = self.waited.saturating_sub(self.accepted(waiting)).min(self.uncounted);
        self.place.correct_open(i32::try_from(left).unwrap_or(0));
        self.uncounted = 0;
    }

    /// For the watch over those who hang. Also notes whether its queue is full: a SYN would be dropped then.
    pub(super) fn sample(&self, inode: SocketInode) -> Option<Sample<SocketInode>> {
        let queue = self.listener.queue().ok()?;
        match (queue.waiting > queue.limit, self.place.avoided().contains(Avoid::FULL)) {
            (true, false) => self.place.add(Avoid::FULL),
            (false, true) => self.place.remove(Avoid::FULL),
            _ => {}
        }
        let waiting = u64::from(queue.waiting);
        let accepted = Some(self.accepted(waiting));
        Some(Sample { id: inode, waiting, accepted, live: true, verdict: self.verdict })
    }

    /// What is thought of its worker from now on; new connections go where they should.
    pub(super) fn judge(&mut self, verdict: Verdict) {
        self.since = now();
        self.verdict = verdict;
        let both = Avoid::SUSPECTED | Avoid::HUNG;
        match verdict {
            Verdict::Well => self.place.remove(both),
            Verdict::Suspected => self.place.add(Avoid::SUSPECTED),
            Verdict::Hung => self.place.add(both),
        }
    }
}
