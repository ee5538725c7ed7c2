//! Network namespaces: which one is looked at, and how to get into another.

use crate::DiagError;
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// The inode of its file, as in `net:[4026531840]`; 0 where it could not be told.
    pub inode: u64,
    /// How it was asked for; `None`: the caller's own.
    pub asked: Option<String>,
}

/// A network namespace that was not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OtherNamespace {
    /// The inode of its file.
    pub inode: u64,
    /// A process in it, for `--pid`.
    pub pid: u32,
    /// The container that process runs in.
    pub container: Option<String>,
}

/// Which namespace is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The caller's own.
    Own,
    /// One with a name (ip-netns(8)) or a path to its file.
    Named(String),
    /// That of a process.
    Of(u32),
}

/// Where ip-netns(8) keeps the files of named namespaces.
const NAMED: &str = "/run/netns";

impl Which {
    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Own => None,
            Self::Named(name) if name.contains('/') => Some(PathBuf::from(name)),
            Self::Named(name) => Some(PathBuf::from(NAMED).join(name)),
            Self::Of(pid) => Some(PathBuf::from(format!("/proc/{pid}/ns/net"))),
        }
    }

    fn words(&self) -> Option<String> {
        match self {
            Self::Own => None,
            Self::Named(name) => Some(name.clone()),
            Self::Of(pid) => Some(format!("of process {pid}")),
        }
    }
}

/// Runs `look` in that namespace, on a thread of its own where it is another than the caller's. Entering another needs
/// CAP_SYS_ADMIN there and here.
pub fn inside<T: Send>(
    which: &Which,
    look: impl FnOnce(Namespace) -> Result<T, DiagError> + Send,
) -> Result<T, DiagError> {
    let own = inode("/proc/thread-self/ns/net").unwrap_or(0);
    let Some(path) = which.path() else {
        return look(Namespace { inode: own, asked: None });
    };
    let file: OwnedFd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| DiagError::Namespace { path: path.clone(), source: e })?;
    let inode = rustix::fs::fstat(&file).map_or(0, |stat| stat.st_ino);
    let namespace = Namespace { inode, asked: which.words() };
    if inode == own && own != 0 {
        return look(namespace);
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|e| DiagError::Namespace { path, source: e })?;
            look(namespace)
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn inode(path: &str) -> Option<u64> {
    fs::metadata(path).ok().map(|meta| meta.ino())
}

/// The namespaces of all processes that may be looked at, each with one process in it, but for `own`.
pub fn others(own: u64) -> Vec<(u64, u32)> {
    let mut found = std::collections::BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(inode) = inode(&format!("/proc/{pid}/ns/net")).filter(|inode| *inode != own) {
            let least = found.entry(inode).or_insert(pid);
            *least = pid.min(*least);
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_can_be_reached_in_every_way() {
        let own = inside(&Which::Own, Ok).unwrap();
        assert_ne!(own.inode, 0);
        let by_pid = inside(&Which::Of(std::process::id()), Ok).unwrap();
        assert_eq!(by_pid.inode, own.inode);
        assert_eq!(by_pid.asked.unwrap(), format!("of process {}", std::process::id()));
        let by_path = inside(&Which::Named("/proc/self/ns/net".into()), Ok).unwrap();
        assert_eq!(by_path.inode, own.inode);
    }

    #[test]
    fn one_that_is_not_there_is_named() {
        let error = inside(&Which::Named("no-such-name".into()), Ok).unwrap_err();
        assert!(error.to_string().contains("/run/netns/no-such-name"), "{error}");
        assert!(inside(&Which::Of(u32::MAX), Ok).is_err());
    }
}
