use crate::runtime::control::{ClientError, PlaceError};
use std::io;

/// Why a server can't be attached to, or not any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Nothing listens there.
    #[error("nobody listens on port {0}")]
    NoListener(u16),
    /// The number is neither.
    #[error("{0} is neither a port that somebody listens on nor a process that listens")]
    Nothing(u32),
    /// The process listens on several ports.
    #[error("process {pid} listens on several ports: {}", .ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// The process.
        pid: u32,
        /// Its ports.
        ports: Vec<u16>,
    },
    /// The listener is no member of a group.
    #[error(
        "the listener on port {0} has no SO_REUSEPORT: it is the only one, and there is nothing to steer"
    )]
    NotShared(u16),
    /// Nobody is seen to hold it.
    #[error("the process that listens on port {0} can't be seen")]
    Hidden(u16),
    /// An instance of relisten does it.
    #[error("port {0} belongs to an instance of relisten, which steers it")]
    Instance(u16),
    /// Somebody does this already.
    #[error("port {port} is attached already{}", .pid.map_or_else(String::new, |pid| format!(" (process {pid})")))]
    Taken {
        /// The port.
        port: u16,
        /// Who.
        pid: Option<u32>,
    },
    /// Nobody does.
    #[error("port {0} is not attached")]
    NotAttached(u16),
    /// `cpu` has nothing to go by.
    #[error("no worker on port {0} is bound to a CPU of its own, so 'cpu' has nothing to go by")]
    Unbound(u16),
    /// Programs can't be loaded.
    #[error("steering programs can't be loaded: {0}")]
    Load(String),
    /// We may not have a duplicate.
    #[error("the listener on port {port} can't be duplicated")]
    Duplicate {
        /// The port.
        port: u16,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no place for the socket over which it is asked and told.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The process that is attached did not do as it was told.
    #[error("the process that is attached does not let go")]
    LetGo(#[source] ClientError),
    /// Something else.
    #[error("can't {what}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl AttachError {
    /// What to do about it.
    pub fn cure(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoListener(_) | Self::Nothing(_) => {
                "'ss -ltnp' shows who listens where; another network namespace is entered with 'ip netns exec' or nsenter"
            }
            Self::Ambiguous { .. } => "give the port",
            Self::NotShared(_) => {
                "turn it on in the server (nginx: listen … reuseport; HAProxy: shards), or start the server by \
                 'relisten run -- COMMAND'"
            }
            Self::Taken { .. } => "'relisten steer --detach PORT' ends the other one",
            Self::Instance(_) => "'relisten steer POLICY' changes how",
            Self::Hidden(_) => {
                "it needs CAP_SYS_PTRACE, and the same PID namespace: run as root on the host, or inside of the container"
            }
            Self::Unbound(_) => {
                "bind the workers (nginx: worker_cpu_affinity auto; HAProxy: cpu-map; others: taskset -cp CPU PID), or \
                 choose another policy"
            }
            Self::Load(_) | Self::Duplicate { .. } => {
                "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_PTRACE, on Linux 5.17 or newer"
            }
            Self::NotAttached(_) => "'relisten status' lists what is attached",
            Self::Place(_) | Self::LetGo(_) | Self::System { .. } => return None,
        })
    }
}

pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> AttachError {
    move |source| AttachError::System { what, source }
}
