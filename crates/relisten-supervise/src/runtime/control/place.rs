//! Where an instance's files are, and whose they are.
//!
//! | file | what |
//! |---|---|
//! | `NAME.sock` | the control socket |
//! | `NAME.lock` | locked (`flock`) by the supervisor while it lives, and holds its process ID |
//! | `NAME.sock.keeper` | where the keeper waits for a successor |
//! | `NAME.notify` | the workers' `NOTIFY_SOCKET`, unless it is abstract |

use super::client::ClientError;
use crate::{keeper, unix};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketType;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The longest name of an instance, bytes.
const LONGEST_NAME: usize = 64;

/// Why an instance can't have its place.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// An instance of this name runs already.
    #[error("an instance named {name:?} runs already{}; choose another name with --name, or stop that one",
        .pid.map_or_else(String::new, |pid| format!(" (process {pid})")))]
    Taken {
        /// The name.
        name: String,
        /// Its supervisor, if it said so.
        pid: Option<u32>,
    },
    /// This can't be a name.
    #[error(
        "{0:?} can't be an instance's name: use letters, digits, '-', '_' and '.', not at the beginning, and at \
             most 64 of them"
    )]
    Name(String),
    /// The directory can't be trusted with control sockets.
    #[error("{} can't be used for control sockets: {why}; set XDG_RUNTIME_DIR or use --control", .path.display())]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A system call failed.
    #[error("can't use {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The directories in which instances of this user can be, best first: for root `/run/relisten`, then
/// `$XDG_RUNTIME_DIR/relisten`, then `/tmp/relisten-UID`. Root's own comes first because its instances are started
/// by services, without a session, and looked at from within one.
pub fn search_dirs() -> Vec<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    // A directory of somebody else's (kept by `sudo -E`, say) is not ours to use.
    let xdg = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let xdg = xdg.filter(|dir| dir.is_absolute() && trusted(dir).is_ok());
    candidates(uid, xdg.as_deref())
}

fn candidates(uid: u32, xdg: Option<&Path>) -> Vec<PathBuf> {
    let root = (uid == 0).then(|| PathBuf::from("/run/relisten"));
    let xdg = xdg.map(|dir| dir.join("relisten"));
    root.into_iter().chain(xdg).chain([format!("/tmp/relisten-{uid}").into()]).collect()
}

/// The directory for new instances: the first of [`search_dirs`] that exists or can be made, mode 0700. It must
/// belong to us, and nobody else may write to it.
pub fn runtime_dir() -> Result<PathBuf, PlaceError> {
    let mut failed = None;
    for dir in search_dirs() {
        match make(&dir) {
            Ok(()) => return Ok(dir),
            Err(e) => failed = Some(e),
        }
    }
    // There is always /tmp to try.
    Err(failed.unwrap_or(PlaceError::Untrusted { path: "/tmp".into(), why: "it does not exist" }))
}

fn make(dir: &Path) -> Result<(), PlaceError> {
    match rustix::fs::mkdir(dir, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => trusted(dir),
        Err(e) => Err(PlaceError::Io { path: dir.to_owned(), source: e.into() }),
    }
}

fn trusted(dir: &Path) -> Result<(), PlaceError> {
    let path = || dir.to_owned();
    let stat = rustix::fs::lstat(dir).map_err(|e| PlaceError::Io { path: path(), source: e.into() })?;
    let why = if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        "it is no directory"
    } else if stat.st_uid != rustix::process::geteuid().as_raw() {
        "it belongs to another user"
    } else if Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
        "others may write to it"
    } else {
        return Ok(());
    };
    Err(PlaceError::Untrusted { path: path(), why })
}

/// Can this be an instance's name?
pub fn check_name(name: &str) -> Result<(), PlaceError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good =
        !name.is_empty() && name.len() <= LONGEST_NAME && !name.starts_with('.') && name.chars().all(allowed);
    if good { Ok(()) } else { Err(PlaceError::Name(name.to_owned())) }
}

