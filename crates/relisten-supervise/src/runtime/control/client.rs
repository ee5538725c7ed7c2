//! Asking an instance, from a command: blocking, without an event loop.

use super::{Problem, ProblemKind};
use crate::status::Status;
use relisten::steer::Policy;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest answer, bytes.
const LONGEST: u64 = 64 * 1024 * 1024;

/// Why an instance did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there under this name, or nobody at all.
    #[error("no instance {}", .name.as_ref().map_or_else(|| "runs".to_owned(), |name| format!("named {name:?} runs")))]
    NoInstance {
        /// The name asked for.
        name: Option<String>,
        /// Those that do run.
        running: Vec<String>,
    },
    /// No name was given and several run.
    #[error("several instances run")]
    Ambiguous {
        /// Their names.
        running: Vec<String>,
    },
    /// There is a socket, but whoever listened on it is gone.
    #[error("nobody listens at {}: its instance is gone", .path.display())]
    Stale {
        /// The control socket.
        path: PathBuf,
    },
    /// The supervisor is gone, its keeper is not.
    #[error("the supervisor of {name:?} is gone; its keeper waits for the next one")]
    Kept {
        /// The instance's name.
        name: String,
    },
    /// It belongs to another user.
    #[error("{} belongs to another user", .path.display())]
    Permission {
        /// The control socket.
        path: PathBuf,
    },
    /// No answer in time.
    #[error("the instance does not answer")]
    TimedOut,
    /// The connection ended before the answer was complete.
    #[error("the instance ended before it answered")]
    Ended,
    /// What answered is no instance of ours.
    #[error("the answer makes no sense: {0}")]
    Nonsense(String),
    /// The instance said no, and why.
    #[error("{0}")]
    Refused(Problem),
    /// A system call failed.
    #[error("can't talk to the instance")]
    Io(#[source] io::Error),
}

impl ClientError {
    /// What to do about it. Empty where nobody knows.
    pub fn cure(&self) -> String {
        match self {
            Self::NoInstance { running, .. } if running.is_empty() => {
                "start one with `relisten run`; one of another user is found with --control PATH".to_owned()
            }
            Self::NoInstance { running, .. } => format!("these run: {}", running.join(", ")),
            Self::Ambiguous { running } => format!("name one of {}", running.join(", ")),
            Self::Stale { .. } => "start it again; the leftover is replaced".to_owned(),
            Self::Kept { name } => {
                format!(
                    "its workers may still serve; start `relisten run --name {name}` again, and it takes over"
                )
            }
            Self::Permission { .. } => "use the account that the instance runs under, or root".to_owned(),
            Self::TimedOut => "see whether its process is stopped, and how busy the machine is".to_owned(),
            Self::Ended => "see what it said last".to_owned(),
            Self::Nonsense(_) => "see who listens there".to_owned(),
            Self::Refused(problem) => problem.cure.clone(),
            Self::Io(_) => String::new(),
        }
    }
}

/// Where to ask.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
    timeout: Option<Duration>,
}

/// The answer to a request that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Done {
    /// The generation in force.
    pub generation: u32,
}

/// The answer to a change of steering: what is in force.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Steered {
    /// The policy that is carried out.
    pub policy: String,
    /// "ebpf", "cbpf" or "kernel".
    pub backend: String,
}

/// The answer to a change of weights: those of all slots.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Weights {
    /// By slot.
    pub weights: BTreeMap<u32, u32>,
}

impl Client {
    /// Ask at this control socket. Each answer may take any time (a reload does); see
    /// [`timeout`](Self::timeout).
    pub fn new(control: impl Into<PathBuf>) -> Self {
        Self { path: control.into(), timeout: None }
    }

    /// No answer for so long is [`ClientError::TimedOut`].
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How are things?
    pub fn status(&self) -> Result<Status, ClientError> {
        read(&self.request("GET", "/status", "")?)
    }

    /// As OpenMetrics.
    pub fn metrics(&self) -> Result<String, ClientError> {
        String::from_utf8(self.request("GET", "/metrics", "")?).map_err(|_| nonsense("it is not text"))
    }

