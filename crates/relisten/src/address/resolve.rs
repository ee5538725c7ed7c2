use super::{Address, Endpoint};
use rustix::net::{AddressFamily, SocketType, socket};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use thiserror::Error;

/// A name that stands for no address.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The resolver failed.
    #[error("can't resolve '{host}': check its spelling, /etc/hosts and the name server")]
    Lookup {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The resolver had nothing.
    #[error("'{0}' resolves to no address: check /etc/hosts and the name server")]
    Nothing(String),
}

impl Address {
    /// The sockets that this address asks for: one, or several for a name with several addresses. Without
    /// duplicates, in the resolver's order.
    ///
    /// The empty host is `[::]`, open to IPv4 as well, or `0.0.0.0` on a machine without IPv6. **May block** for
    /// as long as the resolver (`getaddrinfo`) does, unless the host is empty or an IP address.
    pub fn resolve(&self) -> Result<Vec<Endpoint>, ResolveError> {
        Ok(match self {
            Self::Tcp { host, port } => addresses(host, *port)?.into_iter().map(Endpoint::tcp).collect(),
            Self::Udp { host, port } => addresses(host, *port)?.into_iter().map(Endpoint::udp).collect(),
            Self::Unix(path) => vec![Endpoint::Unix(path.clone())],
            Self::Abstract(name) => vec![Endpoint::Abstract(name.clone().into_bytes())],
        })
    }
}

fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    if host.is_empty() {
        return Ok(vec![wildcard(port)]);
    }
    let found = (host, port)
        .to_socket_addrs()
        .map_err(|source| ResolveError::Lookup { host: host.to_owned(), source })?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(ResolveError::Nothing(host.to_owned()));
    }
    Ok(addresses)
}

fn wildcard(port: u16) -> SocketAddr {
    // `ipv6.disable=1` at boot takes the whole family away; other ways of disabling leave `[::]` bindable.
    if socket(AddressFamily::INET6, SocketType::STREAM, None).is_ok() {
        (Ipv6Addr::UNSPECIFIED, port).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, port).into()
    }
}
