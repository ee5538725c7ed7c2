//! What workers print goes to our own standard output and error, line by line, with slot and process ID.
//!
//! Nobody ever waits for anybody: workers' pipes are always read, and what they bring goes into a bounded queue
//! before each of our outputs, which a thread empties. If our output is blocked (a stopped terminal, a pipe that
//! nobody reads), the queue fills, then lines are dropped and counted, and once it flows again a line says how
//! many. Our own log lines take the same way ([`Output::log`]), so that they don't block the supervisor either.

mod lines;
mod sink;
mod tail;
#[cfg(test)]
mod tests;

use crate::async_fd;
use lines::Splitter;
use relisten::SlotId;
use rustix::io::Errno;
use serde::Serialize;
use sink::Sink;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tail::Tail;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::sync::watch;

/// How much is read from one pipe before others get their turn, bytes. On the stack.
const TURN: usize = 16 * 1024;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `[slot pid] line`.
    Text,
    /// One JSON object per line: `slot`, `pid`, `stream`, `line`, and `cut` (bytes) if it was too long.
    Json,
}

/// Which of a worker's streams, and so which of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Our standard output and error. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Output {
    format: Format,
    stdout: Sink,
    stderr: Sink,
}

impl Output {
    /// To this process's own standard output and error.
    pub fn standard(format: Format) -> io::Result<Self> {
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        let stderr = io::stderr().as_fd().try_clone_to_owned()?;
        Ok(Self::to(format, stdout, stderr))
    }

    /// To other descriptors. If both are the same file, lines keep their order.
    pub fn to(format: Format, stdout: OwnedFd, stderr: OwnedFd) -> Self {
        let identity = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|s| (s.st_dev, s.st_ino, s.st_rdev)).ok();
        let same = identity(&stdout).is_some_and(|id| identity(&stderr) == Some(id));
        let summary = match format {
            Format::Text => |n| format!("relisten: {n} lines of output dropped: nobody read them in time\n"),
            Format::Json => |n| format!("{{\"dropped_lines\":{n}}}\n"),
        };
        let stdout = Sink::new(stdout, summary);
        let stderr = if same { stdout.clone() } else { Sink::new(stderr, summary) };
        Self { format, stdout, stderr }
    }

    /// What one worker prints.
    pub fn worker(&self, slot: SlotId, pid: u32) -> WorkerOutput {
        let prefix = format!("[{slot} {pid}] ");
        let state = State { output: self.clone(), slot, pid, prefix, tail: Mutex::default() };
        WorkerOutput { state: Arc::new(state), open: watch::Sender::new(0) }
    }

    /// A writer for log lines; each call of `write` must be whole lines. Goes to our standard error, but is
    /// never blocked.
    pub fn log(&self) -> LogWriter {
        LogWriter(self.stderr.clone())
    }

    /// How many lines were dropped since the start.
    pub fn dropped(&self) -> u64 {
        let stderr = if self.is_one() { 0 } else { self.stderr.dropped() };
        self.stdout.dropped() + stderr
    }

    /// Wait until all is written, for so long at most: at the supervisor's end. Blocks. What could not be written
    /// by then counts as dropped.
    pub fn finish(&self, patience: Duration) {
        let until = std::time::Instant::now() + patience;
        self.stdout.finish(patience);
        self.stderr.finish(until.saturating_duration_since(std::time::Instant::now()));
    }

    fn is_one(&self) -> bool {
        self.stdout.is_same(&self.stderr)
    }

    fn sink(&self, stream: Stream) -> &Sink {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }
}

/// For log lines: never waits, never fails.
#[derive(Clone, Debug)]
pub struct LogWriter(Sink);

