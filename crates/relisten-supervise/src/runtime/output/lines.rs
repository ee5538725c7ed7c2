//! Bytes to lines.

/// The longest line that is passed on, bytes; what is longer is cut and marked.
pub(super) const LONGEST: usize = 16 * 1024;

/// Splits what comes in pieces into lines, whatever it is: binary, endless lines, a last line without newline.
/// Holds at most [`LONGEST`] bytes.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    /// How many bytes of that line did not fit.
    cut: u64,
}

impl Splitter {
    /// Take in the next piece; each complete line is emitted without its newline, with the number of bytes that
    /// were cut from it.
    pub(super) fn feed(&mut self, piece: &[u8], mut emit: impl FnMut(&[u8], u64)) {
        let mut rest = piece;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            if self.partial.is_empty() && line.len() <= LONGEST {
                emit(line, 0);
            } else {
                self.append(line);
                self.flush(&mut emit);
            }
        }
        self.append(rest);
    }

    /// Nothing more comes: emit what there is.
    pub(super) fn finish(&mut self, mut emit: impl FnMut(&[u8], u64)) {
        if !self.partial.is_empty() {
            self.flush(&mut emit);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(LONGEST - self.partial.len());
        self.partial.extend_from_slice(&bytes[..fits]);
        self.cut += (bytes.len() - fits) as u64;
    }

    fn flush(&mut self, emit: &mut impl FnMut(&[u8], u64)) {
        emit(&self.partial, self.cut);
        self.cut = 0;
        self.partial.clear();
        // One long line must not cost memory for ever.
        self.partial.shrink_to(256);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(pieces: &[&[u8]]) -> Vec<(Vec<u8>, u64)> {
        let mut lines = Vec::new();
        let mut splitter = Splitter::default();
        for piece in pieces {
            splitter.feed(piece, |line, cut| lines.push((line.to_vec(), cut)));
        }
        splitter.finish(|line, cut| lines.push((line.to_vec(), cut)));
        lines
    }

    #[test]
    fn the_last_line_needs_no_newline() {
        let lines = split(&[b"one\ntw", b"o", b"\n\nthr", b"ee"]);
        let texts: Vec<_> = lines.iter().map(|(l, _)| std::str::from_utf8(l).unwrap()).collect();
        assert_eq!(texts, ["one", "two", "", "three"]);
        assert_eq!(split(&[b"one\n"]).len(), 1);
    }

    #[test]
    fn an_endless_line_is_cut_and_the_next_one_is_whole() {
        let long = vec![b'x'; LONGEST + 5];
        for piece in [1000, 4096, LONGEST + 5] {
            let mut pieces: Vec<&[u8]> = long.chunks(piece).collect();
            pieces.push(b"\nnext\n");
            let lines = split(&pieces);
            assert_eq!(lines, [(vec![b'x'; LONGEST], 5), (b"next".to_vec(), 0)]);
        }
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_moved(
            text in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..2000),
            piece in 1usize..300,
        ) {
            let lines = split(&text.chunks(piece).collect::<Vec<_>>());
            let mut joined = lines.iter().map(|(l, _)| &l[..]).collect::<Vec<_>>().join(&b'\n');
            if text.last() == Some(&b'\n') {
                joined.push(b'\n');
            }
            prop_assert_eq!(joined, text);
        }
    }
}
