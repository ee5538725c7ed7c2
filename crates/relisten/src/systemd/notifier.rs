use super::Message;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The way to the supervisor: NOTIFY_SOCKET.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    to: SocketAddr,
}

impl Notifier {
    /// `None` when NOTIFY_SOCKET is not set: nobody wants to know.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] when it is neither a path nor `@` and an abstract name (`vsock:` is not
    /// understood).
    pub fn from_env() -> io::Result<Option<Self>> {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(address) if !address.is_empty() => Self::new(&address).map(Some),
            _ => Ok(None),
        }
    }

    /// To this address: an absolute path, or `@` and an abstract name.
    ///
    /// # Errors
    ///
    /// As for [`from_env`](Self::from_env).
    pub fn new(address: &OsStr) -> io::Result<Self> {
        let to = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => {
                let why = format!(
                    "NOTIFY_SOCKET is '{}', but must be an absolute path or begin with '@'",
                    address.display()
                );
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
        };
        Ok(Self { socket: UnixDatagram::unbound()?, to })
    }

    /// Sends a message. Waits while the supervisor's queue is full.
    pub fn send(&self, message: &Message) -> io::Result<()> {
        self.socket.send_to_addr(message.to_string().as_bytes(), &self.to).map(drop)
    }

    /// The same, with a descriptor beside it.
    pub fn send_with(&self, message: &Message, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let to = match (self.to.as_pathname(), self.to.as_abstract_name()) {
            (Some(path), _) => SocketAddrUnix::new(path)?,
            (None, Some(name)) => SocketAddrUnix::new_abstract_name(name)?,
            (None, None) => return Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let text = message.to_string();
        let parts = [io::IoSlice::new(text.as_bytes())];
        rustix::net::sendmsg_addr(&self.socket, &to, &parts, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// Sends a message to NOTIFY_SOCKET. `false` when there is none.
///
/// # Errors
///
/// As for [`Notifier::from_env`], and what `sendto` says.
pub fn notify(message: &Message) -> io::Result<bool> {
    match Notifier::from_env()? {
        Some(notifier) => notifier.send(message).map(|()| true),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sends_to(receiver: &UnixDatagram, address: &OsStr) {
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let message = Message { ready: true, status: Some("up".into()), ..Message::default() };
        Notifier::new(address).unwrap().send(&message).unwrap();
        let mut buffer = [0; 100];
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(Message::parse(&buffer[..length]), message);
    }

    #[test]
    fn sends_to_a_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        sends_to(&UnixDatagram::bind(&path).unwrap(), path.as_os_str());
    }

    #[test]
    fn sends_to_an_abstract_name() {
        let name = format!("relisten-test-notify-{}", std::process::id());
        let receiver =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
        sends_to(&receiver, OsStr::new(&format!("@{name}")));
    }

    #[test]
    fn refuses_other_addresses() {
        for bad in ["", "relative", "vsock:2:1", "/with\0zero"] {
            let error = Notifier::new(OsStr::new(bad)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad}");
        }
    }
}
