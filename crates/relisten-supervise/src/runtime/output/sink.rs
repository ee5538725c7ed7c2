//! A queue and a thread before an output of ours, so that nobody else ever waits for it.

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How much may wait to be written, bytes. What comes then is dropped and counted.
pub(super) const MOST: usize = 1024 * 1024;
/// Lines are written together in pieces of about this size, bytes.
const CHUNK: usize = 16 * 1024;
/// The thread only writes.
const STACK: usize = 64 * 1024;

/// One of our outputs. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Sink(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    descriptor: OwnedFd,
    queue: Mutex<Queue>,
    /// For the writer: there is something to write.
    filled: Condvar,
    /// For who waits for the end: everything is written.
    emptied: Condvar,
    /// How "N lines were dropped" is said.
    summary: fn(u64) -> String,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Vec<u8>>,
    /// Bytes in `chunks`, the chunk that is being written included.
    bytes: usize,
    /// Of the chunk that is being written.
    writing: usize,
    /// Lines dropped since that was last said, and ever.
    unsaid: u64,
    dropped: u64,
    /// The writer thread is there.
    started: bool,
    /// The reader of our output is gone for good: all is dropped, silently but counted.
    broken: bool,
}

impl Sink {
    pub(super) fn new(descriptor: OwnedFd, summary: fn(u64) -> String) -> Self {
        let (queue, filled, emptied) = Default::default();
        Self(Arc::new(Shared { descriptor, queue, filled, emptied, summary }))
    }

    /// Queue lines. The writer waits while the batch lives, so be quick; nobody else does.
    pub(super) fn batch(&self) -> Batch<'_> {
        Batch { shared: &self.0, queue: self.0.lock() }
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many lines were dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.0.lock().dropped
    }

    /// Wait until all is written, but not for longer than this. What is left then counts as dropped.
    pub(super) fn finish(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut queue = self.0.lock();
        while queue.bytes > 0 || (queue.unsaid > 0 && queue.started && !queue.broken) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            queue = self.0.emptied.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let left: u64 = queue.chunks.iter().map(|chunk| lines(chunk)).sum();
        queue.dropped += left;
        queue.bytes = queue.writing;
        queue.chunks.clear();
    }
}

/// Some lines on their way into the queue.
pub(super) struct Batch<'a> {
    shared: &'a Arc<Shared>,
    queue: MutexGuard<'a, Queue>,
}

impl Batch<'_> {
    /// Queue one line, newline included; `write` appends `length` bytes or a little more.
    pub(super) fn push(&mut self, length: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let queue = &mut *self.queue;
        if queue.broken || queue.bytes + length > MOST {
            queue.dropped += 1;
            queue.unsaid += 1;
            return;
        }
        if queue.unsaid > 0 {
            let text = (self.shared.summary)(std::mem::take(&mut queue.unsaid));
            queue.append(text.len(), |chunk| chunk.extend_from_slice(text.as_bytes()));
        }
        queue.append(length, write);
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.queue.started {
            self.shared.filled.notify_one();
        } else if self.queue.bytes > 0 {
            let shared = Arc::clone(self.shared);
            let thread = std::thread::Builder::new().name("relisten-output".into()).stack_size(STACK);
            // Without a thread the lines wait in the queue for the next try; they are dropped when it is full.
            self.queue.started = thread.spawn(move || shared.write_for_ever()).is_ok();
        }
    }
}

impl Queue {
    fn append(&mut self, length: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let fits = self.chunks.back().is_some_and(|chunk| chunk.len() + length <= CHUNK);
        if !fits {
            self.chunks.push_back(Vec::with_capacity(length.min(CHUNK)));
        }
        if let Some(chunk) = self.chunks.back_mut() {
            let before = chunk.len();
            write(chunk);
            self.bytes += chunk.len() - before;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that holds the lock can panic half way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_for_ever(&self) {
        loop {
            let chunk = self.next_chunk();
            let failed = self.write(&chunk);
            let mut queue = self.lock();
            queue.bytes -= std::mem::take(&mut queue.writing);
            if let Some((errno, rest)) = failed {
                queue.dropped += lines(rest);
                if errno == Errno::PIPE {
                    queue.broken = true;
                    queue.bytes = 0;
                    queue.dropped += queue.chunks.drain(..).map(|chunk| lines(&chunk)).sum::<u64>();
                } else {
                    queue.unsaid += lines(rest);
                }
            }
            if queue.bytes == 0 {
                self.emptied.notify_all();
            }
        }
    }

    fn next_chunk(&self) -> Vec<u8> {
        let mut queue = self.lock();
        loop {
            let chunk = match queue.chunks.pop_front() {
                Some(chunk) => chunk,
                // It flows again, and nobody else is going to say it.
                None if queue.unsaid > 0 && !queue.broken => {
                    let text = (self.summary)(std::mem::take(&mut queue.unsaid)).into_bytes();
                    queue.bytes += text.len();
                    text
                }
                None => {
                    queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            queue.writing = chunk.len();
            return chunk;
        }
    }

    /// Write it all, however long that takes. Else: why not, and what was not written.
    fn write<'a>(&self, mut rest: &'a [u8]) -> Option<(Errno, &'a [u8])> {
        while !rest.is_empty() {
            match rustix::io::write(&self.descriptor, rest) {
                Ok(n) => rest = &rest[n..],
                Err(Errno::INTR) => {}
                // Somebody else made our terminal or pipe non-blocking.
                Err(Errno::AGAIN) => {
                    let mut polled = [PollFd::new(&self.descriptor, PollFlags::OUT)];
                    let _ = rustix::event::poll(&mut polled, None);
                }
                Err(e) => return Some((e, rest)),
            }
        }
        None
    }
}

fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}
