use std::fmt;
use std::time::Duration;

/// A longer message is read only up to here, bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// A longer status is cut, bytes.
pub const MAX_STATUS: usize = 1024;

/// One notification of a service to its supervisor. What is not said is `false` or `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// `READY=1`: it accepts; also: a reload is over.
    pub ready: bool,
    /// `RELOADING=1`: it reads its configuration again and will say `READY=1`.
    pub reloading: bool,
    /// `STOPPING=1`: it leaves by itself.
    pub stopping: bool,
    /// `MONOTONIC_USEC=`: the time of the message on `CLOCK_MONOTONIC`, sent with `RELOADING=1`.
    pub monotonic: Option<Duration>,
    /// `WATCHDOG=1` or `WATCHDOG=trigger`.
    pub watchdog: Option<Watchdog>,
    /// `WATCHDOG_USEC=`: from now on it says `WATCHDOG=1` at least this often.
    pub watchdog_period: Option<Duration>,
    /// `STATUS=`: a line for people, without control characters.
    pub status: Option<String>,
    /// `MAINPID=`: the process to watch.
    pub main_pid: Option<u32>,
    /// `ERRNO=`: why it failed.
    pub errno: Option<i32>,
    /// `BARRIER=1`: comes with a descriptor that the supervisor closes when it has read everything before.
    pub barrier: bool,
    /// `X_RELISTEN_LOAD=1`: comes with a descriptor, one end of a pair of sockets, over which the supervisor is to pass
    /// what a worker publishes its load in.
    pub load: bool,
    /// How many lines meant nothing to us.
    pub unknown: usize,
}

/// What the service says of its own health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watchdog {
    /// `WATCHDOG=1`: alive.
    Alive,
    /// `WATCHDOG=trigger`: treat me as if I had not said so for too long.
    Trigger,
}

impl Message {
    /// `READY=1`.
    pub fn ready() -> Self {
        Self { ready: true, ..Self::default() }
    }

    /// `STOPPING=1`.
    pub fn stopping() -> Self {
        Self { stopping: true, ..Self::default() }
    }

    /// `STATUS=`.
    pub fn status(text: impl Into<String>) -> Self {
        Self { status: Some(text.into()), ..Self::default() }
    }

    /// Reads a datagram. Whatever it holds, there is a result: lines that make no sense are counted and skipped,
    /// and of a thing said twice the last one counts.
    pub fn parse(datagram: &[u8]) -> Self {
        let datagram = &datagram[..datagram.len().min(MAX_MESSAGE)];
        let mut message = Self::default();
        for line in datagram.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            if message.take(line).is_none() {
                message.unknown += 1;
            }
        }
        message
    }

    fn take(&mut self, line: &[u8]) -> Option<()> {
        let at = line.iter().position(|b| *b == b'=')?;
        let (key, value) = (&line[..at], &line[at + 1..]);
        if key == b"STATUS" {
            self.status = Some(printable(value));
            return Some(());
        }
        let value = std::str::from_utf8(value).ok()?.trim();
        match (key, value) {
            (b"READY", "1") => self.ready = true,
            (b"RELOADING", "1") => self.reloading = true,
            (b"STOPPING", "1") => self.stopping = true,
            (b"BARRIER", "1") => self.barrier = true,
            (b"X_RELISTEN_LOAD", "1") => self.load = true,
            (b"WATCHDOG", "1") => self.watchdog = Some(Watchdog::Alive),
            (b"WATCHDOG", "trigger") => self.watchdog = Some(Watchdog::Trigger),
            (b"WATCHDOG_USEC", _) => self.watchdog_period = Some(micros(value)?),
            (b"MONOTONIC_USEC", _) => self.monotonic = Some(micros(value)?),
            (b"MAINPID", _) => self.main_pid = Some(value.parse().ok().filter(|pid| *pid > 0)?),
            (b"ERRNO", _) => self.errno = Some(value.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

/// As it is sent.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (said, line) in [
            (self.ready, "READY=1\n"),
            (self.reloading, "RELOADING=1\n"),
            (self.stopping, "STOPPING=1\n"),
            (self.barrier, "BARRIER=1\n"),
            (self.load, "X_RELISTEN_LOAD=1\n"),
            (self.watchdog == Some(Watchdog::Alive), "WATCHDOG=1\n"),
            (self.watchdog == Some(Watchdog::Trigger), "WATCHDOG=trigger\n"),
        ] {
            if said {
                f.write_str(line)?;
            }
        }
        if let Some(time) = self.monotonic {
            writeln!(f, "MONOTONIC_USEC={}", time.as_micros())?;
        }
        if let Some(time) = self.watchdog_period {
            writeln!(f, "WATCHDOG_USEC={}", time.as_micros())?;
        }
        if let Some(pid) = self.main_pid {
            writeln!(f, "MAINPID={pid}")?;
        }
        if let Some(errno) = self.errno {
            writeln!(f, "ERRNO={errno}")?;
        }
        if let Some(status) = &self.status {
            writeln!(f, "STATUS={}", printable(status.as_bytes()))?;
        }
        Ok(())
    }
}

