//! An HTTP/1 answer, read in whatever pieces it comes.

use super::Fate;
use std::ops::RangeInclusive;
use thiserror::Error;

/// More than this is no answer's head.
const HEAD_LIMIT: usize = 64 * 1024;

/// What came is not HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// One answer being read. Feed it what arrives; it says when the answer is whole.
#[derive(Debug)]
pub(super) struct Answer<'plan> {
    stage: Stage,
    /// A head that came in pieces. Empty as long as it came in one.
    head: Vec<u8>,
    received: u64,
    status: u16,
    keep_alive: bool,
    to_head_request: bool,
    label_header: Option<&'plan str>,
    label: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Fixed { left: u64 },
    UntilClose,
    ChunkSize { size: u64, digits: u8, extension: bool },
    ChunkData { left: u64 },
    ChunkEnd,
    Trailer { line: usize, total: usize },
    Done,
}

impl<'plan> Answer<'plan> {
    /// `to_head_request`: an answer to HEAD has no body whatever its headers say.
    pub(super) fn new(to_head_request: bool, label_header: Option<&'plan str>) -> Self {
        Answer {
            stage: Stage::Head,
            head: Vec::new(),
            received: 0,
            status: 0,
            keep_alive: false,
            to_head_request,
            label_header,
            label: None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// 0 until the head has come.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// Whether the server will take another request on this connection.
    pub(super) fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// More came than the answer: whatever it is, this connection takes no further request.
    pub(super) fn spoil(&mut self) {
        self.keep_alive = false;
    }

    pub(super) fn take_label(&mut self) -> Option<String> {
        self.label.take()
    }

    /// Takes what arrived. Returns how much of it belongs to this answer.
    pub(super) fn feed(&mut self, data: &[u8]) -> Result<usize, Malformed> {
        let mut rest = data;
        while !rest.is_empty() && !self.is_done() {
            let used = self.step(rest)?;
            rest = &rest[used..];
        }
        let used = data.len() - rest.len();
        self.received += used as u64;
        Ok(used)
    }

    /// The fate when the server closes in good order now.
    pub(super) fn at_end_of_stream(&self, expected: &RangeInclusive<u16>) -> Fate {
        match self.stage {
            Stage::Done | Stage::UntilClose => self.whole(expected),
            _ if self.received == 0 => Fate::Empty,
            _ => Fate::Truncated,
        }
    }

    /// The fate when the connection is reset now.
    pub(super) fn at_reset(&self) -> Fate {
        if self.received == 0 { Fate::ResetBeforeByte } else { Fate::ResetMidReply }
    }

    /// The fate of a whole answer.
    pub(super) fn whole(&self, expected: &RangeInclusive<u16>) -> Fate {
        if expected.contains(&self.status) { Fate::Completed } else { Fate::WrongStatus }
    }

    /// Takes at least one byte.
    fn step(&mut self, data: &[u8]) -> Result<usize, Malformed> {
        match &mut self.stage {
            Stage::Head => self.take_head(data),
            Stage::Fixed { left } => {
                let used = at_most(data, *left);
                *left -= used as u64;
                if *left == 0 {
                    self.stage = Stage::Done;
                }
                Ok(used)
            }
            Stage::UntilClose => Ok(data.len()),
            Stage::ChunkSize { size, digits, extension } => {
                match (data[0], *extension) {
                    (b'\n', _) if *digits == 0 => return Err(Malformed("a chunk without a size")),
                    (b'\n', _) if *size == 0 => self.stage = Stage::Trailer { line: 0, total: 0 },
                    (b'\n', _) => self.stage = Stage::ChunkData { left: *size },
                    (_, true) => {}
                    (b';' | b' ' | b'\t' | b'\r', _) => *extension = true,
                    (byte, _) => {
                        let digit = char::from(byte)
                            .to_digit(16)
                            .ok_or(Malformed("a chunk size is not hexadecimal"))?;
                        *digits += 1;
                        if *digits > 15 {
                            return Err(Malformed("a chunk size is too large"));
                        }
                        *size = *size * 16 + u64::from(digit);
                    }
                }
                Ok(1)
            }
            Stage::ChunkData { left } => {
                let used = at_most(data, *left);
                *left -= used as u64;
                if *left == 0 {
                    self.stage = Stage::ChunkEnd;
                }
                Ok(used)
            }
            Stage::ChunkEnd => {
                match data[0] {
                    b'\r' => {}
                    b'\n' => self.stage = Stage::ChunkSize { size: 0, digits: 0, extension: false },
                    _ => return Err(Malformed("a chunk is longer than its size")),
                }
                Ok(1)
            }
            Stage::Trailer { line, total } => {
                *total += 1;
                match data[0] {
                    b'\n' if *line == 0 => self.stage = Stage::Done,
                    b'\n' => *line = 0,
                    b'\r' => {}
                    _ => *line += 1,
                }
                if self.stage != Stage::Done
                    && matches!(self.stage, Stage::Trailer { total, .. } if total > HEAD_LIMIT)
                {
                    return Err(Malformed("the trailers are too long"));
                }
                Ok(1)
            }
            Stage::Done => Ok(0),
        }
    }

    fn take_head(&mut self, data: &[u8]) -> Result<usize, Malformed> {
        if self.head.is_empty()
            && let Some(end) = head_end(data)
        {
            self.read_head(&data[..end])?;
            return Ok(end);
        }
        let before = self.head.len();
        self.head.extend_from_slice(data);
        let start = self.head.len().min(HTTP_1.len());
        if self.head[..start] != HTTP_1[..start] {
            return Err(Malformed("the answer does not start with HTTP/1"));
        }
        let Some(end) = head_end(&self.head) else {
            return if self.head.len() > HEAD_LIMIT {
                Err(Malformed("the head is too long"))
            } else {
                Ok(data.len())
            };
        };
        let head = std::mem::take(&mut self.head);
        self.read_head(&head[..end])?;
        Ok(end - before)
    }

    fn read_head(&mut self, head: &[u8]) -> Result<(), Malformed> {
        let mut lines =
            head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let (minor, status) = status_line(lines.next().unwrap_or_default())?;
        if status == 101 {
            return Err(Malformed("an upgrade that nobody asked for"));
        }
        if status < 200 {
            // An interim answer; the real one follows.
            return Ok(());
        }
        let mut keep_alive = minor >= 1;
        let mut length: Option<u64> = None;
        let mut chunked = false;
        let mut encoded = false;
        for line in lines.filter(|line| !line.is_empty()) {
            let colon =
                line.iter().position(|&byte| byte == b':').ok_or(Malformed("a header without a colon"))?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                let number = std::str::from_utf8(value)
                    .ok()
                    .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
                    .and_then(|text| text.parse().ok())
                    .ok_or(Malformed("Content-Length is not a number"))?;
                if length.replace(number).is_some_and(|before| before != number) {
                    return Err(Malformed("two different Content-Lengths"));
                }
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                encoded = true;
                chunked = tokens(value).last().is_some_and(|token| token.eq_ignore_ascii_case(b"chunked"));
            } else if name.eq_ignore_ascii_case(b"connection") {
                for token in tokens(value) {
                    if token.eq_ignore_ascii_case(b"close") {
                        keep_alive = false;
                    } else if token.eq_ignore_ascii_case(b"keep-alive") && minor == 0 {
                        keep_alive = true;
                    }
                }
            }
            if self.label_header.is_some_and(|wanted| name.eq_ignore_ascii_case(wanted.as_bytes())) {
                self.label = Some(String::from_utf8_lossy(value).into_owned());
            }
        }
        self.status = status;
        self.stage = if self.to_head_request || status == 204 || status == 304 {
            Stage::Done
        } else if chunked {
            Stage::ChunkSize { size: 0, digits: 0, extension: false }
        } else if let (Some(left), false) = (length, encoded) {
            if left == 0 { Stage::Done } else { Stage::Fixed { left } }
        } else {
            Stage::UntilClose
        };
        self.keep_alive = keep_alive && self.stage != Stage::UntilClose;
        Ok(())
    }
}

const HTTP_1: &[u8] = b"HTTP/1.";

fn at_most(data: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(data.len(), |left| left.min(data.len()))
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// Where the head ends: behind the first empty line. Bare line feeds count, as RFC 9112 allows.
fn head_end(data: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = data[from..].iter().position(|&byte| byte == b'\n') {
        let next = from + at + 1;
        match data.get(next..) {
            Some([b'\n', ..]) => return Some(next + 1),
            Some([b'\r', b'\n', ..]) => return Some(next + 2),
            _ => from = next,
        }
    }
    None
}

/// The minor version and the status.
fn status_line(line: &[u8]) -> Result<(u8, u16), Malformed> {
    let bad = Malformed("the answer does not start with HTTP/1");
    let rest = line.strip_prefix(HTTP_1).ok_or(bad)?;
    let &[minor @ b'0'..=b'9', b' ', a, b, c, ref rest @ ..] = rest else { return Err(bad) };
    if ![a, b, c].iter().all(u8::is_ascii_digit) || !matches!(rest, [] | [b' ', ..]) || a == b'0' {
        return Err(Malformed("the status is not a number"));
    }
    let digit = |byte: u8| u16::from(byte - b'0');
    Ok((minor - b'0', digit(a) * 100 + digit(b) * 10 + digit(c)))
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