    /// A new generation; answered when it serves, or with `wait` when the old one is gone.
    pub fn reload(&self, wait: bool) -> Result<Done, ClientError> {
        read(&self.request("POST", "/reload", &format!("{{\"wait\":{wait}}}"))?)
    }

    /// Another number of slots. With `wait`, answered when all of them are in service, or a worker failed.
    pub fn scale(&self, workers: u32, wait: bool) -> Result<Done, ClientError> {
        read(&self.request("POST", "/scale", &format!("{{\"workers\":{workers},\"wait\":{wait}}}"))?)
    }

    /// The end; answered when all workers are gone.
    pub fn stop(&self, now: bool) -> Result<Done, ClientError> {
        read(&self.request("POST", "/stop", &format!("{{\"now\":{now}}}"))?)
    }

    /// Another worker in the place of this one.
    pub fn replace(&self, pid: u32) -> Result<Done, ClientError> {
        read(&self.request("POST", "/replace", &format!("{{\"pid\":{pid}}}"))?)
    }

    /// Another steering policy, for as long as the instance runs and its configuration names no other.
    pub fn steer(&self, policy: Policy) -> Result<Steered, ClientError> {
        read(&self.request("POST", "/steer", &format!("{{\"policy\":\"{policy}\"}}"))?)
    }

    /// Other weights of slots.
    pub fn weight(&self, weights: &BTreeMap<u32, u32>) -> Result<Weights, ClientError> {
        let body = serde_json::json!({ "weights": weights }).to_string();
        read(&self.request("POST", "/weight", &body)?)
    }

    /// Any request: the body of the answer, if it is a good one.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Result<Vec<u8>, ClientError> {
        let mut stream = UnixStream::connect(&self.path).map_err(|e| self.cannot_connect(e))?;
        stream.set_read_timeout(self.timeout).map_err(ClientError::Io)?;
        stream.set_write_timeout(self.timeout).map_err(ClientError::Io)?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: relisten\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        // It may answer (and hang up) before it has read everything; what counts is the answer.
        let written = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let ended = stream.take(LONGEST).read_to_end(&mut answer);
        match ended.and(written) {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(ClientError::TimedOut);
            }
            Err(_) | Ok(()) if answer.is_empty() => return Err(ClientError::Ended),
            Err(_) | Ok(()) => {}
        }
        let (status, body) = parse(&answer)?;
        if (200..300).contains(&status) {
            return Ok(body.to_vec());
        }
        let mut problem: Problem = read(body)?;
        problem.kind = ProblemKind::from_status(status);
        Err(ClientError::Refused(problem))
    }

    fn cannot_connect(&self, e: io::Error) -> ClientError {
        match e.kind() {
            io::ErrorKind::NotFound => {
                ClientError::NoInstance { name: name_of(&self.path), running: Vec::new() }
            }
            io::ErrorKind::ConnectionRefused => ClientError::Stale { path: self.path.clone() },
            io::ErrorKind::PermissionDenied => ClientError::Permission { path: self.path.clone() },
            _ => ClientError::Io(e),
        }
    }
}

fn name_of(path: &Path) -> Option<String> {
    Some(path.file_stem()?.to_str()?.to_owned())
}

/// Status and body of an answer whose end is the end of the connection.
fn parse(answer: &[u8]) -> Result<(u16, &[u8]), ClientError> {
    const END: &[u8] = b"\r\n\r\n";
    let end = memchr::memmem::find(answer, END).ok_or(ClientError::Ended)?;
    let header = std::str::from_utf8(&answer[..end]).map_err(|_| nonsense("its header is not text"))?;
    let body = &answer[end + END.len()..];
    let mut lines = header.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok())
        .ok_or_else(|| nonsense("it is not HTTP"))?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    match length {
        Some(length) if body.len() < length => Err(ClientError::Ended),
        Some(length) => Ok((status, &body[..length])),
        None => Err(nonsense("it does not say how long it is")),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|e| nonsense(&e.to_string()))
}

fn nonsense(why: &str) -> ClientError {
    ClientError::Nonsense(why.to_owned())
}
