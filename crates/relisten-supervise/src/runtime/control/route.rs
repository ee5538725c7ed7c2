//! From HTTP to requests and back.

use super::{Answer, ControlRequest, Problem, ProblemKind, RequestKind, Requests};
use crate::metrics;
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Body;
use relisten::steer::Policy;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;
use tokio::sync::oneshot;

/// The longest body, bytes.
const BODY: usize = 16 * 1024;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(5);

pub(super) type Reply = Response<Full<Bytes>>;

/// What may be asked for here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything.
    All,
    /// Only `GET /metrics`.
    Metrics,
}

/// Answer one request. `parsed` is called when the request has been read: from then on it costs nothing but the
/// waiting for its answer.
pub(super) async fn answer<B>(
    request: Request<B>,
    scope: Scope,
    requests: Requests,
    parsed: impl FnOnce() -> Result<(), Problem>,
) -> Reply
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match route(request, scope, requests, parsed).await {
        Ok(reply) => reply,
        Err(problem) => refuse(&problem),
    }
}

pub(super) fn refuse(problem: &Problem) -> Reply {
    json_reply(problem.kind.status(), serde_json::to_vec(problem).unwrap_or_default())
}

async fn route<B>(
    request: Request<B>,
    scope: Scope,
    requests: Requests,
    parsed: impl FnOnce() -> Result<(), Problem>,
) -> Result<Reply, Problem>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Reload {
        wait: bool,
    }
    #[derive(Deserialize)]
    struct Scale {
        workers: u32,
        #[serde(default)]
        wait: bool,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Stop {
        now: bool,
    }
    #[derive(Deserialize)]
    struct Replace {
        pid: u32,
    }
    #[derive(Deserialize)]
    struct Steer {
        policy: Policy,
    }
    #[derive(Deserialize)]
    struct Weight {
        weights: BTreeMap<u32, u32>,
    }
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let wanted = match (scope, path) {
        (_, "/metrics") | (Scope::All, "/status" | "/version") => Method::GET,
        (Scope::All, "/reload" | "/scale" | "/stop" | "/replace" | "/steer" | "/weight") => Method::POST,
        (Scope::All, _) => {
            let cure = "there are GET /status, /metrics, /version and POST /reload, /scale, /stop, /replace, /steer, /weight";
            return Err(Problem::new(ProblemKind::NotFound, "no such path", cure));
        }
        (Scope::Metrics, _) => {
            let cure = "only GET /metrics is served here; the rest is on the control socket";
            return Err(Problem::new(ProblemKind::NotFound, "no such path", cure));
        }
    };
    if parts.method != wanted && !(wanted == Method::GET && parts.method == Method::HEAD) {
        return Err(Problem::new(ProblemKind::Method, "not with this method", format!("use {wanted}")));
    }
    let kind = match path {
        "/version" => {
            return Ok(json_reply(200, json!({ "version": env!("CARGO_PKG_VERSION") }).to_string()));
        }
        "/reload" => RequestKind::Reload { wait: read::<Reload, B>(body).await?.unwrap_or_default().wait },
        "/stop" => RequestKind::Stop { now: read::<Stop, B>(body).await?.unwrap_or_default().now },
        "/scale" => {
            let cure =
                "send {\"workers\": N}, at least 1; with \"wait\": true the answer comes when they serve";
            let scale = read::<Scale, B>(body).await?.filter(|s| s.workers > 0);
            let Scale { workers, wait } = scale.ok_or_else(|| bad("to how many workers?", cure))?;
            RequestKind::Scale { workers, wait }
        }
        "/replace" => {
            let cure = "send {\"pid\": N}, the process ID of a worker as GET /status shows it";
            let pid = read::<Replace, B>(body).await?.map(|s| s.pid);
            RequestKind::Replace { pid: pid.ok_or_else(|| bad("which worker?", cure))? }
        }
        "/steer" => {
            let cure = "send {\"policy\": \"hash\"}, or another of those that `relisten steer --help` names";
            let policy = read::<Steer, B>(body).await?.map(|s| s.policy);
            RequestKind::Steer { policy: policy.ok_or_else(|| bad("which policy?", cure))? }
        }
        "/weight" => {
            let cure = "send {\"weights\": {\"0\": 5, \"1\": 95}}: slots and their shares";
            let weights = read::<Weight, B>(body).await?.map(|w| w.weights).filter(|w| !w.is_empty());
            let weights = weights.ok_or_else(|| bad("which weights?", cure))?;
            RequestKind::Weight { weights: weights.into_iter().collect() }
        }
        _ => RequestKind::Status,
    };
    parsed()?;
    match ask(kind, requests).await? {
        Answer::Status(status) if path == "/metrics" => {
            Ok(reply(200, metrics::CONTENT_TYPE, metrics::render(&status)))
        }
        Answer::Status(status) => Ok(json_reply(200, serde_json::to_vec(&status).map_err(internal)?)),
        Answer::Done { generation } => Ok(json_reply(200, json!({ "generation": generation }).to_string())),
        Answer::Steering { policy, backend } => {
            Ok(json_reply(200, json!({ "policy": policy, "backend": backend }).to_string()))
        }
        Answer::Weights(weights) => Ok(json_reply(200, json!({ "weights": weights }).to_string())),
    }
}

async fn ask(kind: RequestKind, requests: Requests) -> Result<Answer, Problem> {
    let ends = || Problem::new(ProblemKind::Busy, "the instance ends", "start it again");
    let (reply, answer) = oneshot::channel();
    requests.send(ControlRequest { kind, reply }).await.map_err(|_| ends())?;
    drop(requests);
    answer.await.map_err(|_| ends())?
}

/// The body as JSON; `None` if it is empty.
async fn read<T: DeserializeOwned, B>(body: B) -> Result<Option<T>, Problem>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let body = tokio::time::timeout(BODY_TIME, Limited::new(body, BODY).collect())
        .await
        .map_err(|_| bad("the body did not come in time", "send it at once"))?
        .map_err(|e| match e.downcast_ref::<LengthLimitError>() {
            Some(_) => Problem::new(ProblemKind::TooLong, "the body is too long", "send a small JSON object"),
            None => bad("the body did not come whole", "send it again"),
        })?
        .to_bytes();
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    serde_json::from_slice(&body)
        .map(Some)
        .map_err(|e| bad(&format!("the body is not what this path takes: {e}"), "send a JSON object"))
}

fn bad(error: &str, cure: &str) -> Problem {
    Problem::new(ProblemKind::Request, error, cure)
}

fn internal(e: impl Error) -> Problem {
    Problem::new(ProblemKind::Internal, e.to_string(), "please report this")
}

fn json_reply(status: u16, body: impl Into<Bytes>) -> Reply {
    reply(status, "application/json", body)
}

fn reply(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    reply
}
