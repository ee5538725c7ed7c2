//! The socket behind `NOTIFY_SOCKET`.
//!
//! Where it is: a path in the instance's own directory (0700) as long as workers are of our user, because file
//! permissions then keep all others out. Workers of another user (`--user`) can't reach that directory; for them
//! it is a name in the abstract namespace, which everybody in the network namespace may send to. Either way the
//! kernel says who sent a message (`SO_PASSCRED`), and what comes from no worker is thrown away; what a stranger
//! can do is fill the queue, which is short and emptied at once.
//!
//! The socket is worth keeping by the keeper: workers know its address from their environment, so a successor must
//! have the very same one.

use crate::{async_fd, unix};
use relisten::systemd::Message;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

/// Longer messages are not read, bytes; systemd's own limit.
const LONGEST: usize = 4096;

/// The receiving end of the sd_notify protocol.
#[derive(Debug)]
pub struct NotifySocket {
    socket: AsyncFd<OwnedFd>,
    ignored: u64,
}

/// A message and who sent it.
#[derive(Debug)]
pub struct Received {
    /// The sender's process ID, from the kernel. A worker's children may send for it: see [`owner`].
    pub pid: u32,
    /// The sender's user ID, from the kernel.
    pub uid: u32,
    /// What it says.
    pub message: Message,
    /// What came beside it.
    pub descriptor: Option<OwnedFd>,
}

impl NotifySocket {
    /// Bind to a path, mode 0600; a leftover socket there is replaced. Must be called within a tokio runtime, as
    /// must all that make one.
    pub fn at_path(path: &Path) -> io::Result<Self> {
        unix::remove_leftover(path)?;
        Self::from_descriptor(unix::bind_private(path, SocketType::DGRAM)?)
    }

    /// Bind to a name in the abstract namespace that nobody has: a readable prefix and the process ID. Fails with
    /// EADDRINUSE if somebody has it all the same.
    pub fn in_abstract(name: &str) -> io::Result<Self> {
        let name = format!("relisten/{name}/{}/notify", std::process::id());
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        rustix::net::bind(&socket, &address)?;
        Self::from_descriptor(socket)
    }

    /// One that exists already: the keeper had it.
    pub fn from_descriptor(socket: OwnedFd) -> io::Result<Self> {
        rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        let socket = async_fd::watch(socket, Interest::READABLE)?;
        Ok(Self { socket, ignored: 0 })
    }

