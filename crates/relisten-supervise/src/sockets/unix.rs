//! Unix sockets: each generation has a listener that its workers share, and the path moves from one to the next.
//!
//! There is no group and nothing to steer. But a path leads to one listener, and changing that is one rename: from then
//! on nothing new comes to the old listener, whose workers finish what they have. Abstract names can't be moved, so there
//! all generations share one listener.

use super::held::{Held, ListenerId, Origin};
use super::open::OpenError;
use super::{Change, Sockets};
use crate::core::WorkerId;
use relisten::address::Endpoint;
use relisten::listener::Listener;
use relisten::{Generation, SlotId};
use rustix::fs::{AtFlags, CWD, Gid, Mode, RenameFlags, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a shared listener is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Name {
    /// What it was bound to, which its connections bear as their own name.
    bound: Endpoint,
    /// Where its file is now. `None`: it has none, or none any more.
    file: Option<PathBuf>,
    /// Whose it is. `None`: of the first that comes; abstract ones are everybody's.
    generation: Option<Generation>,
}

impl Name {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let file = if let Endpoint::Unix(path) = endpoint { Some(path.clone()) } else { None };
        Self { bound: endpoint.clone(), file, generation: None }
    }

    /// As `/proc/net/unix` writes it.
    fn text(&self) -> String {
        match &self.bound {
            Endpoint::Unix(path) => path.to_string_lossy().into_owned(),
            Endpoint::Abstract(name) => format!("@{}", String::from_utf8_lossy(name).replace('\0', "@")),
            _ => String::new(),
        }
    }

    /// How many connections wait in its listener.
    pub(super) fn waiting(&self) -> Option<u64> {
        relisten_diag::unix::UnixTable::read().ok().map(|table| table.of(&self.text()).waiting)
    }
}

impl Held {
    /// The address does not lead to it: it has only what came before.
    pub(super) fn is_retired(&self) -> bool {
        let Some(name) = &self.facts.name else { return false };
        matches!(&self.facts.endpoint, Endpoint::Unix(path) if name.file.as_ref() != Some(path))
    }

    /// What waits in it can come to those only who own it and leave.
    pub(crate) fn is_its_own(&self) -> bool {
        !self.facts.shared || self.is_retired()
    }
}

impl Sockets {
    /// The worker shares the Unix listeners of its generation.
    pub(crate) fn enlist_unix(&mut self, worker: WorkerId, generation: Generation, endpoints: &[Endpoint]) {
        for endpoint in endpoints.iter().filter(|e| !e.has_group()) {
            let Some(id) = self.unix_listener(generation, endpoint) else { continue };
            if let Some(held) = self.held.get_mut(&id) {
                held.facts.owners.insert(worker);
                if let Some(name) = &mut held.facts.name {
                    name.generation.get_or_insert(generation);
                }
            }
        }
    }

    fn unix_listener(&mut self, generation: Generation, endpoint: &Endpoint) -> Option<ListenerId> {
        let here: Vec<_> = self.held().filter(|(_, h)| h.facts.endpoint == *endpoint).collect();
        let fits =
            |h: &Held| h.facts.name.as_ref().is_some_and(|n| n.generation.is_none_or(|g| g == generation));
        let any = here.last().map(|(id, _)| *id);
        if let Some((id, _)) = here.iter().find(|(_, h)| fits(h)) {
            return Some(*id);
        }
        let Endpoint::Unix(path) = endpoint else { return any };
        match self.open_beside(path) {
            Ok(id) => Some(id),
            Err(error) => {
                tracing::warn!(address = %endpoint, error = %crate::runtime::chain(&error),
                    "no second listener beside it: both generations share one, so servers that don't stop gracefully lose \
                     what they have accepted");
                any
            }
        }
    }

