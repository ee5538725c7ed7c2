//! Reading a worker's output while nobody is there to print it.

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How much of the end of an output is kept for the successor, bytes.
pub(super) const TAIL: u64 = 64 * 1024;
/// How much is read in one turn, bytes: the keeper's only buffer, on its stack.
const TURN: usize = 16 * 1024;

/// What was read from one output. The last [`TAIL`] bytes stand in a memfd, written round and round, so that
/// they cost the keeper no memory of its own.
#[derive(Debug, Default)]
pub(super) struct Drained {
    /// All that was read, bytes.
    pub(super) bytes: u64,
    /// How many newlines were in it.
    pub(super) lines: u64,
    /// `None` until something was read, or where there is no descriptor left for it: then it is only counted.
    tail: Option<OwnedFd>,
}

/// What one turn of reading found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There may be more.
    More,
    /// Nobody can write any more.
    End,
}

impl Drained {
    /// Read once from an output that has something to read. Never more than one turn's worth, so that an output
    /// that never ends does not keep the keeper from its other duties.
    pub(super) fn turn(&mut self, output: impl AsFd) -> Turn {
        let mut buffer = [0; TURN];
        match rustix::io::retry_on_intr(|| rustix::io::read(&output, &mut buffer)) {
            Ok(0) => Turn::End,
            Ok(n) => {
                self.keep(&buffer[..n]);
                Turn::More
            }
            Err(Errno::AGAIN) => Turn::More,
            Err(_) => Turn::End,
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.tail.is_none() {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            self.tail = rustix::fs::memfd_create("relisten-output", flags).ok();
        }
        if let Some(tail) = &self.tail {
            let at = self.bytes % TAIL;
            let first = bytes.len().min((TAIL - at) as usize);
            let whole = rustix::io::pwrite(tail, &bytes[..first], at) == Ok(first)
                && rustix::io::pwrite(tail, &bytes[first..], 0) == Ok(bytes.len() - first);
            if !whole {
                self.tail = None;
            }
        }
        self.bytes += bytes.len() as u64;
        self.lines += lines(bytes);
    }

    pub(super) fn tail(&self) -> Option<BorrowedFd<'_>> {
        self.tail.as_ref().map(AsFd::as_fd)
    }
}

/// How many newlines?
pub(super) fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// The last bytes of an output of `bytes` bytes, from the memfd that they stand in, in their order.
pub(super) fn read_tail(memfd: impl AsFd, bytes: u64) -> Result<Vec<u8>, Errno> {
    let length = bytes.min(TAIL);
    let mut tail = vec![0; length as usize];
    let start = if bytes > TAIL { bytes % TAIL } else { 0 };
    let mut done = 0;
    while done < length {
        let from = (start + done) % TAIL;
        let until = (done + (TAIL - from)).min(length);
        match rustix::io::pread(&memfd, &mut tail[done as usize..until as usize], from)? {
            0 => {
                tail.truncate(done as usize);
                break;
            }
            n => done += n as u64,
        }
    }
    Ok(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_output_is_kept_in_order() {
        for total in [1, 100, TAIL - 1, TAIL, TAIL + 1, 3 * TAIL + 12_345] {
            let text: Vec<u8> =
                (0..total).map(|i| if i % 70 == 69 { b'\n' } else { b'a' + (i % 23) as u8 }).collect();
            let mut drained = Drained::default();
            for piece in text.chunks(TURN - 7) {
                drained.keep(piece);
            }
            assert_eq!(drained.bytes, total);
            assert_eq!(drained.lines, total / 70);
            let tail = read_tail(drained.tail().unwrap(), drained.bytes).unwrap();
            let expected = &text[text.len() - total.min(TAIL) as usize..];
            assert!(tail == expected, "{total} bytes");
        }
    }
}
