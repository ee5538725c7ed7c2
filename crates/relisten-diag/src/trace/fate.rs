use super::Cause;
use serde::Serialize;
use std::net::SocketAddr;

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It never came about: reset in answer to its SYN.
    Refused,
    /// It was reset.
    Reset,
    /// A packet was dropped in silence; the other side tries again or gives up.
    Dropped,
    /// Another listener has it now; nothing is lost.
    Migrated,
    /// It goes to another socket than it should.
    Diverted,
    /// It goes on with less than it could have.
    Degraded,
    /// A system call failed before anything was sent.
    Failed,
}

impl Outcome {
    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Dropped => "dropped",
            Self::Migrated => "migrated",
            Self::Diverted => "diverted",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }
}

/// How far a connection had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// `connect` was called; nothing is sent yet.
    Connect,
    /// Its SYN arrived.
    Syn,
    /// The SYN is answered, the final ACK is not here.
    HalfOpen,
    /// The handshake is done, nobody has accepted it yet.
    Queued,
    /// The server has accepted it.
    Accepted,
    /// The handshake is done; nobody knows whether it was accepted.
    Established,
    /// A datagram, which has no connection.
    Datagram,
}

impl Phase {
    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Syn => "SYN",
            Self::HalfOpen => "half-open",
            Self::Queued => "queued",
            Self::Accepted => "accepted",
            Self::Established => "established",
            Self::Datagram => "datagram",
        }
    }
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Worker {
    /// Its process number.
    pub pid: u32,
    /// Its command line, or its name where that can't be read any more.
    pub command: String,
    /// The instance of relisten that it works for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Its slot there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
}

/// The listener that a connection belongs or belonged to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Place {
    /// Its address, or the one that the client asked for where there is no listener.
    pub address: SocketAddr,
    /// Inode number of the socket; `None`: there is none, or it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// Connections in its queue at that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// The limit of that; one more fits in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A listener and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Owner {
    /// The listener.
    pub listener: Place,
    /// The process that accepts from it.
    pub worker: Option<Worker>,
}

impl Owner {
    /// `pid 12 (nginx, slot 3 of web)`
    pub(crate) fn words(&self) -> String {
        let Some(worker) = &self.worker else {
            return self
                .listener
                .inode
                .map_or_else(String::new, |inode| format!("the listener with inode {inode}"));
        };
        let slot = match (worker.slot, &worker.instance) {
            (Some(slot), Some(instance)) => format!(", slot {slot} of {instance}"),
            _ => String::new(),
        };
        format!("pid {} ({}{slot})", worker.pid, worker.command)
    }
}

/// What became of one connection (or of some that can't be told apart), and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Fate {
    /// When, in nanoseconds since boot (CLOCK_MONOTONIC).
    pub time_ns: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub cause: Cause,
    /// How far it had come.
    pub phase: Phase,
    /// Protocol.
    pub transport: Transport,
    /// How many such events this stands for. Above 1 where the kernel tells numbers only.
    pub count: u64,
    /// Who asked. `None`: the level of evidence at hand does not tell.
    pub client: Option<SocketAddr>,
    /// The listener.
    pub listener: Option<Place>,
    /// The process that the listener belongs (or belonged) to; for a failed `connect` the one that called it.
    pub worker: Option<Worker>,
    /// Of one that moved: who has it now. `None`: that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_owner: Option<Owner>,
    /// What shows it: the kernel's words and figures.
    pub evidence: Vec<String>,
    /// The cause in words.
    pub explanation: String,
    /// What to do about it.
    pub advice: String,
}

impl Fate {
    /// One of this cause, with nothing else known.
    pub(crate) fn new(time_ns: u64, cause: Cause, phase: Phase) -> Self {
        Self {
            time_ns,
            outcome: cause.outcome(),
            cause,
            phase,
            transport: Transport::Tcp,
            count: 1,
            client: None,
            listener: None,
            worker: None,
            new_owner: None,
            evidence: Vec::new(),
            explanation: cause.words().to_owned(),
            advice: cause.advice().to_owned(),
        }
    }
}
