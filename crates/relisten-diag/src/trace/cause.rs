use super::Outcome;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $key:literal, $outcome:ident, $words:literal, $advice:literal;)*) => {
        /// Why it happened. The serialized names are for scripts and only ever added to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, schemars::JsonSchema)]
        #[non_exhaustive]
        pub enum Cause {
            $($(#[$doc])* #[serde(rename = $key)] $name,)*
        }

        impl Cause {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name for scripts and `--cause`.
            pub fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)* }
            }

            /// What became of the connection.
            pub fn outcome(self) -> Outcome {
                match self { $(Self::$name => Outcome::$outcome,)* }
            }

            /// In words.
            pub fn words(self) -> &'static str {
                match self { $(Self::$name => $words,)* }
            }

            /// What to do about it.
            pub fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice,)* }
            }
        }
    };
}

causes! {
    /// No socket listens there.
    NobodyListens = "nobody-listens", Refused, "nobody listens there",
        "start the server, or look for the address it really binds (ss -ltnp); keep the port open over restarts: relisten run";
    /// The listener was closed with the connection in its queue.
    ListenerClosed = "listener-closed", Reset, "its listener was closed before it was accepted",
        "hold a duplicate of the listener over restarts (relisten run), or let queues move: sysctl net.ipv4.tcp_migrate_req=1";
    /// The listener was closed while the handshake was under way.
    HalfOpenAtExit = "half-open-at-exit", Reset, "its listener was closed during its handshake",
        "steer new connections away and wait for half-open ones before closing (relisten reload), or sysctl net.ipv4.tcp_migrate_req=1";
    /// The final ACK found no request.
    NoRequest = "no-request", Reset, "its handshake is not known (any more)",
        "the request timed out, or its SYN cookie was not valid; look at network delays and at SyncookiesFailed (nstat)";
    /// The accept queue was full.
    AcceptQueueFull = "accept-queue-full", Dropped, "the accept queue is full",
        "accept faster, add workers, or raise the backlog of listen() and sysctl net.core.somaxconn; the smaller one binds";
    /// Too many half-open requests.
    SynQueueFull = "syn-queue-full", Dropped, "too many half-open requests at the listener, and SYN cookies are off",
        "raise the backlog and net.ipv4.tcp_max_syn_backlog, or set net.ipv4.tcp_syncookies=1";
    /// Answered with a SYN cookie.
    SynCookies = "syn-cookies", Degraded, "answered by a SYN cookie, because too many requests were half open",
        "if it is no attack, raise the backlog: options such as window scaling may be lost with cookies";
    /// The accept queue was full and tcp_abort_on_overflow is set.
    AbortOnOverflow = "abort-on-overflow", Reset, "the accept queue is full, and net.ipv4.tcp_abort_on_overflow is 1",
        "set net.ipv4.tcp_abort_on_overflow=0: then the client's next segment gets another chance; accept faster or raise the backlog";
    /// Its listener closed; another took it over.
    Migrated = "migrated", Migrated, "its listener was closed, and another one of the group took it over",
        "nothing is lost";
    /// Its listener closed, and taking over did not work.
    MigrationFailed = "migration-failed", Reset, "its listener was closed, and no other one of the group could take it over",
        "keep another listener of the group open while one closes, with room in its queue";
    /// The application closed with data that it had not read.
    UnreadData = "unread-data", Reset, "the application closed the connection with data that it had not read",
        "read to the end of the request before closing, or shutdown() and read until the client closes (lingering close)";
    /// The application closed with SO_LINGER 0.
    Linger = "linger-zero", Reset, "the application closed the connection with SO_LINGER 0",
        "remove SO_LINGER with 0: it throws unsent data away";
    /// The kernel is out of memory for sockets.
    Memory = "memory", Reset, "the kernel gave it up for want of memory",
        "look at net.ipv4.tcp_mem, tcp_max_orphans and the cgroup's memory limit";
    /// A segment older than one already seen.
    Paws = "paws", Dropped, "its timestamp is older than one already seen (PAWS)",
        "clients behind one NAT address with clocks of their own, or a delayed duplicate; never set tcp_tw_recycle on old kernels";
    /// The four-tuple is in TIME_WAIT.
    TimeWait = "time-wait", Dropped, "the same addresses and ports are still in TIME_WAIT",
        "more client ports or addresses (net.ipv4.ip_local_port_range), and leave net.ipv4.tcp_timestamps on";
    /// A socket of another program got it.
    ForeignSocket = "foreign-socket", Diverted, "a foreign socket in the group got it",
        "stop that process, or run the server as a user of its own: any process of the same user can join the group";
    /// The socket's receive buffer was full.
    UdpBufferFull = "udp-buffer-full", Dropped, "the receive buffer of the socket is full",
        "read faster, add workers, or raise SO_RCVBUF (net.core.rmem_max)";
    /// A flow changed its socket.
    FlowMoved = "flow-moved", Diverted, "its flow goes to another socket, because the group changed",
        "steer flows by a table or a connection ID, and change the group less often";
    /// connect() found no free port.
    PortsExhausted = "ports-exhausted", Failed, "connect() failed: no local port is left for this destination",
        "widen net.ipv4.ip_local_port_range, use more source or destination addresses, keep connections alive: relisten doctor --connect HOST:PORT";
    /// The client reset it.
    ResetByClient = "reset-by-client", Reset, "the client reset it",
        "look at the client: it gave up, closed with unread data, or with SO_LINGER 0";
    /// The other side of an outgoing connection reset it.
    ResetByServer = "reset-by-server", Reset, "the server reset it",
        "look at the server: run relisten trace there";
    /// The peer did not answer keep-alive probes.
    KeepaliveTimeout = "keepalive-timeout", Reset, "the other side did not answer any more",
        "look at the network between them";
    /// Another reason of the kernel's.
    OtherReset = "other-reset", Reset, "the kernel reset it",
        "the evidence has the kernel's own reason";
    /// A packet dropped for another reason.
    OtherDrop = "other-drop", Dropped, "the kernel dropped it",
        "the evidence has the kernel's own reason";
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// There is no such cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no such cause; one of {}", Cause::ALL.iter().map(|c| c.key()).collect::<Vec<_>>().join(", "))]
pub struct UnknownCause;

impl FromStr for Cause {
    type Err = UnknownCause;

    fn from_str(text: &str) -> Result<Self, UnknownCause> {
        Self::ALL.iter().copied().find(|cause| cause.key() == text).ok_or(UnknownCause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keys_are_read_back_and_differ() {
        let keys: HashSet<&str> = Cause::ALL.iter().map(|cause| cause.key()).collect();
        assert_eq!(keys.len(), Cause::ALL.len());
        for cause in Cause::ALL {
            assert_eq!(cause.key().parse(), Ok(*cause));
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.key());
        }
        assert_eq!("nothing".parse::<Cause>(), Err(UnknownCause));
    }
}
