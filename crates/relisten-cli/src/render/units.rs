//! Numbers for people.

use std::fmt::Write;

/// A length of time, two units deep: `840ms`, `12s`, `3m 20s`, `2h 13m`, `5d 1h`.
pub(crate) fn span(ms: u64) -> String {
    let (seconds, minutes, hours, days) = (ms / 1000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    if seconds == 0 {
        format!("{ms}ms")
    } else if minutes == 0 {
        format!("{seconds}s")
    } else if hours == 0 {
        format!("{minutes}m {}s", seconds % 60)
    } else if days == 0 {
        format!("{hours}h {}m", minutes % 60)
    } else {
        format!("{days}d {}h", hours % 24)
    }
}

/// Bytes, in powers of 1024: `512 B`, `31.0 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") }
}

/// A figure, or a dash where it can't be known.
pub(crate) fn figure(figure: Option<u64>) -> String {
    figure.map_or_else(|| "-".into(), |figure| figure.to_string())
}

/// `1 worker`, `2 workers`.
pub(crate) fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// Text of strangers (output of workers, command lines) without anything that a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // The bidirectional controls can make a line read differently from what it says.
        let misleading = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c == '\t' {
            out.push(' ');
        } else if c.is_control() || misleading {
            // Writing to a String can't fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans() {
        let all = [0, 840, 1000, 59_999, 200_000, 7_980_000, 435_600_000].map(span);
        assert_eq!(all, ["0ms", "840ms", "1s", "59s", "3m 20s", "2h 13m", "5d 1h"]);
    }

    #[test]
    fn sizes() {
        assert_eq!([0, 1023, 1024, 32_505_856].map(bytes), ["0 B", "1023 B", "1.0 KiB", "31.0 MiB"]);
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn escapes_of_strangers_are_shown_not_obeyed() {
        assert_eq!(printable("a\x1b[31mb\r\n\tc"), "a\\u{1b}[31mb\\r\\n c");
    }

    proptest! {
        #[test]
        fn nothing_printable_controls(text in any::<String>()) {
            prop_assert!(!printable(&text).chars().any(char::is_control));
        }
    }
}
