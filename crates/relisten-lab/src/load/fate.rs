//! What becomes of an attempt and of a connection.

use serde::Serialize;

/// What became of one attempt. Every attempt has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The whole answer came, with an expected status.
    Completed,
    /// `connect` failed with ECONNREFUSED: nobody listens.
    Refused,
    /// `connect` failed with ECONNRESET: the handshake was done and then undone before we looked.
    ResetAtConnect,
    /// Connected, but TLS did not come about: the certificate was not to be trusted, the server refused, closed
    /// or was reset meanwhile; [`Report::errors`](super::Report::errors) has the reasons.
    TlsHandshakeFailed,
    /// Connected, then reset before a byte of the answer.
    ResetBeforeByte,
    /// Reset after the answer had begun.
    ResetMidReply,
    /// Closed in good order without a byte of an answer.
    Empty,
    /// Closed in good order before the answer's end.
    Truncated,
    /// No connection within the timeout: the SYN, or its answer, was dropped.
    TimedOutAtConnect,
    /// Connected, but no whole answer (with TLS: or no handshake) within the timeout.
    TimedOut,
    /// A whole answer, but with another status than expected.
    WrongStatus,
    /// What came is not HTTP/1.
    Malformed,
    /// `connect` failed in another way; [`Report::errors`](super::Report::errors) has the names.
    ConnectError,
    /// Reading or writing failed in another way; the names are in the same place.
    OtherError,
    /// The client's own fault, no connection was tried: no descriptor left, or too many open.
    NotStarted,
}

impl Fate {
    /// All fates, in the order of reports.
    pub const ALL: [Fate; 15] = [
        Fate::Completed,
        Fate::Refused,
        Fate::ResetAtConnect,
        Fate::TlsHandshakeFailed,
        Fate::ResetBeforeByte,
        Fate::ResetMidReply,
        Fate::Empty,
        Fate::Truncated,
        Fate::TimedOutAtConnect,
        Fate::TimedOut,
        Fate::WrongStatus,
        Fate::Malformed,
        Fate::ConnectError,
        Fate::OtherError,
        Fate::NotStarted,
    ];

    /// Whether the server, or what is between, owed more than came.
    pub fn is_lost(self) -> bool {
        !matches!(self, Fate::Completed | Fate::NotStarted)
    }

    /// Whether the attempt failed before any of the request was sent, so that every request may be repeated.
    pub(super) fn is_before_request(self) -> bool {
        matches!(
            self,
            Fate::Refused
                | Fate::ResetAtConnect
                | Fate::TimedOutAtConnect
                | Fate::TlsHandshakeFailed
                | Fate::ConnectError
                | Fate::NotStarted
        )
    }

    /// As people say it.
    pub fn label(self) -> &'static str {
        match self {
            Fate::Completed => "completed",
            Fate::Refused => "refused",
            Fate::ResetAtConnect => "reset at connect",
            Fate::TlsHandshakeFailed => "TLS handshake failed",
            Fate::ResetBeforeByte => "reset before a byte",
            Fate::ResetMidReply => "reset in mid-reply",
            Fate::Empty => "empty",
            Fate::Truncated => "truncated",
            Fate::TimedOutAtConnect => "timed out at connect",
            Fate::TimedOut => "timed out",
            Fate::WrongStatus => "wrong status",
            Fate::Malformed => "malformed",
            Fate::ConnectError => "other connect error",
            Fate::OtherError => "other error",
            Fate::NotStarted => "not started",
        }
    }
}

/// How many attempts had which fate. One field per [`Fate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "each field is the fate of that name")]
pub struct FateCounts {
    pub completed: u64,
    pub refused: u64,
    pub reset_at_connect: u64,
    pub tls_handshake_failed: u64,
    pub reset_before_byte: u64,
    pub reset_mid_reply: u64,
    pub empty: u64,
    pub truncated: u64,
    pub timed_out_at_connect: u64,
    pub timed_out: u64,
    pub wrong_status: u64,
    pub malformed: u64,
    pub connect_error: u64,
    pub other_error: u64,
    pub not_started: u64,
}

impl FateCounts {
    /// How many had this fate.
    pub fn get(&self, fate: Fate) -> u64 {
        let mut copy = *self;
        *copy.slot(fate)
    }

    /// All together.
    pub fn sum(&self) -> u64 {
        Fate::ALL.iter().map(|&fate| self.get(fate)).sum()
    }

    /// Those that are lost, see [`Fate::is_lost`].
    pub fn lost(&self) -> u64 {
        Fate::ALL.iter().filter(|fate| fate.is_lost()).map(|&fate| self.get(fate)).sum()
    }

    pub(super) fn count(&mut self, fate: Fate) {
        *self.slot(fate) += 1;
    }

    fn slot(&mut self, fate: Fate) -> &mut u64 {
        match fate {
            Fate::Completed => &mut self.completed,
            Fate::Refused => &mut self.refused,
            Fate::ResetAtConnect => &mut self.reset_at_connect,
            Fate::TlsHandshakeFailed => &mut self.tls_handshake_failed,
            Fate::ResetBeforeByte => &mut self.reset_before_byte,
            Fate::ResetMidReply => &mut self.reset_mid_reply,
            Fate::Empty => &mut self.empty,
            Fate::Truncated => &mut self.truncated,
            Fate::TimedOutAtConnect => &mut self.timed_out_at_connect,
            Fate::TimedOut => &mut self.timed_out,
            Fate::WrongStatus => &mut self.wrong_status,
            Fate::Malformed => &mut self.malformed,
            Fate::ConnectError => &mut self.connect_error,
            Fate::OtherError => &mut self.other_error,
            Fate::NotStarted => &mut self.not_started,
        }
    }
}

/// How a connection ended. Without keep-alive this says nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// Never established.
    Failed,
    /// Closed by this client after a whole answer.
    ClosedByClient,
    /// The server announced the close with its last whole answer.
    ClosedByServer,
    /// The server closed it between two requests, before the second was sent. Not a loss: the request goes
    /// out on a new connection, as with any client.
    Stale,
    /// Broke together with the attempt that ran on it.
    Broken,
}
