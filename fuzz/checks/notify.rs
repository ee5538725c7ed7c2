//! Whatever a datagram holds, there is a message, its text is fit for a terminal, and it survives being sent on.

use relisten::systemd::{MAX_STATUS, Message};

pub(crate) fn check(data: &[u8]) {
    let message = Message::parse(data);
    if let Some(status) = &message.status {
        assert!(status.len() <= MAX_STATUS && !status.contains(char::is_control), "{status:?}");
    }
    let again = Message::parse(message.to_string().as_bytes());
    assert_eq!(again, Message { unknown: 0, ..message });
}