/// The files of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    name: String,
    control: PathBuf,
}

impl Place {
    /// In the [`runtime_dir`], which is made if need be.
    pub fn of_name(name: &str) -> Result<Self, PlaceError> {
        check_name(name)?;
        Ok(Self::in_directory(&runtime_dir()?, name))
    }

    /// With the control socket at `control` (`--control`), in a directory that is the user's to answer for.
    pub fn at(name: &str, control: &Path) -> Result<Self, PlaceError> {
        check_name(name)?;
        let control = std::path::absolute(control)
            .map_err(|source| PlaceError::Io { path: control.to_owned(), source })?;
        Ok(Self { name: name.to_owned(), control })
    }

    pub(super) fn in_directory(dir: &Path, name: &str) -> Self {
        Self { name: name.to_owned(), control: dir.join(format!("{name}.sock")) }
    }

    /// The instance's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The control socket.
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// Where the keeper waits for a successor.
    pub fn keeper(&self) -> PathBuf {
        keeper::path_beside(&self.control)
    }

    /// The workers' `NOTIFY_SOCKET`, where it is a path.
    pub fn notify(&self) -> PathBuf {
        self.beside("notify")
    }

    fn lock(&self) -> PathBuf {
        self.beside("lock")
    }

    /// `NAME.sock` becomes `NAME.KIND`, any other `PATH` becomes `PATH.KIND`.
    fn beside(&self, kind: &str) -> PathBuf {
        match self.control.extension() {
            Some(sock) if sock == "sock" => self.control.with_extension(kind),
            _ => {
                let mut path = OsString::from(&self.control);
                path.push(".");
                path.push(kind);
                path.into()
            }
        }
    }

    /// Become the one supervisor here. The claim holds until it is dropped or the process ends, however it ends;
    /// children don't inherit it. What a dead instance left behind stays until it is replaced.
    pub fn claim(&self) -> Result<Claim, PlaceError> {
        loop {
            if let Some(claim) = self.claim_with(self.open_lock()?)? {
                return Ok(claim);
            }
        }
    }

    fn open_lock(&self) -> Result<OwnedFd, PlaceError> {
        let path = self.lock();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| PlaceError::Io { path, source: e.into() })
    }

    /// `None`: the one before us removed the file after we had opened it, so this would be a lock on nothing.
    fn claim_with(&self, lock: OwnedFd) -> Result<Option<Claim>, PlaceError> {
        let path = self.lock();
        let failed = |e: Errno| PlaceError::Io { path: path.clone(), source: e.into() };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(PlaceError::Taken { name: self.name.clone(), pid: read_pid(&lock) });
            }
            Err(e) => return Err(failed(e)),
        }
        let ours = rustix::fs::fstat(&lock).map_err(failed)?;
        let there = rustix::fs::statat(rustix::fs::CWD, &path, AtFlags::SYMLINK_NOFOLLOW);
        if !there.is_ok_and(|t| (t.st_dev, t.st_ino) == (ours.st_dev, ours.st_ino)) {
            return Ok(None);
        }
        let pid = format!("{}\n", std::process::id());
        rustix::fs::ftruncate(&lock, 0).map_err(failed)?;
        rustix::io::pwrite(&lock, pid.as_bytes(), 0).map_err(failed)?;
        Ok(Some(Claim { place: self.clone(), _lock: lock }))
    }
}

fn read_pid(lock: &OwnedFd) -> Option<u32> {
    let mut text = [0; 16];
    let n = rustix::io::pread(lock, &mut text, 0).ok()?;
    std::str::from_utf8(&text[..n]).ok()?.trim().parse().ok()
}

/// The right to be the supervisor of a place.
#[derive(Debug)]
pub struct Claim {
    place: Place,
    _lock: OwnedFd,
}

