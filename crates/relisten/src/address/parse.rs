use super::{Address, NamedAddress};
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;

/// What is wrong with an address, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Nothing there.
    #[error("the address is empty: write HOST:PORT, udp://HOST:PORT or unix:PATH")]
    Empty,
    /// A host alone.
    #[error("'{0}' has no port: write {0}:PORT, or {0}:0 to let the kernel pick one")]
    NoPort(String),
    /// Not a number from 0 to 65535.
    #[error("'{0}' is not a port: write a number from 0 to 65535")]
    BadPort(String),
    /// An IPv6 address without brackets.
    #[error("'{0}' has several colons: write an IPv6 address in brackets, as in [::1]:8080")]
    Brackets(String),
    /// Brackets around something else.
    #[error("'{0}' is not an IPv6 address: only an IPv6 address stands in brackets, as in [::1]:8080")]
    NotIpv6(String),
    /// A host name with characters that no host name has.
    #[error("'{0}' is not a host: write an IP address, a host name, or nothing for every address")]
    BadHost(String),
    /// A scheme that means nothing here.
    #[error("'{0}' is not a kind of address: write tcp://, udp:// or unix:")]
    UnknownScheme(String),
    /// `unix:` without a path.
    #[error("the path is empty: write unix:PATH, or unix:@NAME for a socket without a file")]
    EmptyPath,
    /// Too long for `sockaddr_un`.
    #[error("the path has {0} bytes, but a Unix socket's may have 107: use a shorter or a relative one")]
    PathTooLong(usize),
    /// A zero byte or another control character.
    #[error("the address has a control character in it: remove it")]
    ControlCharacter,
    /// A name with other characters than allowed.
    #[error("'{0}' can't be a listener's name: use up to 255 letters, digits, '.', '_', '-' and '@'")]
    BadName(String),
}

/// `sun_path` has 108 bytes; a path ends with a zero byte, an abstract name begins with one.
pub(super) const MAX_PATH: usize = 107;
const MAX_NAME: usize = 255;

impl FromStr for NamedAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        // An equals sign behind a colon, slash or bracket belongs to the address (`unix:/run/a=b`).
        let Some((name, rest)) = text.split_once('=').filter(|(name, _)| !name.contains([':', '/', '[']))
        else {
            return Ok(text.parse::<Address>()?.into());
        };
        let good = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(good) {
            return Err(AddressError::BadName(printable(name)));
        }
        Ok(Self { name: Some(name.to_owned()), address: rest.parse()? })
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(AddressError::ControlCharacter);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path);
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let (host, port) = host_and_port(rest)?;
            return match scheme.to_ascii_lowercase().as_str() {
                "tcp" => Ok(Self::Tcp { host, port }),
                "udp" => Ok(Self::Udp { host, port }),
                _ => Err(AddressError::UnknownScheme(format!("{scheme}://"))),
            };
        }
        let (host, port) = host_and_port(text)?;
        Ok(Self::Tcp { host, port })
    }
}

fn unix(path: &str) -> Result<Address, AddressError> {
    // `unix:///run/x` as other programs write it.
    let path = if path.starts_with("///") { &path[2..] } else { path };
    let bare = path.strip_prefix('@');
    if bare.unwrap_or(path).is_empty() {
        return Err(AddressError::EmptyPath);
    }
    if path.len() > MAX_PATH {
        return Err(AddressError::PathTooLong(path.len()));
    }
    Ok(bare.map_or_else(|| Address::Unix(PathBuf::from(path)), |name| Address::Abstract(name.to_owned())))
}

fn host_and_port(text: &str) -> Result<(String, u16), AddressError> {
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    if let Some(inner) = text.strip_prefix('[') {
        let Some((host, rest)) = inner.split_once(']') else {
            return Err(AddressError::NotIpv6(text.to_owned()));
        };
        // The zone of a link-local address (`fe80::1%eth0`) is a name of this machine.
        let (address, zone) = host.split_once('%').map_or((host, None), |(a, z)| (a, Some(z)));
        if address.parse::<Ipv6Addr>().is_err() || zone.is_some_and(|z| !is_host(z)) {
            return Err(AddressError::NotIpv6(host.to_owned()));
        }
        let Some(port) = rest.strip_prefix(':') else {
            return Err(AddressError::NoPort(format!("[{host}]")));
        };
        return Ok((host.to_owned(), number(port)?));
    }
    match text.split_once(':') {
        None if text.bytes().all(|b| b.is_ascii_digit()) => Ok((String::new(), number(text)?)),
        None if is_host(text) || text == "*" => Err(AddressError::NoPort(text.to_owned())),
        None => Err(AddressError::BadHost(text.to_owned())),
        Some((_, port)) if port.contains(':') => Err(AddressError::Brackets(text.to_owned())),
        Some((host, "")) => Err(AddressError::NoPort(host.to_owned())),
        Some(("" | "*", port)) => Ok((String::new(), number(port)?)),
        Some((host, port)) if is_host(host) => Ok((host.to_owned(), number(port)?)),
        Some((host, _)) => Err(AddressError::BadHost(host.to_owned())),
    }
}

fn number(port: &str) -> Result<u16, AddressError> {
    // `parse` alone would take "+80".
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AddressError::BadPort(port.to_owned()));
    }
    port.parse().map_err(|_| AddressError::BadPort(port.to_owned()))
}

/// Internationalized names are the resolver's business; what is kept out is what must be a slip.
fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= MAX_NAME
        && host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

macro_rules! as_string {
    ($name:ty) => {
        impl TryFrom<String> for $name {
            type Error = AddressError;
            fn try_from(text: String) -> Result<Self, AddressError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(address: $name) -> Self {
                address.to_string()
            }
        }
    };
}
as_string!(NamedAddress);
as_string!(Address);
