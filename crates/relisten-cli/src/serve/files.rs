//! Opening files beneath the root, and nowhere else.

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// O_NONBLOCK: opening a FIFO must not wait for a writer.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// The directory that is served.
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
    /// The kernel has no openat2 (before Linux 5.6), or a filter forbids it.
    walks: AtomicBool,
}

/// What a path leads to.
#[derive(Debug)]
pub(super) enum Found {
    File(File),
    Directory(OwnedFd),
}

/// A regular file, open for reading.
#[derive(Debug)]
pub(super) struct File {
    pub(super) fd: OwnedFd,
    /// Bytes.
    pub(super) size: u64,
    /// Seconds and nanoseconds since 1970.
    pub(super) modified: (i64, u32),
}

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Root> {
        let directory = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Root { directory, walks: AtomicBool::new(false) })
    }

    /// As on a kernel without openat2.
    #[cfg(test)]
    pub(super) fn without_openat2(path: &Path) -> Root {
        Root { walks: AtomicBool::new(true), ..Root::open(path).expect("there") }
    }

    /// Opens `path`, relative to the root, without `.` and `..` in it. Symbolic links are followed as long as they
    /// stay beneath the root; absolute ones never do.
    ///
    /// # Errors
    ///
    /// `EXDEV` for what leads out of the root, `ENOENT` for what is neither a file nor a directory.
    fn open_path(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        if self.walks.load(Ordering::Relaxed) {
            return walk(&self.directory, path);
        }
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: something was renamed while `..` in a link was resolved, and the kernel can't tell whether it
        // still lies beneath (openat2(2)).
        let mut tries = 0..3;
        loop {
            match openat2(&self.directory, path, READ, Mode::empty(), beneath) {
                Err(Errno::AGAIN) if tries.next().is_some() => {}
                Err(Errno::NOSYS | Errno::PERM) => {
                    self.walks.store(true, Ordering::Relaxed);
                    return walk(&self.directory, path);
                }
                result => return result,
            }
        }
    }

    /// Opens `path` and tells what it is. See [`open_path`](Self::open_path).
    pub(super) fn find(&self, path: &[u8]) -> Result<Found, Errno> {
        let fd = self.open_path(path)?;
        let stat = fstat(&fd)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Found::File(File::new(fd, &stat))),
            FileType::Directory => Ok(Found::Directory(fd)),
            _ => Err(Errno::NOENT),
        }
    }
}

impl File {
    fn new(fd: OwnedFd, stat: &Stat) -> File {
        File { fd, size: stat.st_size as u64, modified: (stat.st_mtime, stat.st_mtime_nsec as u32) }
    }
}

/// Without openat2: part by part, and no symbolic link at all, because following one safely is what openat2 is for.
fn walk(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory: Option<OwnedFd> = None;
    let mut parts = path.split(|&byte| byte == b'/').peekable();
    while let Some(part) = parts.next() {
        let at = directory.as_ref().unwrap_or(root).as_fd();
        let last = parts.peek().is_none();
        if !last && part == b".." {
            return Err(Errno::XDEV);
        }
        let next = openat(at, part, if last { READ | OFlags::NOFOLLOW } else { step }, Mode::empty())?;
        if last {
            return Ok(next);
        }
        directory = Some(next);
    }
    Err(Errno::NOENT)
}
