//! Addresses: as users write them ([`Address`]), and as the kernel knows them ([`Endpoint`]).

mod endpoint;
mod parse;
mod resolve;
#[cfg(test)]
mod tests;

pub use endpoint::{Endpoint, Protocol};
pub use parse::AddressError;
pub use resolve::ResolveError;

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// An address with the name that workers get in `LISTEN_FDNAMES`: `[NAME=]ADDR`.
///
/// ```
/// use relisten::address::NamedAddress;
///
/// let web: NamedAddress = "web=:8080".parse()?;
/// assert_eq!(web.name.as_deref(), Some("web"));
/// assert_eq!(web.address.to_string(), ":8080");
/// # Ok::<(), relisten::address::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamedAddress {
    /// Letters, digits, `.`, `_`, `-` and `@`, at most 255.
    pub name: Option<String>,
    /// Where to listen.
    pub address: Address,
}

/// An address as a user writes it.
///
/// | written | means |
/// |---|---|
/// | `HOST:PORT`, `tcp://HOST:PORT` | TCP; a name may stand for several addresses |
/// | `:PORT`, `*:PORT`, `PORT` | TCP, IPv6 and IPv4 on one socket |
/// | `0.0.0.0:PORT` | TCP, IPv4 only |
/// | `[::1]:PORT` | TCP, an IPv6 address stands in brackets |
/// | `udp://HOST:PORT` | UDP |
/// | `unix:PATH` | Unix stream socket |
/// | `unix:@NAME` | Unix stream socket in the abstract namespace (no file) |
///
/// Port 0 lets the kernel pick.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// TCP.
    Tcp {
        /// A name or an IP address, without brackets; empty: every address of the machine.
        host: String,
        /// The port; 0: the kernel picks.
        port: u16,
    },
    /// UDP.
    Udp {
        /// As for TCP.
        host: String,
        /// The port; 0: the kernel picks.
        port: u16,
    },
    /// Unix stream socket with a path.
    Unix(PathBuf),
    /// Unix stream socket in the abstract namespace, without the leading `@`.
    Abstract(String),
}

impl Address {
    /// The protocol.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Tcp { .. } => Protocol::Tcp,
            Self::Udp { .. } => Protocol::Udp,
            Self::Unix(_) | Self::Abstract(_) => Protocol::Unix,
        }
    }
}

impl From<Address> for NamedAddress {
    fn from(address: Address) -> Self {
        Self { name: None, address }
    }
}

impl fmt::Display for NamedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}=")?;
        }
        self.address.fmt(f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Udp { host, port } if host.contains(':') => write!(f, "udp://[{host}]:{port}"),
            Self::Udp { host, port } => write!(f, "udp://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{name}"),
        }
    }
}
