use crate::address::Endpoint;
use std::io;
use thiserror::Error;

/// Why a listener could not be opened, and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// EADDRINUSE of an IP socket.
    #[error(
        "{endpoint} is in use by a socket that does not share it: it belongs to another user or was opened without \
         SO_REUSEPORT; stop its owner (`ss -lntup` names it) or choose another port"
    )]
    InUse {
        /// Where.
        endpoint: Endpoint,
        /// What the kernel said.
        source: io::Error,
    },
    /// EADDRINUSE of a Unix socket.
    #[error(
        "{endpoint} exists and somebody listens on it, or it is no socket: remove it or choose another path"
    )]
    PathInUse {
        /// Where.
        endpoint: Endpoint,
        /// What the kernel said.
        source: io::Error,
    },
    /// EACCES of an IP socket.
    #[error(
        "{endpoint} is a privileged port: give the program CAP_NET_BIND_SERVICE, lower \
         net.ipv4.ip_unprivileged_port_start, or choose a port from 1024 up"
    )]
    Privileged {
        /// Where.
        endpoint: Endpoint,
        /// What the kernel said.
        source: io::Error,
    },
    /// EADDRNOTAVAIL.
    #[error(
        "{endpoint} is not an address of this machine: choose one that `ip addr` shows, or allow freebind"
    )]
    NotAvailable {
        /// Where.
        endpoint: Endpoint,
        /// What the kernel said.
        source: io::Error,
    },
    /// EAFNOSUPPORT.
    #[error("this machine has no IPv6, which {endpoint} needs: choose an IPv4 address")]
    NoFamily {
        /// Where.
        endpoint: Endpoint,
        /// What the kernel said.
        source: io::Error,
    },
    /// EACCES, EROFS or ENOENT of a Unix socket.
    #[error("can't make {endpoint}: its directory must exist and be writable")]
    Path {
        /// Where.
        endpoint: Endpoint,
        /// What the kernel said.
        source: io::Error,
    },
    /// EMFILE or ENFILE.
    #[error("no descriptor left for {endpoint}: raise the limit (`ulimit -n`, LimitNOFILE=)")]
    Descriptors {
        /// Where.
        endpoint: Endpoint,
        /// What the kernel said.
        source: io::Error,
    },
    /// An option that the kernel refused.
    #[error("can't set {option} on {endpoint}")]
    Option {
        /// Where.
        endpoint: Endpoint,
        /// The option's C name.
        option: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else.
    #[error("can't {what} for {endpoint}")]
    Other {
        /// Where.
        endpoint: Endpoint,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ListenError {
    pub(super) fn other(endpoint: &Endpoint, what: &'static str, source: io::Error) -> Self {
        Self::Other { endpoint: endpoint.clone(), what, source }
    }

    /// The error of `socket`, `bind` or `listen`.
    pub(super) fn classify(endpoint: &Endpoint, what: &'static str, source: io::Error) -> Self {
        use rustix::io::Errno;
        let unix = matches!(endpoint, Endpoint::Unix(_) | Endpoint::Abstract(_));
        let endpoint = endpoint.clone();
        match Errno::from_io_error(&source) {
            Some(Errno::ADDRINUSE) if unix => Self::PathInUse { endpoint, source },
            Some(Errno::ADDRINUSE) => Self::InUse { endpoint, source },
            Some(Errno::ACCESS | Errno::ROFS | Errno::NOENT | Errno::NOTDIR) if unix => {
                Self::Path { endpoint, source }
            }
            Some(Errno::ACCESS) => Self::Privileged { endpoint, source },
            Some(Errno::ADDRNOTAVAIL) => Self::NotAvailable { endpoint, source },
            Some(Errno::AFNOSUPPORT) => Self::NoFamily { endpoint, source },
            Some(Errno::MFILE | Errno::NFILE) => Self::Descriptors { endpoint, source },
            _ => Self::Other { endpoint, what, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    fn message(address: &str, errno: Errno) -> String {
        let address: crate::address::Address = address.parse().unwrap();
        let endpoint = address.resolve().unwrap().remove(0);
        ListenError::classify(&endpoint, "bind", errno.into()).to_string()
    }

    #[test]
    fn each_cause_has_its_cure() {
        for (address, errno, cure) in [
            ("127.0.0.1:80", Errno::ADDRINUSE, "another user"),
            ("127.0.0.1:80", Errno::ACCESS, "CAP_NET_BIND_SERVICE"),
            ("127.0.0.1:80", Errno::ADDRNOTAVAIL, "ip addr"),
            ("[::1]:80", Errno::AFNOSUPPORT, "no IPv6"),
            ("127.0.0.1:80", Errno::MFILE, "ulimit -n"),
            ("unix:/run/x", Errno::ADDRINUSE, "remove it"),
            ("unix:/run/x", Errno::ACCESS, "writable"),
            ("127.0.0.1:80", Errno::NOBUFS, "can't bind for 127.0.0.1:80"),
        ] {
            let message = message(address, errno);
            assert!(message.contains(cure), "{message}");
        }
    }
}