impl io::Write for LogWriter {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.0.batch().push(lines.len(), |chunk| chunk.extend_from_slice(lines));
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What one worker prints.
#[derive(Debug)]
pub struct WorkerOutput {
    state: Arc<State>,
    /// How many of its pipes are still open.
    open: watch::Sender<usize>,
}

#[derive(Debug)]
struct State {
    output: Output,
    slot: SlotId,
    pid: u32,
    /// `[slot pid] `.
    prefix: String,
    tail: Mutex<Tail>,
}

impl WorkerOutput {
    /// Read this pipe from now on until nobody can write to it any more. Makes the pipe non-blocking. Must be
    /// called within a tokio runtime.
    pub fn read(&self, stream: Stream, pipe: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let pipe = async_fd::watch(pipe, Interest::READABLE)?;
        self.open.send_modify(|n| *n += 1);
        let (state, open) = (Arc::clone(&self.state), self.open.clone());
        tokio::spawn(async move {
            read_to_end(&state, stream, &pipe).await;
            open.send_modify(|n| *n -= 1);
        });
        Ok(())
    }

    /// Print what was read elsewhere: by the keeper, while no supervisor was there.
    pub fn replay(&self, stream: Stream, bytes: &[u8]) {
        let mut splitter = Splitter::default();
        self.state.lines(stream, |emit| {
            splitter.feed(bytes, &mut *emit);
            splitter.finish(emit);
        });
    }

    /// The last lines (20 at most), for people.
    pub fn tail(&self) -> Vec<String> {
        self.state.tail.lock().unwrap_or_else(PoisonError::into_inner).lines()
    }

    /// Wait until all its pipes are read to their ends. A child of the worker may hold a pipe for as long as it
    /// likes: bound this in time.
    pub async fn ended(&self) {
        // Fails only if the sender is gone, and we have one.
        let _ = self.open.subscribe().wait_for(|n| *n == 0).await;
    }
}

async fn read_to_end(state: &State, stream: Stream, pipe: &AsyncFd<OwnedFd>) {
    let mut splitter = Splitter::default();
    while let Ok(mut guard) = pipe.readable().await {
        match state.turn(stream, pipe.get_ref(), &mut splitter) {
            Ok(true) => {}
            Err(Errno::AGAIN) => guard.clear_ready_matching(Ready::READABLE),
            Ok(false) | Err(_) => break,
        }
        // A worker that prints gigabytes is always readable: let the others have their turn, sooner than tokio's own
        // budget would.
        tokio::task::yield_now().await;
    }
    state.lines(stream, |emit| splitter.finish(emit));
}

impl State {
    /// Read what is there, but not more than one turn's worth. `Ok(false)`: that was the end.
    fn turn(&self, stream: Stream, pipe: &OwnedFd, splitter: &mut Splitter) -> Result<bool, Errno> {
        let mut piece = [0; TURN];
        let n = rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut piece))?;
        self.lines(stream, |emit| splitter.feed(&piece[..n], emit));
        Ok(n > 0)
    }

    /// Queue all lines that `split` emits.
    fn lines(&self, stream: Stream, split: impl FnOnce(&mut dyn FnMut(&[u8], u64))) {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = self.output.sink(stream).batch();
        split(&mut |line, cut| {
            tail.push(line);
            match self.output.format {
                Format::Text => batch.push(line.len() + 64, |chunk| self.text(chunk, line, cut)),
                Format::Json => batch.push(line.len() + 128, |chunk| self.json(chunk, stream, line, cut)),
            }
        });
    }

    // Writing to a Vec can't fail.
    fn text(&self, chunk: &mut Vec<u8>, line: &[u8], cut: u64) {
        chunk.extend_from_slice(self.prefix.as_bytes());
        chunk.extend_from_slice(line);
        if cut > 0 {
            let _ = write!(chunk, " [{cut} bytes cut]");
        }
        chunk.push(b'\n');
    }

    fn json(&self, chunk: &mut Vec<u8>, stream: Stream, line: &[u8], cut: u64) {
        #[derive(Serialize)]
        struct Line<'a> {
            slot: u32,
            pid: u32,
            stream: Stream,
            line: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            cut: Option<u64>,
        }
        let text = String::from_utf8_lossy(line);
        let line =
            Line { slot: self.slot.0, pid: self.pid, stream, line: &text, cut: (cut > 0).then_some(cut) };
        let _ = serde_json::to_writer(&mut *chunk, &line);
        chunk.push(b'\n');
    }
}
