//! What a user writes for an address is understood, or refused in one line that can be shown on a terminal; what was
//! understood means the same when it is written out.

use relisten::address::NamedAddress;

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<NamedAddress>() {
        Ok(address) => {
            let written = address.to_string();
            assert_eq!(written.parse().as_ref(), Ok(&address), "{text:?} written as {written:?}");
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && !said.contains(char::is_control), "{text:?} refused with {said:?}");
        }
    }
}
