//! From the kernel's words for a reset to a cause.

use super::{Cause, Symbols};
use relisten_bpf::trace::Record;

/// Why an application's side was closed with a reset that no packet asked for (`tcp_send_active_reset`).
pub(super) fn active(reason: Option<&str>, record: &Record, symbols: &Symbols) -> Cause {
    match reason {
        Some("TCP_ABORT_ON_CLOSE") => Cause::UnreadData,
        Some("TCP_ABORT_ON_MEMORY") => Cause::Memory,
        Some("TCP_KEEPALIVE_TIMEOUT") => Cause::KeepaliveTimeout,
        // close() with SO_LINGER 0 disconnects, as connect() to AF_UNSPEC does.
        Some("TCP_STATE" | "TCP_DISCONNECT_WITH_DATA") => by_stack(record, symbols).unwrap_or(
            // Where functions have names and none of them disconnects, it was somebody else (`ss --kill`).
            if symbols.is_empty() || record.stack.is_empty() { Cause::Linger } else { Cause::OtherReset },
        ),
        // Kernels before 6.10 give none.
        None => by_stack(record, symbols).unwrap_or(Cause::OtherReset),
        Some(_) => Cause::OtherReset,
    }
}

/// Is it a timer of the kernel's that gives a connection up, and not a process?
pub(super) fn by_timer(cause: Cause) -> bool {
    matches!(cause, Cause::KeepaliveTimeout | Cause::Memory)
}

/// The functions that lead to the reset tell what the kernel was about.
fn by_stack(record: &Record, symbols: &Symbols) -> Option<Cause> {
    let mut cause = None;
    for name in symbols.names(&record.stack) {
        match name {
            "inet_csk_listen_stop" => return Some(Cause::ListenerClosed),
            "tcp_disconnect" => cause = Some(Cause::Linger),
            "__tcp_close" if cause.is_none() => cause = Some(Cause::UnreadData),
            // Of what this timer does, only giving up an orphan for want of memory sends a reset (tcp_out_of_resources).
            "tcp_write_timer_handler" => cause = Some(Cause::Memory),
            "tcp_keepalive_timer" => cause = Some(Cause::KeepaliveTimeout),
            _ => {}
        }
    }
    cause
}

/// Why a packet of an existing connection was answered with a reset.
pub(super) fn answered(reason: Option<&str>, state: u8, syn: bool) -> Cause {
    const FIN_WAIT1: u8 = 4;
    const FIN_WAIT2: u8 = 5;
    const TIME_WAIT: u8 = 6;
    const LAST_ACK: u8 = 9;
    const CLOSING: u8 = 11;
    match reason {
        _ if state == TIME_WAIT && syn => Cause::TimeWait,
        // Once the other side has acknowledged that the application closed, the kernel keeps no more than this.
        _ if state == TIME_WAIT => Cause::UnreadData,
        // Data came after the application had closed.
        Some("TCP_ABORT_ON_DATA") => Cause::UnreadData,
        Some("TCP_RFC7323_PAWS") => Cause::Paws,
        // The same before 6.10: a connection that the application had closed.
        None if matches!(state, FIN_WAIT1 | FIN_WAIT2 | CLOSING | LAST_ACK) => Cause::UnreadData,
        _ => Cause::OtherReset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_understood_by_the_stack() {
        let symbols = Symbols::parse(
            "10 T tcp_send_active_reset\n20 T tcp_disconnect\n30 T __tcp_close\n40 T inet_csk_listen_stop\n50 T x\n60 T tcp_write_timer_handler\n",
        );
        let cause =
            |stack: &[u64]| active(None, &Record { stack: stack.to_vec(), ..Record::default() }, &symbols);
        assert_eq!(cause(&[0x11, 0x21, 0x41, 0x31]), Cause::ListenerClosed);
        assert_eq!(cause(&[0x11, 0x21, 0x31]), Cause::Linger);
        assert_eq!(cause(&[0x11, 0x31]), Cause::UnreadData);
        assert_eq!(cause(&[0x11, 0x61]), Cause::Memory);
        assert_eq!(cause(&[0x51]), Cause::OtherReset);
    }

    #[test]
    fn reasons_come_first() {
        let none = Record::default();
        let symbols = Symbols::default();
        assert_eq!(active(Some("TCP_ABORT_ON_CLOSE"), &none, &symbols), Cause::UnreadData);
        assert_eq!(active(Some("TCP_STATE"), &none, &symbols), Cause::Linger);
        assert_eq!(active(Some("NEW"), &none, &symbols), Cause::OtherReset);
        let killed = Record { stack: vec![0x11, 0x21], ..Record::default() };
        let symbols = Symbols::parse("10 T tcp_send_active_reset\n20 T tcp_abort\n");
        assert_eq!(active(Some("TCP_STATE"), &killed, &symbols), Cause::OtherReset);
        assert_eq!(answered(None, 6, true), Cause::TimeWait);
        assert_eq!(answered(Some("TCP_TIMEWAIT_SOCKET"), 6, false), Cause::UnreadData);
        assert_eq!(answered(Some("TCP_ABORT_ON_DATA"), 4, false), Cause::UnreadData);
        assert_eq!(answered(None, 5, false), Cause::UnreadData);
        assert_eq!(answered(None, 1, false), Cause::OtherReset);
    }
}
