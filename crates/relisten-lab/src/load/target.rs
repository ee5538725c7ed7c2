//! Where the load goes.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use thiserror::Error;

/// A server and a path on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where to connect.
    pub address: TargetAddress,
    /// What the `Host` header says.
    pub host: String,
    /// What to ask for, starting with `/`.
    pub path: String,
    /// Speak TLS. The certificate must be for the name, or the address, in [`host`](Target::host).
    pub tls: bool,
}

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetAddress {
    /// A TCP address. Names have been resolved; the first address counts.
    Tcp(SocketAddr),
    /// A Unix stream socket; a leading NUL byte means the abstract namespace.
    Unix(PathBuf),
}

/// Why a target is not understood.
#[derive(Debug, Error)]
pub enum TargetError {
    /// Neither HTTP nor HTTPS, or not in a form that is understood.
    #[error("'{0}' is not http://HOST[:PORT][/PATH], https://HOST[:PORT][/PATH] or unix:PATH")]
    Form(String),
    /// The port is not a number from 1 to 65535.
    #[error("'{0}' has no valid port")]
    Port(String),
    /// The path holds a blank or a control character.
    #[error("the path '{0}' must start with '/' and hold no blanks or control characters")]
    Path(String),
    /// The name could not be resolved.
    #[error("cannot resolve '{host}'")]
    Resolve {
        /// What was looked up.
        host: String,
        /// What the resolver said.
        source: std::io::Error,
    },
    /// The name has no address.
    #[error("'{0}' has no address")]
    NoAddress(String),
}

impl Target {
    /// Parses `http://HOST[:PORT][/PATH]`, the same with `https`, `HOST:PORT[/PATH]`, or `unix:PATH` (`unix:@NAME` is abstract).
    ///
    /// Names are resolved here, blocking.
    pub fn parse(text: &str) -> Result<Target, TargetError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(TargetError::Form(text.to_owned()));
            }
            let path = path.strip_prefix('@').map_or_else(|| path.to_owned(), |name| format!("\0{name}"));
            return Ok(Target {
                address: TargetAddress::Unix(PathBuf::from(path)),
                host: "localhost".to_owned(),
                path: "/".to_owned(),
                tls: false,
            });
        }
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(TargetError::Form(text.to_owned())),
            None => (false, text),
        };
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) if rest.as_bytes()[at] == b'?' => (&rest[..at], format!("/{}", &rest[at..])),
            Some(at) => (&rest[..at], rest[at..].to_owned()),
            None => (rest, "/".to_owned()),
        };
        let (host, port) = split_port(authority).ok_or_else(|| TargetError::Port(text.to_owned()))?;
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        if host.is_empty() || host.contains('@') {
            return Err(TargetError::Form(text.to_owned()));
        }
        let resolved = (host, port)
            .to_socket_addrs()
            .map_err(|source| TargetError::Resolve { host: host.to_owned(), source })?
            .next()
            .ok_or_else(|| TargetError::NoAddress(host.to_owned()))?;
        let address = TargetAddress::Tcp(resolved);
        Target { address, host: authority.to_owned(), path: String::new(), tls }.with_path(&path)
    }

    /// The same server, another path. A fragment is cut off.
    pub fn with_path(mut self, path: &str) -> Result<Target, TargetError> {
        let path = path.split('#').next().unwrap_or_default();
        if !path.starts_with('/') || path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(TargetError::Path(path.to_owned()));
        }
        path.clone_into(&mut self.path);
        Ok(self)
    }

    /// The name or address of the server, without its port.
    pub(super) fn server_name(&self) -> &str {
        split_port(&self.host).map_or(&self.host, |(host, _)| host)
    }

    /// Whether this is an IPv4 loopback address, where many source addresses are to be had.
    pub(super) fn is_ipv4_loopback(&self) -> bool {
        matches!(self.address, TargetAddress::Tcp(SocketAddr::V4(address)) if address.ip().is_loopback())
    }
}

/// The host, without the brackets of an IPv6 address, and the port if one is given. `None`: it is none.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(valid_port(port)?))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, Some(valid_port(port)?))),
        None => Some((authority, None)),
    }
}

fn valid_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|&port| port != 0)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            TargetAddress::Tcp(address) => {
                write!(f, "{}://{address}{}", if self.tls { "https" } else { "http" }, self.path)
            }
            TargetAddress::Unix(path) => {
                write!(f, "unix:{} {}", path.display().to_string().replace('\0', "@"), self.path)
            }
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Target {
        Target {
            address: TargetAddress::Tcp(address),
            host: address.to_string(),
            path: "/".to_owned(),
            tls: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_what_users_write() {
        for (text, shown, host) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/", "127.0.0.1:8080"),
            ("127.0.0.1:8080/a?b#c", "http://127.0.0.1:8080/a?b", "127.0.0.1:8080"),
            ("http://127.0.0.1?x=1", "http://127.0.0.1:80/?x=1", "127.0.0.1"),
            ("http://[::1]:81/x", "http://[::1]:81/x", "[::1]:81"),
            ("https://127.0.0.1", "https://127.0.0.1:443/", "127.0.0.1"),
            ("https://[::1]:8443/x", "https://[::1]:8443/x", "[::1]:8443"),
            ("unix:@name", "unix:@name /", "localhost"),
        ] {
            let target = Target::parse(text).expect(text);
            assert_eq!((target.to_string().as_str(), target.host.as_str()), (shown, host), "{text}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_do() {
        for text in [
            "ftp://127.0.0.1/",
            "https://",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:99999/",
            "http://user@127.0.0.1/",
            "http://[::1/",
            "http://[::1]x/",
            "http://",
            "unix:",
            "127.0.0.1:80/a b",
            "127.0.0.1:80/a\r\nx: y",
        ] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