    /// Another listener for this path, under a name of its own until the path is its.
    fn open_beside(&mut self, path: &Path) -> Result<ListenerId, OpenError> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}", self.last_id + 1));
        let beside = Endpoint::Unix(path.with_file_name(name));
        let listener = Listener::open(&beside, &self.options()).map_err(OpenError::Listen)?;
        let id = self.insert(listener, SlotId(0), Origin::Passed, BTreeSet::new(), true);
        if let Some(held) = self.held.get_mut(&id) {
            held.facts.endpoint = Endpoint::Unix(path.to_owned());
        }
        Ok(id)
    }

    /// Gives each path to the listener of those who serve now.
    pub(super) fn move_paths(&mut self) {
        let mut moves: BTreeMap<PathBuf, ListenerId> = BTreeMap::new();
        for (id, held) in self.held() {
            let Endpoint::Unix(path) = &held.facts.endpoint else { continue };
            let others = || self.held.values().filter(|h| h.facts.endpoint == held.facts.endpoint);
            let has_it = others().find(|h| !h.is_retired());
            // Not before all of the old generation have left: until then it can be put back.
            let needed = has_it.is_none_or(|h| !h.owned_by_any(&self.serve));
            if needed && held.is_retired() && held.owned_by_any(&self.serve) {
                moves.insert(path.clone(), id);
            }
        }
        for (path, id) in moves {
            if let Err(error) = self.move_path(&path, id) {
                tracing::error!(path = %path.display(), error = %std::io::Error::from(error),
                    "can't give the path to the new generation: the old listener keeps it");
            }
        }
    }

    fn move_path(&mut self, path: &Path, to: ListenerId) -> Result<(), Errno> {
        let has_it =
            |h: &Held| matches!(&h.facts.endpoint, Endpoint::Unix(p) if p == path) && !h.is_retired();
        let from = self.held().find(|(_, h)| has_it(h)).map(|(id, _)| id);
        let Some(beside) = self.name(to).and_then(|name| name.file.clone()) else { return Ok(()) };
        let exchanged = exchange(&beside, path)?;
        if let Some(old) = from.and_then(|from| self.name(from)) {
            old.file = exchanged.then_some(beside);
        }
        if let Some(new) = self.name(to) {
            new.file = Some(path.to_owned());
        }
        Ok(())
    }

    fn name(&mut self, id: ListenerId) -> Option<&mut Name> {
        self.held.get_mut(&id)?.facts.name.as_mut()
    }

    /// The path leads nowhere from now on: what would come now would be lost.
    pub(super) fn withdraw_paths(&mut self) {
        for held in self.held.values_mut().filter(|h| !h.is_retired()) {
            held.remove_file();
        }
    }

    /// What the connections of all Unix listeners are called.
    pub(crate) fn unix_names(&self) -> BTreeSet<String> {
        self.held.values().filter_map(|h| h.facts.name.as_ref()).map(Name::text).collect()
    }

    /// Do slots share a listener whose path can be moved? Then one of them can't be steered away from alone.
    pub(crate) fn shares_a_path(&self) -> bool {
        self.held.values().any(|h| h.facts.name.as_ref().is_some_and(|n| n.file.is_some()))
    }

    /// A retired listener that nobody needs any more.
    pub(super) fn remove_unix(&mut self, id: ListenerId) {
        if let Some(mut held) = self.held.remove(&id) {
            held.remove_file();
            self.shutdowns.forget(&held.listener);
            let _ = held.listener.shut();
            self.changes.push(Change::Drop(id));
        }
    }
}

impl Held {
    pub(super) fn remove_file(&mut self) {
        if let Some(file) = self.facts.name.as_mut().and_then(|name| name.file.take()) {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Puts the socket at `new` to where `path` is, with that one's mode and owner, and the other way round. At no moment
/// does the path lead nowhere. True: what was at the path is at `new` now.
fn exchange(new: &Path, path: &Path) -> Result<bool, Errno> {
    let Ok(stat) = rustix::fs::lstat(path) else {
        // Somebody removed it.
        return rustix::fs::rename(new, path).map(|()| false);
    };
    rustix::fs::chmod(new, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    // Fails without the privilege, and where it does nothing needs to be done: we made both.
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let _ = rustix::fs::chownat(CWD, new, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
    match rustix::fs::renameat_with(CWD, new, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        // Not every file system can: then the old one's file is gone, which does it no harm.
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::rename(new, path).map(|()| false),
        Err(e) => Err(e),
    }
}
