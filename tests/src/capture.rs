//! The output of a process, line by line with times.

use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Since the start of the capture.
    pub at: Duration,
    /// Where it was written.
    pub stream: Stream,
    /// Without its end. Bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// Collects what a process writes. Lines are shown with the test's output too, up to a limit.
#[derive(Clone, Debug)]
pub struct Capture {
    lines: Arc<Mutex<Vec<Line>>>,
    readers: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// So many lines are shown; all are kept.
const SHOWN: usize = 3000;

impl Capture {
    /// Takes over the pipes of a child.
    pub fn start(name: &str, child: &mut Child) -> Self {
        let capture = Self { lines: Arc::default(), readers: Arc::default() };
        if let Some(out) = child.stdout.take() {
            capture.read(name, Stream::Out, out);
        }
        if let Some(err) = child.stderr.take() {
            capture.read(name, Stream::Err, err);
        }
        capture
    }

    /// Everything so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Is there a line that contains this?
    pub fn contains(&self, needle: &str) -> bool {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .any(|line| line.text.contains(needle))
    }

    /// Everything so far as text.
    pub fn text(&self) -> String {
        joined(&self.lines())
    }

    /// Everything so far of one of the two.
    pub fn text_of(&self, stream: Stream) -> String {
        let mut lines = self.lines();
        lines.retain(|line| line.stream == stream);
        joined(&lines)
    }

    /// Waits until both pipes are closed.
    pub fn finish(&self) {
        let readers = std::mem::take(&mut *self.readers.lock().unwrap_or_else(PoisonError::into_inner));
        for reader in readers {
            reader.join().expect("reader of a pipe");
        }
    }

    fn read(&self, name: &str, stream: Stream, pipe: impl Read + Send + 'static) {
        let (lines, name, begin) = (Arc::clone(&self.lines), name.to_owned(), Instant::now());
        let reader = thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut bytes = Vec::new();
            while pipe.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
                bytes.clear();
                let at = begin.elapsed();
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() < SHOWN {
                    eprintln!("[{:8.3}] {name}: {}", at.as_secs_f64(), text.get(..400).unwrap_or(&text));
                }
                lines.push(Line { at, stream, text });
            }
        });
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
    }
}

fn joined(lines: &[Line]) -> String {
    lines.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect()
}
