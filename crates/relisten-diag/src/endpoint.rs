use crate::sock_diag::{Protocol, Socket};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An address that an instance listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Transport.
    pub protocol: Protocol,
    /// Address and port. The IPv6 wildcard stands for IPv4 as well, whether or not the listener is dual-stack.
    pub address: SocketAddr,
}

impl Endpoint {
    /// Can a socket with this address of its own come from a listener here? A listener on another address of
    /// the same port is none of ours.
    pub fn covers(&self, socket: &Socket) -> bool {
        let local = socket.local_canonical();
        self.address.port() == local.port()
            && match self.address.ip().to_canonical() {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
                ip if ip.is_unspecified() => local.is_ipv4(),
                ip => ip == local.ip(),
            }
    }

    /// The ports of those endpoints that speak `protocol`.
    pub(crate) fn ports(endpoints: &[Self], protocol: Protocol) -> Vec<u16> {
        endpoints.iter().filter(|e| e.protocol == protocol).map(|e| e.address.port()).collect()
    }

    /// Is the socket, found by a dump of `protocol`, at one of them?
    pub(crate) fn any_covers(endpoints: &[Self], protocol: Protocol, socket: &Socket) -> bool {
        endpoints.iter().any(|e| e.protocol == protocol && e.covers(socket))
    }
}
