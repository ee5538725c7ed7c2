//! Unix sockets that only the instance's own user may use.

use rustix::fs::{FileType, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The longest path of a Unix socket, bytes (`sun_path` less its final zero).
pub(crate) const LONGEST_PATH: usize = 107;

/// A listening socket at `path`, mode 0600 from its first moment on: the socket's inode gets its mode before
/// `bind`, which passes it on to the file, so that there is no window and no need for a umask.
///
/// A path that is taken is EADDRINUSE, also if nobody listens there any more.
pub(crate) fn listen_private(path: &Path, kind: SocketType, backlog: i32) -> io::Result<OwnedFd> {
    let socket = bind_private(path, kind)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// Like [`listen_private`], but only bound: for datagrams.
pub(crate) fn bind_private(path: &Path, kind: SocketType) -> io::Result<OwnedFd> {
    let address = address(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// Connect to the socket at `path`.
///
/// ENOENT: nothing is there. ECONNREFUSED: a socket is there, but whoever listened is gone. EACCES: it belongs
/// to another user. EAGAIN: too many wait there already.
pub(crate) fn connect(path: &Path, kind: SocketType) -> io::Result<OwnedFd> {
    let address = address(path)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

fn address(path: &Path) -> io::Result<SocketAddrUnix> {
    SocketAddrUnix::new(path).map_err(|e| match e {
        rustix::io::Errno::NAMETOOLONG => io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "the path {} is longer than the {LONGEST_PATH} bytes a Unix socket may have",
                path.display()
            ),
        ),
        e => e.into(),
    })
}

/// Who is at the other end, as the kernel saw it at `connect` (`SO_PEERCRED`)?
pub(crate) fn peer_is_trusted(socket: impl AsFd) -> bool {
    rustix::net::sockopt::socket_peercred(socket).is_ok_and(|peer| is_trusted(peer.uid.as_raw()))
}

/// Our own user and root may give orders; they could as well send us a signal.
pub(crate) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Remove a socket that its owner left behind, and nothing but a socket.
pub(crate) fn remove_leftover(path: &Path) -> io::Result<()> {
    match rustix::fs::lstat(path) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Socket => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{} exists and is not a socket", path.display()),
        )),
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Device and inode of a file, to know it again.
pub(crate) fn identity(path: &Path) -> Option<(u64, u64)> {
    rustix::fs::lstat(path).ok().map(|s| (s.st_dev, s.st_ino))
}
