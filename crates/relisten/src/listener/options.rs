use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a server may want of its listener. TCP options are ignored for other protocols.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenOptions {
    /// Connections that may wait for `accept`; `net.core.somaxconn` caps it silently. Default 4096.
    pub backlog: u32,
    /// O_NONBLOCK, as event loops want it.
    pub nonblocking: bool,
    /// IPV6_V6ONLY; `None`: as the endpoint says.
    pub v6only: Option<bool>,
    /// TCP_DEFER_ACCEPT: accept only when data has come, or after this time (whole seconds).
    pub defer_accept: Option<Duration>,
    /// TCP_FASTOPEN: so many connections may wait that brought data with their SYN.
    pub fast_open: Option<u32>,
    /// SO_KEEPALIVE and its times.
    pub keepalive: Option<Keepalive>,
    /// TCP_NODELAY; connections inherit it.
    pub nodelay: bool,
    /// TCP_USER_TIMEOUT: how long sent data may stay unacknowledged (whole milliseconds).
    pub user_timeout: Option<Duration>,
    /// TCP_CONGESTION: the name of the congestion control.
    pub congestion: Option<String>,
    /// SO_RCVBUF, bytes. Before `listen`, so that connections can have large windows.
    pub rcvbuf: Option<u32>,
    /// SO_SNDBUF, bytes.
    pub sndbuf: Option<u32>,
    /// SO_MARK. Needs CAP_NET_ADMIN.
    pub mark: Option<u32>,
    /// SO_BINDTODEVICE: take only what comes in here. Needs CAP_NET_RAW before Linux 5.7.
    pub bind_device: Option<String>,
    /// IP_FREEBIND: the address need not be there yet.
    pub freebind: bool,
    /// IP_TRANSPARENT: take what is addressed to others. Needs CAP_NET_ADMIN.
    pub transparent: bool,
    /// SO_INCOMING_CPU: the CPU that this listener is for (used by the kernel's lookup since Linux 6.2).
    pub incoming_cpu: Option<u32>,
    /// The mode of a Unix socket's file, less the umask.
    pub unix_mode: Option<u32>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: 4096,
            nonblocking: false,
            v6only: None,
            defer_accept: None,
            fast_open: None,
            keepalive: None,
            nodelay: false,
            user_timeout: None,
            congestion: None,
            rcvbuf: None,
            sndbuf: None,
            mark: None,
            bind_device: None,
            freebind: false,
            transparent: false,
            incoming_cpu: None,
            unix_mode: None,
        }
    }
}

/// Probes of silent connections. What is `None` stays as the system has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Keepalive {
    /// TCP_KEEPIDLE: silence before the first probe (whole seconds).
    pub idle: Option<Duration>,
    /// TCP_KEEPINTVL: from one probe to the next (whole seconds).
    pub interval: Option<Duration>,
    /// TCP_KEEPCNT: unanswered probes that end the connection.
    pub probes: Option<u32>,
}
