//! One process accepts, and passes each connection on to the worker that has the fewest (`SCM_RIGHTS`, unix(7)).
//!
//! For servers that want it: everything goes through the process that accepts, but it knows exactly how many connections
//! each worker has. Steering by the kernel costs less and has no such process.
//!
//! ```
//! use relisten::dispatch::{Dispatcher, pair};
//!
//! let (outlet, mut inlet) = pair()?;
//! let mut dispatcher = Dispatcher::new([outlet]);
//! // In the process that accepts; a file stands for a connection here.
//! let slot = dispatcher.dispatch(std::fs::File::open("/dev/null")?.into())?;
//! assert_eq!(dispatcher.open(slot), 1);
//! // In the worker.
//! let connection = inlet.receive()?.expect("one was passed");
//! drop(connection);
//! inlet.finished()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use thiserror::Error;

/// The two ends between the process that accepts and one worker.
pub fn pair() -> io::Result<(Outlet, Inlet)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Outlet { socket: ours, open: 0, gone: false }, Inlet { socket: theirs, unsaid: 0 }))
}

/// The dispatcher's end of one worker.
#[derive(Debug)]
pub struct Outlet {
    socket: OwnedFd,
    open: u64,
    gone: bool,
}

/// The worker's end. Hand it over as a descriptor where the worker is a process of its own.
///
/// When it is dropped, or its process dies, what was passed and not received is closed: those connections are lost.
#[derive(Debug)]
pub struct Inlet {
    socket: OwnedFd,
    /// Finished connections that the dispatcher could not be told of yet.
    unsaid: u32,
}

/// Chooses the worker of each connection. Dropping it ends all inlets.
#[derive(Debug)]
pub struct Dispatcher {
    outlets: Vec<Outlet>,
    /// Who is asked first where several have as few.
    turn: usize,
}

/// Nobody could be given the connection. It comes back.
#[derive(Debug, Error)]
#[error("no worker takes connections")]
pub struct NobodyLeft {
    /// The connection.
    pub connection: OwnedFd,
    /// What was said last: `EAGAIN` when all workers are behind, `EPIPE` when they are gone.
    #[source]
    pub source: io::Error,
}

impl Dispatcher {
    /// Workers are known by their place in this order.
    pub fn new(outlets: impl IntoIterator<Item = Outlet>) -> Self {
        Self { outlets: outlets.into_iter().collect(), turn: 0 }
    }

    /// Passes a connection on to the worker with the fewest open ones, and closes it here. Which worker that was. Does not
    /// wait: a worker that is behind (its socket's buffer is full) is passed over, one that is gone is not asked again.
    pub fn dispatch(&mut self, connection: OwnedFd) -> Result<usize, NobodyLeft> {
        self.outlets.iter_mut().for_each(Outlet::hear);
        let count = self.outlets.len();
        let mut order: Vec<usize> = (0..count).map(|place| (self.turn + place) % count).collect();
        order.retain(|place| !self.outlets[*place].gone);
        order.sort_by_key(|place| self.outlets[*place].open);
        let mut last = Errno::PIPE;
        for place in order {
            match self.outlets[place].pass(connection.as_fd()) {
                Ok(()) => {
                    self.turn = (place + 1) % count;
                    return Ok(place);
                }
                Err(errno) => last = errno,
            }
        }
        Err(NobodyLeft { connection, source: last.into() })
    }

    /// Connections that this worker has, as far as it has said so up to the last [`dispatch`](Self::dispatch).
    pub fn open(&self, worker: usize) -> u64 {
        self.outlets.get(worker).map_or(0, |outlet| outlet.open)
    }
}

impl Outlet {
    /// What the worker has finished meanwhile.
    fn hear(&mut self) {
        let mut count = [0; 4];
        loop {
            match retry_on_intr(|| rustix::net::recv(&self.socket, &mut count, RecvFlags::DONTWAIT)) {
                Ok((_, 4)) => self.open = self.open.saturating_sub(u32::from_ne_bytes(count).into()),
                Err(Errno::AGAIN) => return,
                _ => {
                    self.gone = true;
                    return;
                }
            }
        }
    }

    fn pass(&mut self, connection: BorrowedFd<'_>) -> Result<(), Errno> {
        let descriptors = [connection];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        beside.push(SendAncillaryMessage::ScmRights(&descriptors));
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match retry_on_intr(|| sendmsg(&self.socket, &[IoSlice::new(b"c")], &mut beside, flags)) {
            Ok(_) => {
                self.open += 1;
                Ok(())
            }
            Err(errno) => {
                self.gone |= matches!(errno, Errno::PIPE | Errno::CONNRESET);
                Err(errno)
            }
        }
    }
}

