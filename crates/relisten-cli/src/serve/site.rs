//! From a request to its answer.

use super::body::Body;
use super::condition::{self, Validators, Verdict};
use super::connection::Busy;
use super::files::{Found, Root};
use super::identity::Identity;
use super::listing;
use super::path::{self, Target};
use super::range::{self, Range};
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use percent_encoding::{CONTROLS, utf8_percent_encode};
use rustix::io::Errno;
use std::io::Write;
use std::net::SocketAddr;

/// A directory as a web site.
#[derive(Debug)]
pub(super) struct Site {
    root: Root,
    /// The answer for `/.relisten`.
    identity: Bytes,
    identity_headers: Vec<(HeaderName, HeaderValue)>,
    access_log: bool,
}

/// An answer without its bookkeeping.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
}

impl Site {
    pub(super) fn new(root: Root, identity: &Identity, access_log: bool) -> Site {
        Site { root, identity: identity.json(), identity_headers: identity.headers(), access_log }
    }

    /// `last`: HTTP/1 clients are told that the connection ends with this answer.
    pub(super) fn answer<B>(
        &self,
        request: &Request<B>,
        peer: Option<SocketAddr>,
        last: bool,
        busy: Busy,
    ) -> Response<Body> {
        let Answer { status, headers, body } = self.choose(request);
        if self.access_log {
            log(request, peer, status, headers.get(CONTENT_LENGTH));
        }
        let body = if request.method() == Method::HEAD { Body::empty() } else { body };
        let mut response = Response::new(body.counted(busy));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        if last && request.version() < Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn choose<B>(&self, request: &Request<B>) -> Answer {
        match *request.method() {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return allow(StatusCode::NO_CONTENT),
            _ => return allow(StatusCode::METHOD_NOT_ALLOWED),
        }
        let Some(target) = Target::parse(request.uri().path()) else {
            return failure(StatusCode::NOT_FOUND);
        };
        if target.is_identity {
            let mut answer = whole("application/json", self.identity.clone());
            answer.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            answer.headers.extend(self.identity_headers.iter().cloned());
            return answer;
        }
        if target.is_directory {
            // Most directories that are asked for have an index, so it is looked for first.
            if let Ok(Found::File(file)) = self.root.find(&path::index_of(&target.path)) {
                return send_file(request, b"index.html", file);
            }
        }
        match (self.root.find(&target.path), target.is_directory) {
            (Ok(Found::File(file)), false) => send_file(request, &target.path, file),
            (Ok(Found::Directory(_)), false) => redirect(&target.path, request.uri().query()),
            (Ok(Found::Directory(directory)), true) => match listing::page(&target.path, directory) {
                Ok(page) => {
                    let mut answer = whole("text/html; charset=utf-8", page);
                    // Nothing in a file's name may run.
                    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
                    answer.headers.insert(CONTENT_SECURITY_POLICY, policy);
                    answer
                }
                Err(error) => failure(status_of(error)),
            },
            // A file's name with a slash behind it.
            (Ok(Found::File(_)), true) => failure(StatusCode::NOT_FOUND),
            (Err(error), _) => failure(status_of(error)),
        }
    }
}

fn send_file<B>(request: &Request<B>, path: &[u8], file: super::files::File) -> Answer {
    let headers = request.headers();
    let validators = Validators::of(&file);
    let mut answer =
        Answer { status: StatusCode::OK, headers: HeaderMap::with_capacity(8), body: Body::empty() };
    answer.headers.insert(ETAG, validators.etag());
    if let Some(modified) = validators.last_modified() {
        answer.headers.insert(LAST_MODIFIED, modified);
    }
    match condition::evaluate(headers, &validators) {
        Verdict::Send => {}
        Verdict::NotModified => {
            answer.status = StatusCode::NOT_MODIFIED;
            return answer;
        }
        Verdict::Failed => return failure(StatusCode::PRECONDITION_FAILED),
    }
    answer.headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    answer.headers.insert(CONTENT_TYPE, content_type(path));
    let size = file.size;
    // Parts are for GET only (RFC 9110, 14.2), and only of the version that the client has.
    let wanted = headers.get(RANGE).filter(|_| {
        request.method() == Method::GET && condition::if_range_holds(headers.get(IF_RANGE), &validators)
    });
    let (offset, length) = match wanted.map_or(Range::Whole, |range| range::parse(range.as_bytes(), size)) {
        Range::Whole => (0, size),
        Range::Part { first, length } => {
            answer.status = StatusCode::PARTIAL_CONTENT;
            let text = format!("bytes {first}-{}/{size}", first + length - 1);
            answer.headers.insert(CONTENT_RANGE, ascii(&text));
            (first, length)
        }
        Range::Unsatisfiable => {
            let mut answer = failure(StatusCode::RANGE_NOT_SATISFIABLE);
            answer.headers.insert(CONTENT_RANGE, ascii(&format!("bytes */{size}")));
            return answer;
        }
    };
    answer.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if request.method() == Method::GET {
        answer.body = Body::part_of(file.fd, offset, length);
    }
    answer
}

fn whole(content_type: &'static str, content: impl Into<Bytes>) -> Answer {
    let content = content.into();
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(content.len()));
    Answer { status: StatusCode::OK, headers, body: Body::whole(content) }
}

