//! The reader of answers for fuzzing, which sees only what is public.

use super::Fate;
use super::answer::Answer;

/// What came of reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// If the server closed in good order behind the last piece.
    pub fate: Fate,
    /// 0 until the head has come.
    pub status: u16,
    /// How much belonged to the answer, bytes.
    pub used: usize,
    /// Would the connection take another request?
    pub keep_alive: bool,
    /// The value of the header `X-Slot`.
    pub label: Option<String>,
}

/// Reads an answer that comes in pieces of `size` bytes. `None`: it is no HTTP/1.
pub fn read(data: &[u8], size: usize, to_head_request: bool) -> Option<Read> {
    let mut answer = Answer::new(to_head_request, Some("X-Slot"));
    let mut used = 0;
    for piece in data.chunks(size) {
        used += answer.feed(piece).ok()?;
    }
    Some(Read {
        fate: answer.at_end_of_stream(&(200..=399)),
        status: answer.status(),
        used,
        keep_alive: answer.keep_alive(),
        label: answer.take_label(),
    })
}