    /// What `NOTIFY_SOCKET` must be: the path, or `@` and the abstract name.
    pub fn address(&self) -> io::Result<OsString> {
        let address = SocketAddrUnix::try_from(rustix::net::getsockname(&self.socket)?)?;
        let bytes = match (address.path_bytes(), address.abstract_name()) {
            (Some(path), _) => path.to_vec(),
            (None, Some(name)) => [b"@", name].concat(),
            (None, None) => return Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        Ok(OsString::from_vec(bytes))
    }

    /// The next message. Safe to drop and to call again. What is no message, or too long, or of nobody, is passed
    /// over and counted.
    pub async fn receive(&mut self) -> io::Result<Received> {
        loop {
            // In a flood tokio's own budget makes this pending now and then, so that others have their turn.
            let mut guard = self.socket.readable().await?;
            match receive(self.socket.get_ref()) {
                Ok(Some(received)) => return Ok(received),
                Ok(None) => self.ignored += 1,
                Err(Errno::AGAIN) => guard.clear_ready_matching(Ready::READABLE),
                // Out of memory, say: the message is lost, the socket is not.
                Err(e) if e != Errno::BADF && e != Errno::NOTSOCK => self.ignored += 1,
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// How many messages were passed over.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

fn receive(socket: &OwnedFd) -> Result<Option<Received>, Errno> {
    let mut buffer = [0; LONGEST];
    // There is room for the credentials, which come first, and one descriptor. The kernel closes those that find no room,
    // and we those that nobody wants: which is all that FDSTORE and BARRIER need from us.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC)
    })?;
    let (mut sender, mut descriptor) = (None, None);
    for part in control.drain() {
        match part {
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials),
            RecvAncillaryMessage::ScmRights(mut fds) => descriptor = fds.next(),
            _ => {}
        }
    }
    let Some(sender) = sender.filter(|_| !message.flags.contains(ReturnFlags::TRUNC)) else {
        return Ok(None);
    };
    let message = Message::parse(&buffer[..message.bytes]);
    let unknown = message.unknown;
    if message == (Message { unknown, ..Message::default() }) {
        return Ok(None);
    }
    // Nobody else waits for an answer.
    let descriptor = descriptor.filter(|_| message.load);
    Ok(Some(Received { pid: sender.pid.as_raw_pid() as u32, uid: sender.uid.as_raw(), message, descriptor }))
}

/// Whose is this process? `known` says whether a process ID is a worker's. A worker is in a session of its own and
/// most of its children stay in that; those that left it are found by their parents. `None` for strangers, and for
/// a sender that has ended already.
pub fn owner<T>(pid: u32, known: impl Fn(u32) -> Option<T>) -> Option<T> {
    if let Some(found) = known(pid) {
        return Some(found);
    }
    let mut family = Family::of(pid)?;
    if let Some(found) = known(family.session) {
        return Some(found);
    }
    // Deeper trees of strangers in sessions of their own are not worth the reading.
    for _ in 0..16 {
        if family.parent <= 1 {
            return None;
        }
        if let Some(found) = known(family.parent) {
            return Some(found);
        }
        family = Family::of(family.parent)?;
        if let Some(found) = known(family.session) {
            return Some(found);
        }
    }
    None
}

#[derive(Debug, PartialEq, Eq)]
struct Family {
    parent: u32,
    session: u32,
}

impl Family {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// `pid (command) state ppid pgrp session …`; the command may hold anything.
    fn parse(stat: &[u8]) -> Option<Self> {
        let end = memchr::memrchr(b')', stat)?;
        let mut fields = OsStr::from_bytes(&stat[end + 1..]).to_str()?.split_ascii_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        Some(Self { parent, session })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    async fn next(socket: &mut NotifySocket) -> Received {
        tokio::time::timeout(Duration::from_secs(10), socket.receive()).await.expect("within 10 s").unwrap()
    }

    #[tokio::test]
    async fn says_who_sent_what() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n");
        let mut socket = NotifySocket::at_path(&path).unwrap();
        assert_eq!(socket.address().unwrap(), path.as_os_str());
        let sender = UnixDatagram::unbound().unwrap();
        for nonsense in [&b""[..], b"\0\xff", b"HELLO", &[b'A'; 5000]] {
            sender.send_to(nonsense, &path).unwrap();
        }
        sender.send_to(b"STATUS=fine\nREADY=1", &path).unwrap();
        let received = next(&mut socket).await;
        let (me, us) = (std::process::id(), rustix::process::geteuid().as_raw());
        assert_eq!((received.pid, received.uid), (me, us));
        assert!(received.message.ready);
        assert_eq!(received.message.status.as_deref(), Some("fine"));
        assert_eq!(socket.ignored(), 4);
        // The same place again, as after a crash.
        drop(socket);
        assert!(NotifySocket::at_path(&path).is_ok());
    }

    #[tokio::test]
    async fn works_without_a_file_and_for_a_successor() {
        let socket = NotifySocket::in_abstract("test").unwrap();
        let address = socket.address().unwrap();
        let name = &address.as_bytes()[1..];
        assert_eq!(address.as_bytes()[0], b'@');
        let sender =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .unwrap();
        let kept = socket.as_fd().try_clone_to_owned().unwrap();
        drop(socket);
        let to = SocketAddrUnix::new_abstract_name(name).unwrap();
        rustix::net::sendto(&sender, b"STOPPING=1", rustix::net::SendFlags::empty(), &to).unwrap();
        let mut successor = NotifySocket::from_descriptor(kept).unwrap();
        assert_eq!(successor.address().unwrap(), address);
        assert!(next(&mut successor).await.message.stopping);
    }

    #[tokio::test]
    async fn descriptors_are_closed_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n");
        let mut socket = NotifySocket::at_path(&path).unwrap();
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(&path).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        let fds = [writer.as_fd(); 3];
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
        let parts = [io::IoSlice::new(b"BARRIER=1\nFDSTORE=1")];
        rustix::net::sendmsg(&sender, &parts, &mut control, rustix::net::SendFlags::empty()).unwrap();
        drop(writer);
        let received = next(&mut socket).await;
        assert!(received.message.barrier);
        let mut byte = [0];
        // The end of the pipe: nobody holds the writing end any more. It would block otherwise.
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        assert_eq!(rustix::io::read(&reader, &mut byte), Ok(0));
    }

    #[tokio::test]
    async fn a_flood_leaves_time_for_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n");
        let mut socket = NotifySocket::at_path(&path).unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flood = std::thread::spawn({
            let (stop, path) = (stop.clone(), path.clone());
            move || {
                let sender = UnixDatagram::unbound().unwrap();
                sender.set_nonblocking(true).unwrap();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = sender.send_to(b"garbage", &path);
                }
            }
        });
        // No message in it: `receive` never returns, but must not keep the timer from running.
        for _ in 0..20 {
            let slept = tokio::time::timeout(Duration::from_millis(5), socket.receive()).await;
            assert!(slept.is_err());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        flood.join().unwrap();
        assert!(socket.ignored() > 0);
    }

    #[test]
    fn children_speak_for_their_worker() {
        let me = std::process::id();
        let mine = |pid| (pid == me).then_some("me");
        assert_eq!(owner(me, mine), Some("me"));
        let mut child = std::process::Command::new("setsid").args(["sleep", "60"]).spawn().unwrap();
        assert_eq!(owner(child.id(), mine), Some("me"));
        assert_eq!(owner(child.id(), |_| None::<()>), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(owner(1, mine), None);
        assert_eq!(owner(u32::MAX, mine), None);
    }

    #[test]
    fn a_command_may_be_called_anything() {
        let family = Family::parse(b"42 (evil) R 1 1 1) S 7 42 9 0 -1").unwrap();
        assert_eq!(family, Family { parent: 7, session: 9 });
        assert_eq!(Family::parse(b"42 (no end"), None);
    }
}
