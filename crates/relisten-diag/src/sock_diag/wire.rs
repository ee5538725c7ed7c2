//! The bytes of netlink(7) and `linux/inet_diag.h`, all in the machine's own order but for ports and addresses.

use crate::DiagError;

pub(super) const AF_UNSPEC: u8 = 0;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const TCPDIAG_GETSOCK: u16 = 18;
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;

pub(super) const INET_DIAG_REQ_BYTECODE: u16 = 1;
pub(super) const BC_NOP: u8 = 0;
pub(super) const BC_JMP: u8 = 1;
pub(super) const BC_S_GE: u8 = 2;
pub(super) const BC_S_LE: u8 = 3;

pub(super) const INET_DIAG_MEMINFO: u16 = 1;
pub(super) const INET_DIAG_INFO: u16 = 2;
pub(super) const INET_DIAG_SKMEMINFO: u16 = 7;
pub(super) const INET_DIAG_SHUTDOWN: u16 = 8;
pub(super) const INET_DIAG_SKV6ONLY: u16 = 11;
pub(super) const INET_DIAG_PAD: u16 = 14;
pub(super) const INET_DIAG_MARK: u16 = 15;
pub(super) const INET_DIAG_CLASS_ID: u16 = 17;
pub(super) const INET_DIAG_CGROUP_ID: u16 = 21;
pub(super) const INET_DIAG_SOCKOPT: u16 = 22;

/// `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// `struct inet_diag_sockid`.
pub(super) const SOCKID_LEN: usize = 48;
/// `struct inet_diag_msg`.
pub(super) const MESSAGE_LEN: usize = 72;
/// Both netlink messages and attributes are padded to this.
const ALIGN: usize = 4;

/// Builds one request.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn request(kind: u16, sequence: u32) -> Self {
        let mut w = Self(Vec::with_capacity(128));
        w.u32(0); // the length, known at the end
        w.0.extend_from_slice(&kind.to_ne_bytes());
        w.0.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
        w.u32(sequence);
        w.u32(0);
        w
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    pub(super) fn zeros(&mut self, count: usize) {
        self.0.resize(self.0.len() + count, 0);
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.0.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(ALIGN), 0);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// One netlink message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

/// The messages of one datagram.
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, DiagError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.0);
        let length = u32_at(rest, 0).map_or(0, |length| length as usize);
        let (Some(message), Some(kind), Some(sequence)) =
            (rest.get(HEADER_LEN..length), u16_at(rest, 4), u32_at(rest, 8))
        else {
            return Some(Err(DiagError::Malformed("a message longer than its datagram")));
        };
        self.0 = rest.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(Ok(Message { kind, sequence, payload: message }))
    }
}

/// The attributes behind a message's fixed part, as (type, value).
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), DiagError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.0);
        let length = u16_at(rest, 0).map_or(0, usize::from);
        let (Some(value), Some(kind)) = (rest.get(4..length), u16_at(rest, 2)) else {
            return Some(Err(DiagError::Malformed("an attribute longer than its message")));
        };
        self.0 = rest.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        // The two top bits are flags.
        Some(Ok((kind & 0x3fff, value)))
    }
}

pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(super) fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_ne_bytes)
}
