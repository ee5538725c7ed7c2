use rustix::net::{SocketAddrAny, SocketAddrUnix, getsockname, sockopt};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Where one socket is bound. Sockets with equal endpoints (and network namespace, and bound device) can share
/// a reuseport group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endpoint {
    /// TCP (and MPTCP, which shares TCP's ports).
    Tcp {
        /// Address and port.
        addr: SocketAddr,
        /// `IPV6_V6ONLY`; false for IPv4.
        v6only: bool,
    },
    /// UDP.
    Udp {
        /// Address and port.
        addr: SocketAddr,
        /// `IPV6_V6ONLY`; false for IPv4.
        v6only: bool,
    },
    /// Unix stream socket with a path.
    Unix(PathBuf),
    /// Unix stream socket in the abstract namespace, without the leading zero byte.
    Abstract(Vec<u8>),
}

/// A kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Unix stream.
    Unix,
}

impl Protocol {
    /// "tcp", "udp" or "unix".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Unix => "unix",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Endpoint {
    /// TCP on this address; the IPv6 wildcard takes IPv4 as well.
    pub fn tcp(addr: SocketAddr) -> Self {
        Self::Tcp { addr, v6only: is_v6only(addr) }
    }

    /// UDP on this address; the IPv6 wildcard takes IPv4 as well.
    pub fn udp(addr: SocketAddr) -> Self {
        Self::Udp { addr, v6only: is_v6only(addr) }
    }

    /// What a socket is bound to: `getsockname`, SO_PROTOCOL, IPV6_V6ONLY. A socket that is not bound yet has
    /// port 0.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] when it is neither TCP, MPTCP nor UDP nor a Unix socket with a name;
    /// `ENOTSOCK` when it is no socket.
    pub fn from_socket(socket: impl AsFd) -> io::Result<Self> {
        let fd = socket.as_fd();
        let name = getsockname(fd)?;
        let Ok(addr) = SocketAddr::try_from(name.clone()) else {
            return Self::from_unix(name);
        };
        let v6only = addr.is_ipv6() && sockopt::ipv6_v6only(fd)?;
        match relisten_sys::sockopt::protocol(fd)? {
            TCP | relisten_sys::sockopt::IPPROTO_MPTCP => Ok(Self::Tcp { addr, v6only }),
            UDP => Ok(Self::Udp { addr, v6only }),
            other => Err(unsupported(format!("IP protocol {other} is neither TCP nor UDP"))),
        }
    }

    fn from_unix(name: SocketAddrAny) -> io::Result<Self> {
        let name = SocketAddrUnix::try_from(name)
            .map_err(|_| unsupported("neither an IP nor a Unix socket".into()))?;
        if let Some(bytes) = name.abstract_name() {
            return Ok(Self::Abstract(bytes.to_vec()));
        }
        match name.path_bytes() {
            Some(path) => Ok(Self::Unix(std::ffi::OsStr::from_bytes(path).into())),
            None => Err(unsupported("a Unix socket without a name".into())),
        }
    }

    /// TCP, UDP or Unix.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Tcp { .. } => Protocol::Tcp,
            Self::Udp { .. } => Protocol::Udp,
            Self::Unix(_) | Self::Abstract(_) => Protocol::Unix,
        }
    }

    /// Address and port, unless it is a Unix socket.
    pub fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp { addr, .. } | Self::Udp { addr, .. } => Some(*addr),
            Self::Unix(_) | Self::Abstract(_) => None,
        }
    }

    /// The port, unless it is a Unix socket.
    pub fn port(&self) -> Option<u16> {
        self.addr().map(|a| a.port())
    }

    /// The same with another port: what port 0 has become. Unix sockets have none and stay as they are.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        if let Self::Tcp { addr, .. } | Self::Udp { addr, .. } = &mut self {
            addr.set_port(port);
        }
        self
    }

    /// Can sockets share it by SO_REUSEPORT?
    pub fn has_group(&self) -> bool {
        self.protocol() != Protocol::Unix
    }
}

/// `bind` to an IPv6 address sets IPV6_V6ONLY, unless it is the wildcard or stands for an IPv4 address
/// ([`__inet6_bind`](https://github.com/torvalds/linux/blob/v6.12/net/ipv6/af_inet6.c)).
fn is_v6only(addr: SocketAddr) -> bool {
    match addr {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(v6) => !v6.ip().is_unspecified() && v6.ip().to_ipv4_mapped().is_none(),
    }
}

const TCP: i32 = 6;
const UDP: i32 = 17;

fn unsupported(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

/// As `--listen` would take it.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { addr, .. } => addr.fmt(f),
            Self::Udp { addr, .. } => write!(f, "udp://{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{}", String::from_utf8_lossy(name)),
        }
    }
}