fn failure(status: StatusCode) -> Answer {
    Answer { status, ..whole("text/plain; charset=utf-8", format!("{status}\n")) }
}

fn allow(status: StatusCode) -> Answer {
    let mut answer = if status == StatusCode::NO_CONTENT {
        Answer { status, headers: HeaderMap::new(), body: Body::empty() }
    } else {
        failure(status)
    };
    answer.headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    answer
}

/// To the directory itself, with its slash, so that relative links work. The path is written anew from its parts:
/// one that begins with two slashes would name another host.
fn redirect(path: &[u8], query: Option<&str>) -> Answer {
    let mut to = path::to_url(path);
    to.push('/');
    if let Some(query) = query {
        to.push('?');
        to.extend(utf8_percent_encode(query, CONTROLS));
    }
    let mut answer = failure(StatusCode::MOVED_PERMANENTLY);
    answer.headers.insert(LOCATION, ascii(&to));
    answer
}

fn content_type(path: &[u8]) -> HeaderValue {
    let name = String::from_utf8_lossy(path);
    let extension = name.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map_or("", |(_, end)| end);
    match mime_guess::from_ext(extension).first_raw() {
        Some(text) if text.starts_with("text/") => ascii(&format!("{text}; charset=utf-8")),
        Some(known) => HeaderValue::from_static(known),
        None => HeaderValue::from_static("application/octet-stream"),
    }
}

/// For text that is made of parts which are all printable ASCII.
pub(super) fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// What the client is told of a failed `open`. What lies outside the directory does not exist.
fn status_of(error: Errno) -> StatusCode {
    match error {
        Errno::ACCESS | Errno::PERM => StatusCode::FORBIDDEN,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => StatusCode::SERVICE_UNAVAILABLE,
        Errno::IO => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::NOT_FOUND,
    }
}

/// One line per request.
fn log<B>(request: &Request<B>, peer: Option<SocketAddr>, status: StatusCode, length: Option<&HeaderValue>) {
    let peer = peer.map_or_else(|| "-".to_owned(), |peer| peer.ip().to_string());
    let length = length.and_then(|length| length.to_str().ok()).unwrap_or("-");
    let (method, uri, version) = (request.method(), request.uri().to_string(), request.version());
    let line =
        format!("{peer} \"{method} {} {version:?}\" {} {length}\n", uri.escape_debug(), status.as_u16());
    // Nobody reads it: no reason to stop serving.
    let _ = std::io::stdout().write_all(line.as_bytes());
}
