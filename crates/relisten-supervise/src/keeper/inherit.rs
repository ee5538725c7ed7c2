//! Taking over from a keeper.

use super::client::{Client, Error, begin, next_packet};
use super::drain::{self, TAIL, read_tail};
use super::protocol::{Kind, Reply, Request, VERSION};
use super::wire;
use crate::unix;
use rustix::net::SocketType;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a take-over may last. The keeper gives up after 10 s.
const PATIENCE: Duration = Duration::from_secs(8);

/// Everything that a keeper held.
#[derive(Debug)]
pub struct Inheritance {
    /// The connection to the keeper, which still holds everything: what is not wanted must be dropped there too.
    pub client: Client,
    /// The state that the last supervisor left, if it left one.
    pub state: Option<Vec<u8>>,
    /// The descriptors, in the order they were put.
    pub descriptors: Vec<Kept>,
    /// Keys of descriptors that could not be received, because this process has reached its limit of open files.
    /// The keeper still holds them.
    pub missing: Vec<String>,
}

/// One descriptor that a keeper held.
#[derive(Debug)]
pub struct Kept {
    /// Under this key.
    pub key: String,
    /// What it is.
    pub kind: Kind,
    /// Our duplicate.
    pub descriptor: OwnedFd,
    /// What the worker printed while no supervisor was there; only for outputs, and only if it did.
    pub drained: Option<DrainedOutput>,
}

/// What a worker printed while no supervisor was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainedOutput {
    /// The last of it, 64 KiB at most; begins in the middle of a line if something is lost.
    pub tail: Vec<u8>,
    /// Bytes before `tail` that are lost.
    pub lost_bytes: u64,
    /// Newlines in what is lost.
    pub lost_lines: u64,
}

pub(super) fn take_over(path: &Path) -> Result<Option<Inheritance>, Error> {
    let socket = match unix::connect(path, SocketType::SEQPACKET) {
        Ok(socket) => socket,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(e) => return Err(e.into()),
    };
    // Whoever sits there would get our trust: descriptors of our listeners would come from it.
    if !unix::peer_is_trusted(&socket) {
        return Err(Error::Refused(format!("{} belongs to another user", path.display())));
    }
    let until = Instant::now() + PATIENCE;
    // A keeper that refuses at once may already be gone when we say hello; its answer is still there.
    let hello = wire::send(&socket, &Request::Hello { version: VERSION }.encode(1), &[]);
    let (pid, items) = match (begin(&socket, PATIENCE), hello) {
        (Ok(welcome), Ok(())) => welcome,
        (Err(e @ Error::Refused(_)), _) | (Err(e), Ok(())) => return Err(e),
        (_, Err(e)) => return Err(e.into()),
    };
    let (mut state, mut missing) = (None, Vec::new());
    let mut descriptors = Vec::with_capacity(items.min(4096) as usize);
    loop {
        let mut packet = next_packet(&socket, until)?;
        let [first, second] = std::mem::take(&mut packet.descriptors);
        match Reply::decode(packet.bytes()) {
            Some(Reply::State) => state = Some(read_state(first.ok_or(Error::Nonsense)?)?),
            Some(Reply::Item { kind, key, drained_bytes, drained_lines }) => {
                let Some(descriptor) = first else {
                    missing.push(key.to_owned());
                    continue;
                };
                let drained = (drained_bytes > 0)
                    .then(|| drained_output(second.as_ref(), drained_bytes, drained_lines));
                descriptors.push(Kept { key: key.to_owned(), kind, descriptor, drained });
            }
            Some(Reply::End) => break,
            Some(Reply::Refused { why }) => return Err(Error::Refused(why.to_owned())),
            // Something that a later version adds.
            _ => {}
        }
    }
    wire::send(&socket, &Request::Taken.encode(2), &[])?;
    let answer = next_packet(&socket, until)?;
    match Reply::decode(answer.bytes()) {
        Some(Reply::Ack { refusal: None }) => {}
        Some(Reply::Refused { why }) => return Err(Error::Refused(why.to_owned())),
        _ => return Err(Error::Nonsense),
    }
    let client = Client::new(socket, pid)?;
    Ok(Some(Inheritance { client, state, descriptors, missing }))
}

fn read_state(memfd: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(memfd);
    // The offset is shared with the one who wrote it.
    file.rewind()?;
    let mut state = Vec::new();
    file.read_to_end(&mut state)?;
    Ok(state)
}

fn drained_output(memfd: Option<&OwnedFd>, bytes: u64, lines: u64) -> DrainedOutput {
    let tail = memfd.and_then(|fd| read_tail(fd.as_fd(), bytes).ok()).unwrap_or_default();
    debug_assert!(tail.len() as u64 <= TAIL);
    DrainedOutput {
        lost_bytes: bytes - tail.len() as u64,
        lost_lines: lines.saturating_sub(drain::lines(&tail)),
        tail,
    }
}
