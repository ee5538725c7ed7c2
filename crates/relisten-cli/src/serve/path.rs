//! Paths in requests.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

/// What stays as it is in a link: unreserved characters and a few more (RFC 3986, 3.3).
const IN_SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'\'')
    .add(b'/')
    .add(b':')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Relative to the root, in parts joined by single slashes; empty for the root itself.
    pub(super) path: Vec<u8>,
    /// It ends with a slash.
    pub(super) is_directory: bool,
    /// It is `/.relisten`.
    pub(super) is_identity: bool,
}

impl Target {
    /// `None` for what is never served: names that begin with a dot, `.` and `..` among them, and names with a NUL
    /// or an encoded slash.
    pub(super) fn parse(path: &str) -> Option<Target> {
        let inner = path.strip_prefix('/')?;
        if inner == ".relisten" {
            return Some(Target { path: Vec::new(), is_directory: false, is_identity: true });
        }
        let mut parts: Vec<u8> = Vec::with_capacity(inner.len());
        for segment in inner.split('/').filter(|segment| !segment.is_empty()) {
            if !parts.is_empty() {
                parts.push(b'/');
            }
            let start = parts.len();
            parts.extend(percent_decode_str(segment));
            let name = &parts[start..];
            if name.first() == Some(&b'.') || name.iter().any(|&byte| byte == 0 || byte == b'/') {
                return None;
            }
        }
        Some(Target {
            path: parts,
            is_directory: inner.is_empty() || inner.ends_with('/'),
            is_identity: false,
        })
    }
}

/// The path of the directory's index page.
pub(super) fn index_of(directory: &[u8]) -> Vec<u8> {
    let mut path = directory.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(b"index.html");
    path
}

/// As a URL path without a slash at its end.
pub(super) fn to_url(path: &[u8]) -> String {
    path.split(|&byte| byte == b'/').flat_map(|segment| ["/".to_owned(), to_link(segment)]).collect()
}

/// A name as part of a link.
pub(super) fn to_link(name: &[u8]) -> String {
    percent_encode(name, IN_SEGMENT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Option<String> {
        Target::parse(text).map(|target| String::from_utf8_lossy(&target.path).into_owned())
    }

    #[test]
    fn parts_are_decoded_and_joined() {
        assert_eq!(path("/").as_deref(), Some(""));
        assert_eq!(path("/a%20b//c/").as_deref(), Some("a b/c"));
        assert_eq!(path("//host/x").as_deref(), Some("host/x"));
        assert_eq!(path("/%zz").as_deref(), Some("%zz"));
        assert!(Target::parse("/a/").is_some_and(|target| target.is_directory));
        assert!(Target::parse("/a").is_some_and(|target| !target.is_directory));
        assert!(Target::parse("/.relisten").is_some_and(|target| target.is_identity));
    }

    #[test]
    fn what_is_never_served() {
        for text in [
            "",
            "*",
            "a",
            "/..",
            "/../x",
            "/a/../b",
            "/%2e%2e/x",
            "/.%2e/x",
            "/a/%2E",
            "/.git/config",
            "/a/.env",
            "/a%2fb",
            "/a%2F..%2Fb",
            "/a%00b",
            "/.relisten/",
            "/.relisten/x",
            "/%2erelisten",
        ] {
            assert_eq!(path(text), None, "{text}");
        }
    }

    #[test]
    fn links_are_inert() {
        assert_eq!(to_link(b"a b\"<>&'?#%:\\\xff"), "a%20b%22%3C%3E%26%27%3F%23%25%3A%5C%FF");
        assert_eq!(to_url(b"a b/c"), "/a%20b/c");
    }
}
