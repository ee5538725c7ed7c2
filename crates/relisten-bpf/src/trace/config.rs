/// How many numbers of reasons the kernel may have; `TRACE_REASONS`.
pub const REASONS: usize = 256;

/// What is told. It holds from the moment it is [set](super::Tracer::configure).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Inode number of the network namespace; `None`: all.
    pub netns: Option<u32>,
    /// Inode number of the process namespace whose process numbers are told; `None`: the kernel's own.
    pub pidns: Option<u32>,
    /// Only connections with this port on either side; `None`: all.
    pub port: Option<u16>,
    /// The number that the kernel gives as the reason of a drop where it has none.
    pub unspecified: Option<u16>,
    /// Every SYN at a listener, not only those that are dropped there.
    pub every_syn: bool,
    /// Numbers of the reasons of drops that are told. Above 255: never told.
    pub reasons: Vec<u16>,
}

pub(super) const CONFIG_SIZE: usize = 20 + REASONS;
pub(super) const LOST_SIZE: usize = 16;

impl Config {
    /// `struct trace_config`.
    pub(super) fn bytes(&self) -> [u8; CONFIG_SIZE] {
        let mut bytes = [0; CONFIG_SIZE];
        let head = [
            self.netns.unwrap_or(0),
            self.port.map_or(0, u32::from),
            self.unspecified.map_or(u32::MAX, u32::from),
            u32::from(self.every_syn),
            self.pidns.unwrap_or(0),
        ];
        for (field, value) in bytes.chunks_exact_mut(4).zip(head) {
            field.copy_from_slice(&value.to_ne_bytes());
        }
        for reason in &self.reasons {
            if let Some(wanted) = bytes.get_mut(20 + usize::from(*reason)) {
                *wanted = 1;
            }
        }
        bytes
    }
}

/// Events that were not told, each counted once, since the programs were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// The ring was full.
    pub ring: u64,
    /// Connections in the queue of a closing listener, beyond 512 of one listener.
    pub queued: u64,
}

impl Lost {
    pub(super) fn parse(bytes: [u8; LOST_SIZE]) -> Self {
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(number)
        };
        Self { ring: number(0), queued: number(8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_everything() {
        let bytes = Config::default().bytes();
        assert_eq!(bytes[8..12], [255; 4]);
        assert!(bytes[..8].iter().chain(&bytes[12..]).all(|byte| *byte == 0));
    }

    #[test]
    fn reasons_are_marked_and_what_is_beyond_is_left_out() {
        let bytes = Config { reasons: vec![3, 255, 256], port: Some(80), ..Config::default() }.bytes();
        let marked: Vec<usize> = (20..CONFIG_SIZE).filter(|at| bytes[*at] == 1).collect();
        assert_eq!(marked, [23, 275]);
        assert_eq!(bytes[4..8], 80u32.to_ne_bytes());
    }
}
