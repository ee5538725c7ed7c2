//! Conditional requests (RFC 9110, 13): is what the client has still good?

use super::files::File;
use super::site::ascii;
use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderValue};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What tells one version of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validators {
    /// With its quotes.
    tag: String,
    /// Changed so lately that it could change again without its time showing it.
    is_weak: bool,
    /// Whole seconds, as HTTP knows no others. `None` before 1970.
    modified: Option<SystemTime>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    NotModified,
    Failed,
}

impl Validators {
    pub(super) fn of(file: &File) -> Validators {
        Validators::new(file.size, file.modified, SystemTime::now())
    }

    fn new(size: u64, (seconds, nanos): (i64, u32), now: SystemTime) -> Validators {
        let since_epoch = u64::try_from(seconds).ok();
        let exact = since_epoch.map(|seconds| UNIX_EPOCH + Duration::new(seconds, nanos));
        let settled = exact
            .is_some_and(|exact| now.duration_since(exact).is_ok_and(|age| age >= Duration::from_secs(1)));
        Validators {
            tag: format!("\"{seconds:x}.{nanos:x}-{size:x}\""),
            is_weak: !settled,
            modified: since_epoch.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)),
        }
    }

    pub(super) fn etag(&self) -> HeaderValue {
        if self.is_weak { ascii(&format!("W/{}", self.tag)) } else { ascii(&self.tag) }
    }

    /// Never in the future (RFC 9110, 8.8.2.1), and within the years that HTTP can write.
    pub(super) fn last_modified(&self) -> Option<HeaderValue> {
        let modified = self.modified?.min(SystemTime::now());
        Some(ascii(&httpdate::fmt_http_date(modified)))
    }

    /// Whether a list of tags names this version. Weak ones only count in a weak comparison.
    fn is_in(&self, list: &HeaderValue, weak: bool) -> bool {
        let Ok(list) = list.to_str() else { return false };
        list.split(',').map(str::trim).any(|tag| match tag.strip_prefix("W/") {
            _ if tag == "*" => true,
            Some(tag) => weak && tag == self.tag,
            None => (weak || !self.is_weak) && tag == self.tag,
        })
    }

    fn changed_since(&self, header: &HeaderValue) -> Option<bool> {
        let since = date(header)?;
        self.modified.map(|modified| modified > since)
    }
}

/// In the order of RFC 9110, 13.2.2, for GET and HEAD.
pub(super) fn evaluate(headers: &HeaderMap, validators: &Validators) -> Verdict {
    if let Some(list) = headers.get(IF_MATCH) {
        if !validators.is_in(list, false) {
            return Verdict::Failed;
        }
    } else if let Some(since) = headers.get(IF_UNMODIFIED_SINCE)
        && validators.changed_since(since) == Some(true)
    {
        return Verdict::Failed;
    }
    if let Some(list) = headers.get(IF_NONE_MATCH) {
        if validators.is_in(list, true) {
            return Verdict::NotModified;
        }
    } else if let Some(since) = headers.get(IF_MODIFIED_SINCE)
        && validators.changed_since(since) == Some(false)
    {
        return Verdict::NotModified;
    }
    Verdict::Send
}

/// Whether the parts that the client has are of this version; true without the header.
pub(super) fn if_range_holds(header: Option<&HeaderValue>, validators: &Validators) -> bool {
    let Some(header) = header else { return true };
    match date(header) {
        Some(date) => !validators.is_weak && validators.modified == Some(date),
        None => header != "*" && validators.is_in(header, false),
    }
}

fn date(header: &HeaderValue) -> Option<SystemTime> {
    header.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    const MODIFIED: &str = "Sat, 01 Jan 2000 00:00:00 GMT";
    const LATER: &str = "Sat, 01 Jan 2000 00:00:01 GMT";
    const EARLIER: &str = "Fri, 31 Dec 1999 23:59:59 GMT";

    /// A file of 10 bytes, changed in the first second of 2000.
    fn validators(age: Duration) -> Validators {
        let exact = UNIX_EPOCH + Duration::new(946_684_800, 500);
        Validators::new(10, (946_684_800, 500), exact + age)
    }

    fn verdict(headers: &[(HeaderName, &str)]) -> Verdict {
        let map = headers.iter().map(|(name, value)| (name.clone(), ascii(value))).collect();
        evaluate(&map, &validators(Duration::from_secs(60)))
    }

    #[test]
    fn what_the_client_has_is_still_good_or_not() {
        let tag = validators(Duration::from_secs(60)).tag;
        let weak = format!("W/{tag}");
        let list = format!("\"x\", {tag}");
        for (headers, expected) in [
            (vec![], Verdict::Send),
            (vec![(IF_NONE_MATCH, tag.as_str())], Verdict::NotModified),
            (vec![(IF_NONE_MATCH, &weak)], Verdict::NotModified),
            (vec![(IF_NONE_MATCH, &list)], Verdict::NotModified),
            (vec![(IF_NONE_MATCH, "*")], Verdict::NotModified),
            (vec![(IF_NONE_MATCH, "\"x\"")], Verdict::Send),
            // The tag decides, the date does not count beside it.
            (vec![(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, LATER)], Verdict::Send),
            (vec![(IF_MODIFIED_SINCE, MODIFIED)], Verdict::NotModified),
            (vec![(IF_MODIFIED_SINCE, LATER)], Verdict::NotModified),
            (vec![(IF_MODIFIED_SINCE, EARLIER)], Verdict::Send),
            (vec![(IF_MODIFIED_SINCE, "yesterday")], Verdict::Send),
            (vec![(IF_MATCH, &tag)], Verdict::Send),
            (vec![(IF_MATCH, "*")], Verdict::Send),
            (vec![(IF_MATCH, &weak)], Verdict::Failed),
            (vec![(IF_MATCH, "\"x\"")], Verdict::Failed),
            (vec![(IF_MATCH, &tag), (IF_UNMODIFIED_SINCE, EARLIER)], Verdict::Send),
            (vec![(IF_UNMODIFIED_SINCE, EARLIER)], Verdict::Failed),
            (vec![(IF_UNMODIFIED_SINCE, MODIFIED)], Verdict::Send),
        ] {
            assert_eq!(verdict(&headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn parts_are_of_this_version_or_not() {
        let validators = validators(Duration::from_secs(60));
        let holds = |text: &str| if_range_holds(Some(&ascii(text)), &validators);
        assert!(if_range_holds(None, &validators));
        assert!(holds(&validators.tag) && holds(MODIFIED));
        assert!(!holds(LATER) && !holds(EARLIER) && !holds("\"x\"") && !holds("*"));
        assert!(!holds(&format!("W/{}", validators.tag)));
    }

    #[test]
    fn what_changed_a_moment_ago_has_a_weak_tag() {
        let young = validators(Duration::from_millis(10));
        assert!(young.etag().to_str().is_ok_and(|tag| tag.starts_with("W/\"")));
        assert!(!if_range_holds(Some(&ascii(&young.tag)), &young));
        assert!(!if_range_holds(Some(&ascii(MODIFIED)), &young));
        assert!(validators(Duration::from_secs(60)).etag().to_str().is_ok_and(|tag| tag.starts_with('"')));
    }
}
