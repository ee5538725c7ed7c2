//! Whatever is sent to the control socket, the answer is none (the connection is not HTTP) or a whole one; a refusal
//! says what is wrong and what to do about it; nothing senseless gets through to the supervisor.

use relisten_supervise::runtime::control::RequestKind;
use relisten_supervise::runtime::seam;

const PATHS: [&str; 7] = ["/status", "/metrics", "/version", "/reload", "/scale", "/stop", "/replace"];

pub(crate) fn check(data: &[u8]) {
    one(data);
    // As the body of a proper request, so that the bodies are reached, too.
    if let Some((first, body)) = data.split_first() {
        let path = PATHS[usize::from(*first) % PATHS.len()];
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        one(&[head.as_bytes(), body].concat());
    }
}

fn one(data: &[u8]) {
    let (answer, asked) = seam::control(data);
    for kind in &asked {
        assert!(!matches!(kind, RequestKind::Scale { workers: 0, .. }), "scale to nothing");
    }
    if answer.is_empty() {
        assert!(asked.is_empty(), "asked for without an answer: {asked:?}");
        return;
    }
    let text = String::from_utf8(answer).expect("answers are text");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    let status: u16 = head
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5)?.parse().ok())
        .unwrap_or_else(|| panic!("no status: {head:?}"));
    // hyper answers without a body when the head is no HTTP.
    if status >= 400 && !body.is_empty() {
        let problem: serde_json::Value = serde_json::from_str(body).expect("a refusal is JSON");
        for field in ["error", "cure"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "no {field}: {body}");
        }
    }
}
