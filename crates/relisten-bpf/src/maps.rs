//! The maps, opened and checked.

use crate::abi::{
    self, CountersEntry, GroupEntry, InstanceEntry, ListenerEntry, LoadEntry, MovedEntry, OwnerEntry,
};
use crate::descriptors::{COUNT_BY_LABELS, Descriptors, Kind};
use crate::error::OpenError;
use relisten_sys::bpf::{Map, ProgramInfo, SharedArray, map_type};
use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Maps {
    pub(crate) sockets: Map,
    pub(crate) owners: Map,
    pub(crate) cookies: Map,
    pub(crate) moved: Map,
    /// Connections know their listener by labels: bpf/label.h.
    pub(crate) labels: bool,
    pub(crate) count: OwnedFd,
    pub(crate) programs: Vec<OwnedFd>,
    /// Kept so that they can be passed on.
    pub(crate) others: Vec<(Kind, Map)>,
    listeners: SharedArray,
    counters: SharedArray,
    groups: SharedArray,
    instance: SharedArray,
    loads: SharedArray,
}

/// Kind, size of keys, size of values, entries.
fn shape(kind: Kind) -> (u32, usize, usize, usize) {
    use map_type::{ARRAY, HASH, REUSEPORT_SOCKARRAY, SK_STORAGE};
    match kind {
        Kind::Sockets => (REUSEPORT_SOCKARRAY, 4, 8, abi::LISTENERS),
        Kind::Listeners => (ARRAY, 4, size_of::<ListenerEntry>(), abi::LISTENERS),
        Kind::Counters => (ARRAY, 4, size_of::<CountersEntry>(), abi::LISTENERS),
        Kind::Groups => (ARRAY, 4, size_of::<GroupEntry>(), abi::GROUPS),
        Kind::Instance => (ARRAY, 4, size_of::<InstanceEntry>(), 1),
        Kind::Loads => (ARRAY, 4, size_of::<LoadEntry>(), abi::LISTENERS),
        Kind::Owners => (SK_STORAGE, 4, size_of::<OwnerEntry>(), 0),
        Kind::Cookies => (HASH, 8, size_of::<OwnerEntry>(), abi::LISTENERS),
        Kind::Moved => (ARRAY, 4, size_of::<MovedEntry>(), abi::MOVED),
        Kind::Count | Kind::Program(_) => (0, 0, 0, 0),
    }
}

fn open(kind: Kind, fd: OwnedFd) -> Result<Map, OpenError> {
    let name = kind.map_name().unwrap_or_default();
    let map = Map::new(fd).map_err(|source| OpenError::Map { name, source })?;
    let info = map.info();
    let found = (info.kind, info.key_size as usize, info.value_size as usize, info.max_entries as usize);
    if found == shape(kind) { Ok(map) } else { Err(OpenError::Shape(name)) }
}

impl Maps {
    pub(crate) fn open(descriptors: Descriptors) -> Result<Self, OpenError> {
        let mut maps = Vec::new();
        let mut programs = Vec::new();
        for (kind, fd) in descriptors.into_pairs() {
            match kind {
                Kind::Count | Kind::Program(_) => programs.push(fd),
                _ => maps.push((kind, open(kind, fd)?)),
            }
        }
        let count = programs.remove(0);
        let labels = ProgramInfo::read(count.as_fd()).is_ok_and(|info| info.is_named(COUNT_BY_LABELS));
        let mut named = |wanted: Kind| {
            let place = maps.iter().position(|(kind, _)| *kind == wanted);
            let name = wanted.map_name().unwrap_or_default();
            place.map(|i| maps.swap_remove(i).1).ok_or(OpenError::Shape(name))
        };
        let (sockets, owners) = (named(Kind::Sockets)?, named(Kind::Owners)?);
        let (cookies, moved) = (named(Kind::Cookies)?, named(Kind::Moved)?);
        let shared = |wanted: Kind| {
            let name = wanted.map_name().unwrap_or_default();
            let (_, map) = maps.iter().find(|(kind, _)| *kind == wanted).ok_or(OpenError::Shape(name))?;
            SharedArray::map(map).map_err(|source| OpenError::Map { name, source })
        };
        let (listeners, counters) = (shared(Kind::Listeners)?, shared(Kind::Counters)?);
        let groups = shared(Kind::Groups)?;
        let (instance, loads) = (shared(Kind::Instance)?, shared(Kind::Loads)?);
        let this = Self {
            sockets,
            owners,
            cookies,
            moved,
            labels,
            count,
            programs,
            others: maps,
            listeners,
            counters,
            groups,
            instance,
            loads,
        };
        this.check_version()?;
        Ok(this)
    }

    /// New maps are all zero.
    fn check_version(&self) -> Result<(), OpenError> {
        let version = self.instance_u32(offset_of!(InstanceEntry, version));
        match version.compare_exchange(0, abi::VERSION, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(abi::VERSION) => Ok(()),
            Err(found) => Err(OpenError::Version { found }),
        }
    }

    pub(crate) fn listener_u32(&self, index: usize, offset: usize) -> &AtomicU32 {
        self.listeners.u32(index, offset)
    }

    pub(crate) fn listener_u64(&self, index: usize, offset: usize) -> &AtomicU64 {
        self.listeners.u64(index, offset)
    }

    pub(crate) fn counters_u32(&self, index: usize, offset: usize) -> &AtomicU32 {
        self.counters.u32(index, offset)
    }

    pub(crate) fn counters_u64(&self, index: usize, offset: usize) -> &AtomicU64 {
        self.counters.u64(index, offset)
    }

    pub(crate) fn group_u32(&self, index: usize, offset: usize) -> &AtomicU32 {
        self.groups.u32(index, offset)
    }

    pub(crate) fn group_u64(&self, index: usize, offset: usize) -> &AtomicU64 {
        self.groups.u64(index, offset)
    }

    pub(crate) fn instance_u32(&self, offset: usize) -> &AtomicU32 {
        self.instance.u32(0, offset)
    }

    pub(crate) fn instance_u64(&self, offset: usize) -> &AtomicU64 {
        self.instance.u64(0, offset)
    }

    pub(crate) fn load_u64(&self, index: usize, offset: usize) -> &AtomicU64 {
        self.loads.u64(index, offset)
    }
}