impl Inlet {
    /// Waits for the next connection (unless the descriptor is non-blocking: then `EAGAIN`). `None`: the dispatcher is
    /// gone.
    pub fn receive(&self) -> io::Result<Option<OwnedFd>> {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = retry_on_intr(|| {
            let mut parts = [IoSliceMut::new(&mut byte)];
            recvmsg(&self.socket, &mut parts, &mut beside, RecvFlags::CMSG_CLOEXEC)
        });
        let received = match received {
            // It went without having heard all that was said of finished connections.
            Err(Errno::CONNRESET) => return Ok(None),
            other => other?,
        };
        let mut passed = beside.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        match passed.next().and_then(|mut descriptors| descriptors.next()) {
            Some(connection) => Ok(Some(connection)),
            None if received.bytes == 0 => Ok(None),
            // No descriptor was left for it in this process, and the kernel has closed it.
            None => Err(Errno::MFILE.into()),
        }
    }

    /// Says that one connection is closed. Does not wait; what can't be said now is said with the next.
    ///
    /// # Errors
    ///
    /// `EPIPE` when the dispatcher is gone.
    pub fn finished(&mut self) -> io::Result<()> {
        self.unsaid += 1;
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match retry_on_intr(|| rustix::net::send(&self.socket, &self.unsaid.to_ne_bytes(), flags)) {
            Ok(_) => {
                self.unsaid = 0;
                Ok(())
            }
            Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Inlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<Inlet> for OwnedFd {
    fn from(inlet: Inlet) -> Self {
        inlet.socket
    }
}

impl From<OwnedFd> for Inlet {
    fn from(socket: OwnedFd) -> Self {
        Self { socket, unsaid: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn connection() -> OwnedFd {
        UnixStream::pair().unwrap().0.into()
    }

    fn scene(count: usize) -> (Dispatcher, Vec<Inlet>) {
        let (outlets, inlets): (Vec<_>, Vec<_>) = (0..count).map(|_| pair().unwrap()).unzip();
        (Dispatcher::new(outlets), inlets)
    }

    #[test]
    fn what_is_passed_is_the_connection() {
        let (mut dispatcher, mut inlets) = scene(1);
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        dispatcher.dispatch(theirs.into()).unwrap();
        let mut passed = UnixStream::from(inlets[0].receive().unwrap().unwrap());
        passed.write_all(b"hello").unwrap();
        drop(passed);
        inlets[0].finished().unwrap();
        let mut said = String::new();
        io::Read::read_to_string(&mut ours, &mut said).unwrap();
        assert_eq!(said, "hello");
        // What it has not heard does not matter.
        drop(dispatcher);
        assert!(inlets[0].receive().unwrap().is_none());
        assert!(inlets[0].receive().unwrap().is_none());
    }

    #[test]
    fn the_one_with_the_fewest_gets_it() {
        let (mut dispatcher, mut inlets) = scene(3);
        let given: Vec<usize> = (0..6).map(|_| dispatcher.dispatch(connection()).unwrap()).collect();
        assert_eq!(given, [0, 1, 2, 0, 1, 2]);
        for _ in 0..2 {
            inlets[1].receive().unwrap().unwrap();
            inlets[1].finished().unwrap();
        }
        assert_eq!(dispatcher.dispatch(connection()).unwrap(), 1);
        assert_eq!((0..3).map(|worker| dispatcher.open(worker)).collect::<Vec<_>>(), [2, 1, 2]);
    }

    #[test]
    fn who_is_gone_or_behind_is_passed_over() {
        let (mut dispatcher, mut inlets) = scene(2);
        drop(inlets.remove(0));
        assert_eq!(dispatcher.dispatch(connection()).unwrap(), 1);
        // The other one never receives: some time its buffer is full, and the connection comes back.
        let (kept, error) = loop {
            if let Err(NobodyLeft { connection, source }) = dispatcher.dispatch(connection()) {
                break (connection, source);
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        inlets[0].receive().unwrap().unwrap();
        inlets[0].finished().unwrap();
        assert_eq!(dispatcher.dispatch(kept).unwrap(), 1);
        drop(inlets);
        assert!(dispatcher.dispatch(connection()).is_err());
    }

    #[test]
    fn what_could_not_be_said_is_said_later() {
        let (mut dispatcher, mut inlets) = scene(1);
        let count = 2000;
        for _ in 0..count {
            dispatcher.dispatch(connection()).unwrap();
            inlets[0].receive().unwrap().unwrap();
        }
        // Far more than the buffer holds as long as nobody listens.
        (0..count).for_each(|_| inlets[0].finished().unwrap());
        dispatcher.dispatch(connection()).unwrap();
        inlets[0].finished().unwrap();
        dispatcher.dispatch(connection()).unwrap();
        assert_eq!(dispatcher.open(0), 1);
    }
}
