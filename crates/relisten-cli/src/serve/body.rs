//! Bodies of answers.

use super::connection::Busy;
use bytes::{Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags};
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::{JoinHandle, spawn_blocking};

/// How much of a file is read at a time.
const PIECE: u64 = 64 * 1024;

/// A body; its request counts as being served until the body and all its pieces are dropped.
#[derive(Debug)]
pub(super) struct Body {
    content: Content,
    busy: Option<Arc<Busy>>,
}

/// What was handed over is not sent yet: the server library keeps it until the client has room for it.
struct Piece {
    bytes: Bytes,
    busy: Arc<Busy>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.busy.moved();
    }
}

#[derive(Debug)]
enum Content {
    Empty,
    Whole(Bytes),
    File(Part),
}

/// A part of a file that is still to be sent.
#[derive(Debug)]
struct Part {
    file: Arc<OwnedFd>,
    offset: u64,
    left: u64,
    /// A read that had to wait for the disk.
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Body {
    pub(super) fn empty() -> Body {
        Body { content: Content::Empty, busy: None }
    }

    pub(super) fn whole(content: Bytes) -> Body {
        let content = if content.is_empty() { Content::Empty } else { Content::Whole(content) };
        Body { content, busy: None }
    }

    /// A part of a file, which must lie within it. What is small and in memory is read at once, and then leaves
    /// in one piece with the head.
    pub(super) fn part_of(file: OwnedFd, offset: u64, length: u64) -> Body {
        if length == 0 {
            return Body::empty();
        }
        if length <= PIECE
            && let Ok(Some(content)) = read_cached(&file, offset, length)
            && content.len() as u64 == length
        {
            return Body::whole(content);
        }
        let part = Part { file: Arc::new(file), offset, left: length, reading: None };
        Body { content: Content::File(part), busy: None }
    }

    pub(super) fn counted(self, busy: Busy) -> Body {
        Body { busy: Some(Arc::new(busy)), ..self }
    }

    fn piece(&self, bytes: Bytes) -> Bytes {
        match &self.busy {
            Some(busy) => Bytes::from_owner(Piece { bytes, busy: Arc::clone(busy) }),
            None => bytes,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match std::mem::replace(&mut self.content, Content::Empty) {
            Content::Empty => Poll::Ready(None),
            Content::Whole(content) => Poll::Ready(Some(Ok(Frame::data(self.piece(content))))),
            Content::File(mut part) => {
                let polled = part.poll_read(context);
                if part.left > 0 {
                    self.content = Content::File(part);
                }
                let read = ready!(polled);
                Poll::Ready(Some(read.map(|bytes| Frame::data(self.piece(bytes)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.content {
            Content::Empty => 0,
            Content::Whole(content) => content.len() as u64,
            Content::File(part) => part.left,
        })
    }
}

impl Part {
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let length = self.left.min(PIECE);
        let result = match &mut self.reading {
            Some(reading) => {
                let result = ready!(Pin::new(reading).poll(context));
                self.reading = None;
                result.unwrap_or_else(|error| Err(io::Error::other(error)))
            }
            None => match read_cached(&self.file, self.offset, length) {
                Ok(Some(piece)) => Ok(piece),
                Err(error) => Err(error.into()),
                Ok(None) => {
                    let (file, offset) = (Arc::clone(&self.file), self.offset);
                    let reading =
                        self.reading.insert(spawn_blocking(move || read_waiting(&file, offset, length)));
                    let result = ready!(Pin::new(reading).poll(context));
                    self.reading = None;
                    result.unwrap_or_else(|error| Err(io::Error::other(error)))
                }
            },
        };
        let result = result.and_then(|piece| {
            // The file has become shorter than was promised: all that is left is to break off.
            if piece.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(piece) }
        });
        match &result {
            Ok(piece) => {
                self.offset += piece.len() as u64;
                self.left -= piece.len() as u64;
            }
            Err(_) => self.left = 0,
        }
        Poll::Ready(result)
    }
}

/// Reads what is in the page cache; `None` when the disk would have to be waited for, or when this can't be told
/// (RWF_NOWAIT, Linux 4.14, preadv2(2)).
fn read_cached(file: &OwnedFd, offset: u64, length: u64) -> Result<Option<Bytes>, Errno> {
    let mut buffer = BytesMut::zeroed(length as usize);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    match rustix::io::preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT) {
        Ok(read) => {
            buffer.truncate(read);
            Ok(Some(buffer.freeze()))
        }
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::INTR) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_waiting(file: &OwnedFd, offset: u64, length: u64) -> io::Result<Bytes> {
    let mut buffer = BytesMut::zeroed(length as usize);
    let read = loop {
        match rustix::io::pread(file, &mut buffer[..], offset) {
            Err(Errno::INTR) => {}
            result => break result?,
        }
    };
    buffer.truncate(read);
    Ok(buffer.freeze())
}
