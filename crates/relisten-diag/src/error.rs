use rustix::io::Errno;
use std::io;
use std::path::PathBuf;

/// Why the kernel's view of the sockets could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiagError {
    /// No netlink socket. `EPROTONOSUPPORT`: this kernel is built without `CONFIG_INET_DIAG`; `EACCES` or
    /// `EPERM`: a sandbox forbids it; `EMFILE`: the descriptor limit is reached.
    #[error("can't open a sock_diag netlink socket")]
    Open(#[source] Errno),
    /// The request could not be sent, or its answer not be read.
    #[error("can't talk to sock_diag")]
    Transfer(#[source] Errno),
    /// The kernel refused the request. `ENOENT`: it has no sock_diag for this protocol or family (a module such
    /// as `udp_diag` is missing); `EINVAL`: it does not know a part of the filter.
    #[error("sock_diag refused the request")]
    Refused(#[source] Errno),
    /// An answer that contradicts the format: a bug here or in the kernel.
    #[error("sock_diag answered nonsense: {0}")]
    Malformed(&'static str),
    /// Another network namespace could not be entered. `EPERM`: that needs CAP_SYS_ADMIN; `ENOENT`: there is none of
    /// that name.
    #[error("can't enter the network namespace {}", path.display())]
    Namespace {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// A file below `/proc` could not be read or understood.
    #[error("can't read {}", path.display())]
    Proc {
        /// Which.
        path: PathBuf,
        /// Why. `InvalidData` where its content is not what proc(5) says.
        source: io::Error,
    },
}

impl DiagError {
    pub(crate) fn proc(path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Proc { path: path.into(), source: source.into() }
    }
}
