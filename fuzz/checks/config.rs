//! A configuration file is understood, or refused in one line with its name and place.

use crate::config;
use std::path::Path;

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = config::parse(Path::new("x.toml"), text) {
        let said = error.to_string();
        let mut parts = said.splitn(4, ':');
        let place = [parts.next(), parts.next(), parts.next()];
        let number = |part: Option<&str>| part.and_then(|p| p.parse::<usize>().ok()).is_some_and(|n| n > 0);
        assert!(place[0] == Some("x.toml") && number(place[1]) && number(place[2]), "{said:?}");
        assert!(!said.contains('\n'), "{said:?}");
    }
}
