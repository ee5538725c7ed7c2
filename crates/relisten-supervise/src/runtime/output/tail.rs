//! The last lines of a worker, for the message that says why a reload failed.

use std::collections::VecDeque;

const LINES: usize = 20;
/// Of each line, bytes.
const LENGTH: usize = 512;

/// The last 20 lines, of each at most 512 bytes.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<Vec<u8>>);

impl Tail {
    pub(super) fn push(&mut self, line: &[u8]) {
        let mut place =
            if self.0.len() < LINES { Vec::new() } else { self.0.pop_front().unwrap_or_default() };
        place.clear();
        place.extend_from_slice(&line[..line.len().min(LENGTH)]);
        place.shrink_to(LENGTH);
        self.0.push_back(place);
    }

    /// As text for people: without control characters, so that a worker's output can't steer the terminal of
    /// whoever asks.
    pub(super) fn lines(&self) -> Vec<String> {
        let clean = |line: &Vec<u8>| {
            let text = String::from_utf8_lossy(line);
            text.trim_end().chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect()
        };
        self.0.iter().map(clean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_and_no_more() {
        let mut tail = Tail::default();
        for n in 0..100 {
            tail.push(format!("line {n}\r").as_bytes());
        }
        tail.push(&[b'x'; 10_000]);
        tail.push(b"\x1b[31mred \xff");
        let lines = tail.lines();
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[0], "line 82");
        assert_eq!(lines[18].len(), LENGTH);
        assert_eq!(lines[19], " [31mred \u{fffd}");
        assert!(tail.0.iter().map(Vec::capacity).sum::<usize>() <= LINES * LENGTH * 2);
    }
}
