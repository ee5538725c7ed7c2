//! A reuseport group and its program.

use crate::abi::{self, ExceptionEntry, GroupEntry, HeadEntry, TableEntry};
use crate::counts::GroupCounts;
use crate::key::{GroupId, ListenerKey};
use crate::maps::Maps;
use crate::table::{Table, TableError};
use relisten_sys::{bpf, reuseport};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// No table yet: the program would know nobody.
#[derive(Debug)]
pub enum Empty {}
/// There is a table; the program is not in force.
#[derive(Debug)]
pub enum Published {}
/// The program is in force.
#[derive(Debug)]
pub enum Attached {}

/// A reuseport group. Dropping it changes nothing: what is attached stays.
pub struct Group<State> {
    maps: Arc<Maps>,
    id: GroupId,
    state: PhantomData<State>,
}

impl<State> Group<State> {
    pub(crate) fn new(maps: Arc<Maps>, id: GroupId) -> Self {
        Self { maps, id, state: PhantomData }
    }

    /// Its place.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// The program, for its [times](bpf::ProgramInfo).
    pub fn program(&self) -> BorrowedFd<'_> {
        self.maps.programs[self.id.index()].as_fd()
    }

    /// The program decides until this moment (CLOCK_MONOTONIC, nanoseconds), and leaves everything to the kernel's hash
    /// after it, until told of a later one. `None`, as at the beginning: it decides for ever. For those who would leave
    /// nobody to look after the group if they were killed. A store.
    pub fn tend_until(&self, moment: Option<u64>) {
        let until = self.maps.group_u64(self.id.index(), offset_of!(GroupEntry, tended_until));
        until.store(moment.unwrap_or(0), Ordering::SeqCst);
    }

    /// What was counted.
    pub fn counts(&self) -> GroupCounts {
        GroupCounts::read(&self.maps, self.id)
    }

    /// Writes the table that is not in force, then switches: one store. A packet that a CPU is working on at this
    /// moment uses the old one; if that is overwritten under its hands (two calls within a microsecond), it may be
    /// given to another listener than the policy would, never to one that is to be avoided.
    fn write(&self, table: &Table) -> Result<(), TableError> {
        let image = table.image()?;
        let group = self.id.index();
        let active = self.maps.group_u32(group, offset_of!(GroupEntry, active));
        let next = 1 - (active.load(Ordering::Acquire) & 1);
        let head = offset_of!(GroupEntry, heads) + next as usize * size_of::<HeadEntry>();
        let table = offset_of!(GroupEntry, tables) + next as usize * size_of::<TableEntry>();
        for (start, words) in [(table, image.table), (head, image.head)] {
            for (offset, word) in words {
                self.maps.group_u32(group, start + offset).store(word, Ordering::Relaxed);
            }
        }
        active.store(next, Ordering::SeqCst);
        Ok(())
    }

    /// From now on connections from these ports of this machine, if they come from the very address that they are sent
    /// to, go to the listener named, whatever is said of it. Beyond [`abi::EXCEPTIONS`] they are left out.
    pub fn except(&self, exceptions: &[(u16, ListenerKey)]) {
        let excepted = self.maps.group_u32(self.id.index(), offset_of!(GroupEntry, excepted));
        let count = exceptions.len().min(abi::EXCEPTIONS);
        // Fewer before they are overwritten, more after.
        excepted.fetch_min(count as u32, Ordering::SeqCst);
        for (i, (port, key)) in exceptions.iter().take(count).enumerate() {
            let offset = offset_of!(GroupEntry, exceptions) + i * size_of::<ExceptionEntry>();
            let [a, b] = [port.to_ne_bytes(), key.raw().to_ne_bytes()];
            let word = u32::from_ne_bytes([a[0], a[1], b[0], b[1]]);
            self.maps.group_u32(self.id.index(), offset).store(word, Ordering::SeqCst);
        }
        excepted.store(count as u32, Ordering::SeqCst);
    }

    fn becomes<Next>(self) -> Group<Next> {
        Group::new(self.maps, self.id)
    }
}

impl Group<Empty> {
    /// Begins anew: nobody to choose from, all counts zero.
    pub(crate) fn begin(self) -> Self {
        let word = |offset| self.maps.group_u64(self.id.index(), offset);
        for offset in (offset_of!(GroupEntry, turn)..offset_of!(GroupEntry, tables)).step_by(8) {
            word(offset).store(0, Ordering::Release);
        }
        self.except(&[]);
        self.tend_until(None);
        let ticks = self.maps.group_u32(self.id.index(), offset_of!(GroupEntry, epoch_ticks));
        ticks.store(epoch_ticks(), Ordering::Release);
        for head in 0..2 {
            let start = offset_of!(GroupEntry, heads) + head * size_of::<HeadEntry>();
            for offset in [offset_of!(HeadEntry, live), offset_of!(HeadEntry, members)] {
                self.maps.group_u32(self.id.index(), start + offset).store(0, Ordering::Release);
            }
        }
        self
    }

    /// The first table.
    pub fn publish(self, table: &Table) -> Result<Group<Published>, TableError> {
        self.write(table)?;
        Ok(self.becomes())
    }
}

impl Group<Published> {
    /// Another table.
    pub fn publish(&mut self, table: &Table) -> Result<(), TableError> {
        self.write(table)
    }

    /// Puts the program in force for the whole group that `member` is in, in place of the one that is there (a
    /// classic one too), in one step. Needs no privilege. Any process of the group's user can replace or detach it.
    ///
    /// # Errors
    ///
    /// The group, to try again, with `EINVAL` when `member` has no SO_REUSEPORT, `ENOPROTOOPT` for MPTCP.
    pub fn attach(self, member: impl AsFd) -> Result<Group<Attached>, (Self, io::Error)> {
        match bpf::attach_reuseport(member.as_fd(), self.program()) {
            Ok(()) => Ok(self.becomes()),
            Err(error) => Err((self, error)),
        }
    }
}

impl Group<Attached> {
    /// Another table.
    pub fn publish(&mut self, table: &Table) -> Result<(), TableError> {
        self.write(table)
    }

    /// Puts it in force once more: after somebody may have detached or replaced it, or when the group had lost its
    /// last member. Changes nothing if it is in force.
    pub fn attach_again(&self, member: impl AsFd) -> io::Result<()> {
        bpf::attach_reuseport(member.as_fd(), self.program())
    }

    /// Back to the kernel's hash, for the whole group that `member` is in. Linux 5.3.
    pub fn detach(self, member: impl AsFd) -> io::Result<Group<Published>> {
        reuseport::detach(member.as_fd())?;
        Ok(self.becomes())
    }
}

/// Half a second in ticks of the kernel's clock, whose length the coarse clock's resolution tells.
fn epoch_ticks() -> u32 {
    let tick = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
    let tick = u32::try_from(tick.tv_nsec).unwrap_or(0).clamp(100_000, 100_000_000);
    500_000_000 / tick
}

impl<State> fmt::Debug for Group<State> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Group").field(&self.id).finish()
    }
}