impl Claim {
    /// The orderly end: remove the files. (The keeper removes its own.)
    pub fn remove(self) {
        let _ = unix::remove_leftover(self.place.control());
        let _ = unix::remove_leftover(&self.place.notify());
        let _ = std::fs::remove_file(self.place.lock());
    }
}

/// An instance that can be found by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Its control socket.
    pub control: PathBuf,
    /// Whether it runs.
    pub state: InstanceState,
}

/// Does it run?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstanceState {
    /// Its supervisor listens; the process ID, where it could be had.
    Runs(Option<u32>),
    /// Its supervisor is gone, but its keeper waits for the next one; workers may still serve.
    Kept,
    /// Only its files are left.
    Dead,
    /// It belongs to another user.
    Forbidden,
}

/// All instances in the [`search_dirs`], by name. Those with `--control` elsewhere can't be found, and a directory that
/// somebody else could have put a socket into is passed over.
pub fn list_instances() -> Vec<Instance> {
    list_in(&search_dirs())
}

pub(super) fn list_in(dirs: &[PathBuf]) -> Vec<Instance> {
    let mut found = BTreeSet::new();
    for dir in dirs.iter().filter(|dir| trusted(dir).is_ok()) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
            let file = entry.file_name();
            let name = file.to_str().map(|f| f.strip_suffix(".keeper").unwrap_or(f));
            if let Some(name) = name.and_then(|f| f.strip_suffix(".sock")) {
                let place = Place::in_directory(dir, name);
                let state = state_of(&place);
                found.insert(Instance { name: name.to_owned(), control: place.control, state });
            }
        }
    }
    found.into_iter().collect()
}

