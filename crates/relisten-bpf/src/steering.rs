use crate::abi::{self, CountersEntry, InstanceEntry, LoadEntry, MovedEntry, OwnerEntry};
use crate::counting::Counting;
use crate::descriptors::{Descriptors, Kind};
use crate::error::OpenError;
use crate::group::{Attached, Empty, Group};
use crate::key::{GroupId, ListenerKey};
use crate::listener::Listener;
use crate::maps::Maps;
use std::collections::BTreeSet;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The maps of one instance, ready to be used; gives out places for listeners and groups.
///
/// One process at a time should write. Dropping it changes nothing in the kernel.
#[derive(Debug)]
pub struct Steering {
    maps: Arc<Maps>,
    free: BTreeSet<ListenerKey>,
    free_groups: BTreeSet<GroupId>,
}

impl Steering {
    /// From descriptors that this or another process has loaded. They are checked first: nothing is written to maps
    /// of another version.
    pub fn open(descriptors: Descriptors) -> Result<Self, OpenError> {
        let maps = Arc::new(Maps::open(descriptors)?);
        let free = (0..abi::LISTENERS as u32).filter_map(ListenerKey::new).collect();
        let free_groups = GroupId::all().take(maps.programs.len()).collect();
        Ok(Self { maps, free, free_groups })
    }

    /// Duplicates of all descriptors, to be kept by another process.
    pub fn descriptors(&self) -> io::Result<Descriptors> {
        let all = Kind::all(self.maps.programs.len()).map(|kind| {
            let fd = match kind {
                Kind::Sockets => self.maps.sockets.as_fd(),
                Kind::Owners => self.maps.owners.as_fd(),
                Kind::Cookies => self.maps.cookies.as_fd(),
                Kind::Moved => self.maps.moved.as_fd(),
                Kind::Count => self.maps.count.as_fd(),
                Kind::Program(group) => self.maps.programs[usize::from(group)].as_fd(),
                other => {
                    let found = self.maps.others.iter().find(|(kind, _)| *kind == other);
                    found.ok_or(io::ErrorKind::NotFound)?.1.as_fd()
                }
            };
            fd.try_clone_to_owned()
        });
        let all = all.collect::<io::Result<Vec<OwnedFd>>>()?;
        Descriptors::new(all).map_err(io::Error::other)
    }

    /// A place for a new listener, out of service; the lowest that is free. `None`: there are
    /// [`abi::LISTENERS`] already.
    pub fn claim(&mut self) -> Option<Listener> {
        let listener = Listener::new(Arc::clone(&self.maps), self.free.pop_first()?);
        listener.begin();
        Some(listener)
    }

    /// A place that was given before, by another process: nothing about it changes. `None`: it is taken.
    pub fn resume(&mut self, key: ListenerKey) -> Option<Listener> {
        self.free.remove(&key).then(|| Listener::new(Arc::clone(&self.maps), key))
    }

    /// Gives a place back, when its socket has been closed or shut down, and no table names it any more.
    /// Connections that it had stay open and are counted no more. `cookie` is the socket's, if it was marked.
    pub fn release(&mut self, listener: &Listener, cookie: Option<u64>) -> io::Result<()> {
        listener.begin();
        listener.delist()?;
        if let Some(cookie) = cookie {
            listener.forget(cookie)?;
        }
        self.free.insert(listener.key());
        Ok(())
    }

    /// A place for a group. `None`: there are [`abi::GROUPS`] already.
    pub fn group(&mut self) -> Option<Group<Empty>> {
        Some(Group::new(Arc::clone(&self.maps), self.free_groups.pop_first()?).begin())
    }

    /// A group that another process has attached. `None`: it is taken.
    pub fn resume_group(&mut self, id: GroupId) -> Option<Group<Attached>> {
        self.free_groups.remove(&id).then(|| Group::new(Arc::clone(&self.maps), id))
    }

    /// Gives a group's place back, when it is detached or has no member left.
    #[allow(clippy::needless_pass_by_value, reason = "nobody is to use it afterwards")]
    pub fn release_group<State>(&mut self, group: Group<State>) {
        self.free_groups.insert(group.id());
    }

    /// What workers publish their load in: the array, the size of an entry in bytes, and how many there are. For passing on.
    pub fn loads(&self) -> Option<(BorrowedFd<'_>, usize, usize)> {
        let (_, map) = self.maps.others.iter().find(|(kind, _)| *kind == Kind::Loads)?;
        Some((map.as_fd(), size_of::<LoadEntry>(), abi::LISTENERS))
    }

    /// Begins to count open connections: see [`Counting`].
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_BPF and CAP_NET_ADMIN, or where somebody above allows one program only; `EBADF` when it
    /// is no cgroup of version 2.
    pub fn count(&self, cgroup: impl AsFd) -> io::Result<Counting> {
        Counting::start(&self.maps, cgroup.as_fd())
    }

    /// Where a connection is counted that was moved from one queue to another, and is open still: by its cookie
    /// (`SO_COOKIE`). `None`: it was not moved, or its listener has gone.
    pub fn moved_to(&self, cookie: u64) -> Option<ListenerKey> {
        self.moved_entry(cookie)?.1
    }

    /// A connection has ended that was opened when nobody counted, so nobody is told. If it had been moved it is counted
    /// where it was, until now. False: it had not been.
    pub fn uncounted_ended(&self, cookie: u64) -> bool {
        let Some((place, key)) = self.moved_entry(cookie) else { return false };
        let removed = self.maps.moved.set(&place.to_ne_bytes(), &[0; size_of::<MovedEntry>()]).is_ok();
        if removed {
            if let Some(key) = key {
                Listener::new(Arc::clone(&self.maps), key).correct_open(-1);
            }
            let moved = self.maps.instance_u64(offset_of!(InstanceEntry, moved));
            moved.fetch_sub(1, Ordering::AcqRel);
        }
        removed
    }

    /// At which place a moved connection is noted, and for whom; `None`: that listener has gone. `moved_find` of
    /// bpf/moved.h.
    fn moved_entry(&self, cookie: u64) -> Option<(u32, Option<ListenerKey>)> {
        let mut places = (0..abi::MOVED_PLACES).map(|i| (cookie.wrapping_add(i) % abi::MOVED as u64) as u32);
        places.find_map(|place| {
            let mut entry = [0; size_of::<MovedEntry>()];
            let found = self.maps.moved.get(&place.to_ne_bytes(), &mut entry).ok()?;
            let its = u64::from_ne_bytes(*entry.first_chunk()?);
            (found && its == cookie).then(|| (place, self.still(&entry)))
        })
    }

    /// The owner of a moved connection, unless its key has been given to another listener since.
    fn still(&self, entry: &[u8; size_of::<MovedEntry>()]) -> Option<ListenerKey> {
        let word = |at: usize| {
            let at = offset_of!(MovedEntry, owner) + at;
            entry.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
        };
        let key = ListenerKey::new(word(offset_of!(OwnerEntry, key))?)?;
        let incarnation = self.maps.counters_u32(key.index(), offset_of!(CountersEntry, incarnation));
        (word(offset_of!(OwnerEntry, incarnation))? == incarnation.load(Ordering::Acquire)).then_some(key)
    }

    /// Moved connections that are open and counted where they are now. At most [`abi::MOVED`].
    pub fn moved(&self) -> u64 {
        let moved = self.maps.instance_u64(offset_of!(InstanceEntry, moved)).load(Ordering::Relaxed);
        u64::try_from(moved as i64).unwrap_or(0)
    }
}
