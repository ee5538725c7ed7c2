//! The control socket: HTTP/1.1 and JSON over a Unix socket, for the commands and for anybody with `curl`.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /status` | | [`Status`] |
//! | `GET /metrics` | | OpenMetrics |
//! | `GET /version` | | `{"version": "…"}` |
//! | `POST /reload` | `{"wait": bool}` | `{"generation": n}` |
//! | `POST /scale` | `{"workers": n}` | `{"generation": n}` |
//! | `POST /stop` | `{"now": bool}` | `{"generation": n}` |
//! | `POST /replace` | `{"pid": n}` | `{"generation": n}` |
//! | `POST /steer` | `{"policy": "…"}` | `{"policy": "…", "backend": "…"}`, what is in force |
//! | `POST /weight` | `{"weights": {"SLOT": n}}` | `{"weights": {"SLOT": n}}`, those of all slots |
//!
//! An answer comes when the thing is done. Errors are `{"error": "…", "cure": "…"}`, a reload that was rolled back
//! adds `"lines"`, the last lines of the worker that failed. One request per connection.

mod client;
mod place;
mod route;
mod server;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientError, Done, Steered, Weights};
pub use place::{
    Claim, Instance, InstanceState, Place, PlaceError, check_name, instance_of, list_instances, runtime_dir,
    search_dirs,
};
pub(super) use server::served;
pub use server::{Server, serve_metrics};
#[cfg(test)]
pub(crate) use tests::status as example_status;

use crate::status::Status;
use relisten::steer::Policy;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio::sync::{mpsc, oneshot};

/// Something that the dispatcher is asked for.
#[derive(Debug)]
pub struct ControlRequest {
    /// What.
    pub kind: RequestKind,
    /// Where the answer goes. Who asked may have gone meanwhile; that is no error.
    pub reply: oneshot::Sender<Result<Answer, Problem>>,
}

/// Where requests go.
pub type Requests = mpsc::Sender<ControlRequest>;

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// How things are.
    Status,
    /// A new generation.
    Reload {
        /// Answer only when the old one is gone.
        wait: bool,
    },
    /// Another number of slots.
    Scale {
        /// At least 1.
        workers: u32,
        /// Answer only when all of them serve, or one failed.
        wait: bool,
    },
    /// The end of the instance.
    Stop {
        /// Without waiting for connections.
        now: bool,
    },
    /// Another worker in the place of this one.
    Replace {
        /// The worker's process ID.
        pid: u32,
    },
    /// Another steering policy, from now on.
    Steer {
        /// Which.
        policy: Policy,
    },
    /// Other weights of slots, from now on.
    Weight {
        /// Slot and weight. With 0 a slot gets nothing new.
        weights: Vec<(u32, u32)>,
    },
}

/// It is done.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// How things are.
    Status(Box<Status>),
    /// Done.
    Done {
        /// The generation in force.
        generation: u32,
    },
    /// How connections are steered now.
    Steering {
        /// The policy that is carried out, which may stand in for the one that was asked for.
        policy: String,
        /// "ebpf", "cbpf" or "kernel".
        backend: String,
    },
    /// The weights of all slots.
    Weights(BTreeMap<u32, u32>),
}

/// It could not be done, and what to do about it. This is also the body of the HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{error}")]
pub struct Problem {
    /// Decides the HTTP status; not part of the body.
    #[serde(skip)]
    pub kind: ProblemKind,
    /// What went wrong.
    pub error: String,
    /// What to do about it.
    pub cure: String,
    /// The last lines of output of the worker that failed, if that was the cause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

/// What sort of problem, and so which HTTP status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProblemKind {
    /// 400: the request makes no sense.
    Request,
    /// 403: not for this user.
    Forbidden,
    /// 404: there is no such thing.
    NotFound,
    /// 405: not with this method.
    Method,
    /// 409: not in the state the instance is in.
    State,
    /// 413: the body is too long.
    TooLong,
    /// 422: tried, failed, and everything is as before.
    RolledBack,
    /// 424: done, but something that belongs to it failed and is tried again.
    Unfinished,
    /// 503: not now, because of too many requests or because the instance ends.
    Busy,
    /// 500: something that nobody thought of.
    #[default]
    Internal,
}

impl ProblemKind {
    const ALL: [(Self, u16); 10] = [
        (Self::Request, 400),
        (Self::Forbidden, 403),
        (Self::NotFound, 404),
        (Self::Method, 405),
        (Self::State, 409),
        (Self::TooLong, 413),
        (Self::RolledBack, 422),
        (Self::Unfinished, 424),
        (Self::Busy, 503),
        (Self::Internal, 500),
    ];

    /// The HTTP status.
    pub fn status(self) -> u16 {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or(500, |(_, status)| *status)
    }

    fn from_status(status: u16) -> Self {
        Self::ALL.iter().find(|(_, s)| *s == status).map_or(Self::Internal, |(kind, _)| *kind)
    }
}

impl Problem {
    /// Without lines of output.
    pub fn new(kind: ProblemKind, error: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { kind, error: error.into(), cure: cure.into(), lines: Vec::new() }
    }
}