fn micros(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_micros)
}

/// Fit for a terminal and for one line.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_STATUS)]);
    let mut clean = String::new();
    // What is at the ends goes altogether: a control character there must not leave a blank.
    let text = text.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        // A replacement character is longer than the byte it replaces.
        if clean.len() + c.len_utf8() > MAX_STATUS {
            break;
        }
        clean.push(c);
    }
    clean.truncate(clean.trim_end().len());
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn understands_what_services_say() {
        let text = b"READY=1\nSTATUS=Serving \x1b[31m...\nMAINPID=77\nWATCHDOG_USEC=30000000\nX_MINE=1\n\n";
        assert_eq!(
            Message::parse(text),
            Message {
                ready: true,
                status: Some("Serving  [31m...".into()),
                main_pid: Some(77),
                watchdog_period: Some(Duration::from_secs(30)),
                unknown: 1,
                ..Message::default()
            }
        );
    }

    #[test]
    fn skips_what_makes_no_sense() {
        let text = b"READY=0\nREADY\n=1\nMAINPID=-1\nMAINPID=0\nWATCHDOG_USEC=\xff\nSTOPPING=1";
        assert_eq!(Message::parse(text), Message { stopping: true, unknown: 6, ..Message::default() });
    }

    #[test]
    fn reads_no_further_than_the_limit() {
        let mut long = vec![b'\n'; MAX_MESSAGE];
        long.extend(b"READY=1");
        assert_eq!(Message::parse(&long), Message::default());
    }

    proptest! {
        #[test]
        fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let message = Message::parse(&bytes);
            prop_assert!(message.status.is_none_or(|s| s.len() <= MAX_STATUS && !s.contains(char::is_control)));
        }

        #[test]
        fn lines_never_panic(lines in proptest::collection::vec(
            "(READY|STATUS|MAINPID|WATCHDOG|WATCHDOG_USEC|ERRNO|BARRIER)?=?(1|trigger|-?[0-9]{0,30}|.*)", 0..20,
        )) {
            let _ = Message::parse(lines.join("\n").as_bytes());
        }

        #[test]
        fn what_is_sent_is_understood(
            flags in any::<[bool; 5]>(),
            watchdog in prop_oneof![Just(None), Just(Some(Watchdog::Alive)), Just(Some(Watchdog::Trigger))],
            period in proptest::option::of(any::<u64>()),
            status in proptest::option::of("[ -~\u{e4}\u{20ac}]{0,2000}"),
            main_pid in proptest::option::of(1_u32..),
            errno in proptest::option::of(any::<i32>()),
        ) {
            let sent = Message {
                ready: flags[0],
                reloading: flags[1],
                stopping: flags[2],
                barrier: flags[3],
                load: flags[4],
                watchdog,
                watchdog_period: period.map(Duration::from_micros),
                monotonic: period.map(Duration::from_micros),
                status: status.map(|s| printable(s.as_bytes())),
                main_pid,
                errno,
                unknown: 0,
            };
            prop_assert_eq!(Message::parse(sent.to_string().as_bytes()), sent);
        }
    }
}