fn state_of(place: &Place) -> InstanceState {
    match unix::connect(place.control(), SocketType::STREAM) {
        Ok(socket) => {
            let peer = rustix::net::sockopt::socket_peercred(&socket);
            InstanceState::Runs(peer.ok().map(|p| p.pid.as_raw_pid() as u32))
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => InstanceState::Forbidden,
        Err(_) if unix::connect(&place.keeper(), SocketType::SEQPACKET).is_ok() => InstanceState::Kept,
        Err(_) => InstanceState::Dead,
    }
}

/// The instance with this name, or the only one that runs.
pub fn instance_of(name: Option<&str>) -> Result<Instance, ClientError> {
    choose(list_instances(), name)
}

pub(super) fn choose(all: Vec<Instance>, name: Option<&str>) -> Result<Instance, ClientError> {
    let runs = |i: &Instance| matches!(i.state, InstanceState::Runs(_));
    let running = all.iter().filter(|i| runs(i)).map(|i| i.name.clone()).collect::<Vec<_>>();
    let Some(name) = name else {
        return match &running[..] {
            [_] => all.into_iter().find(runs).ok_or(ClientError::NoInstance { name: None, running }),
            [] => Err(ClientError::NoInstance { name: None, running }),
            _ => Err(ClientError::Ambiguous { running }),
        };
    };
    let mut named: Vec<_> = all.into_iter().filter(|i| i.name == name).collect();
    // One that runs before what an older one left in another directory.
    named.sort_by_key(|i| i.state);
    match named.into_iter().next() {
        Some(instance) if instance.state == InstanceState::Dead => {
            Err(ClientError::Stale { path: instance.control })
        }
        Some(instance) if instance.state == InstanceState::Kept => {
            Err(ClientError::Kept { name: instance.name })
        }
        Some(instance) => Ok(instance),
        None => Err(ClientError::NoInstance { name: Some(name.to_owned()), running }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn directories_in_their_order() {
        let paths = |uid, xdg: Option<&str>| {
            candidates(uid, xdg.map(Path::new)).iter().map(|p| p.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(paths(0, None), ["/run/relisten", "/tmp/relisten-0"]);
        assert_eq!(
            paths(0, Some("/run/user/0")),
            ["/run/relisten", "/run/user/0/relisten", "/tmp/relisten-0"]
        );
        assert_eq!(paths(7, Some("/run/user/7")), ["/run/user/7/relisten", "/tmp/relisten-7"]);
    }

    #[test]
    fn names() {
        for good in ["a", "node", "my-app_2.js", &"x".repeat(64)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ü", "a\0", &"x".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_directory_of_ours_will_do() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("relisten");
        make(&dir).unwrap();
        make(&dir).unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o770)).unwrap();
        assert!(make(&dir).unwrap_err().to_string().contains("others may write"));
        let link = top.path().join("link");
        std::os::unix::fs::symlink(top.path(), &link).unwrap();
        assert!(make(&link).unwrap_err().to_string().contains("no directory"));
    }

    #[test]
    fn a_name_is_used_once() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::in_directory(dir.path(), "web");
        let claim = place.claim().unwrap();
        let error = place.claim().unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        // Dropped without having cleaned up, as if it had been killed: the next one may.
        drop(claim);
        let claim = place.claim().unwrap();
        claim.remove();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        place.claim().unwrap().remove();
    }

    #[test]
    fn a_lock_on_a_removed_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::in_directory(dir.path(), "web");
        let opened = place.open_lock().unwrap();
        let opened_too = place.open_lock().unwrap();
        place.claim().unwrap().remove();
        assert!(place.claim_with(opened).unwrap().is_none(), "nothing is there");
        let _claim = place.claim().unwrap();
        assert!(place.claim_with(opened_too).unwrap().is_none(), "another file is there");
    }

    #[test]
    fn of_many_exactly_one_gets_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::in_directory(dir.path(), "web");
        let holders = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        if let Ok(claim) = place.claim() {
                            use std::sync::atomic::Ordering::SeqCst;
                            assert_eq!(holders.fetch_add(1, SeqCst), 0, "two supervisors at one place");
                            std::thread::sleep(std::time::Duration::from_micros(50));
                            holders.fetch_sub(1, SeqCst);
                            claim.remove();
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn what_is_left_and_what_runs() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().to_owned(), dir.path().join("never made")];
        let dead = Place::in_directory(dir.path(), "dead");
        drop(unix::listen_private(dead.control(), SocketType::STREAM, 1).unwrap());
        let kept = Place::in_directory(dir.path(), "kept");
        let _keeper = unix::listen_private(&kept.keeper(), SocketType::SEQPACKET, 1).unwrap();
        let runs = Place::in_directory(dir.path(), "runs");
        let _listener = unix::listen_private(runs.control(), SocketType::STREAM, 1).unwrap();
        std::fs::write(dir.path().join("unrelated"), "").unwrap();

        let all = list_in(&dirs);
        let states: Vec<_> = all.iter().map(|i| (&*i.name, i.state)).collect();
        let me = Some(std::process::id());
        let expected =
            [("dead", InstanceState::Dead), ("kept", InstanceState::Kept), ("runs", InstanceState::Runs(me))];
        assert_eq!(states, expected);
        assert_eq!(choose(all.clone(), None).unwrap().name, "runs");
        assert_eq!(choose(all.clone(), Some("runs")).unwrap().control, runs.control());
        assert!(matches!(choose(all.clone(), Some("dead")), Err(ClientError::Stale { .. })));
        assert!(matches!(choose(all.clone(), Some("kept")), Err(ClientError::Kept { .. })));
        let error = choose(all.clone(), Some("other")).unwrap_err();
        assert!(error.cure().contains("runs"), "{}", error.cure());
        let _second =
            unix::listen_private(Place::in_directory(dir.path(), "too").control(), SocketType::STREAM, 1)
                .unwrap();
        assert!(matches!(choose(list_in(&dirs), None), Err(ClientError::Ambiguous { .. })));
        // Whoever may write there could have put anything into it.
        rustix::fs::chmod(dir.path(), Mode::from_raw_mode(0o777)).unwrap();
        assert_eq!(list_in(&dirs), []);
    }
}
