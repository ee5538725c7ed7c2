//! The configuration file: TOML, the names of the long options.

use crate::cli::RunOptions;
use relisten::address::Address;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// A configuration file that can't be used. Every message names the file, and the line where there is one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("configuration file {} can't be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },

    #[error("{}:{line}:{column}: unknown key `{key}`", path.display())]
    UnknownKey { path: PathBuf, line: usize, column: usize, key: String, similar: Option<&'static str> },

    #[error("{}:{line}:{column}: {message}", path.display())]
    Content { path: PathBuf, line: usize, column: usize, message: String },
}

impl ConfigError {
    /// What to do about it.
    pub(crate) fn tip(&self) -> Option<String> {
        match self {
            Self::UnknownKey { similar: Some(similar), .. } => Some(format!("did you mean `{similar}`?")),
            Self::UnknownKey { key, .. } if key == "config" => {
                Some("a configuration file can't name another one".into())
            }
            Self::UnknownKey { .. } => {
                Some("keys have the names of the long options of `relisten run`, and command".into())
            }
            Self::Read { .. } | Self::Content { .. } => None,
        }
    }
}

/// The keys, sorted. A test compares them with the options.
pub(crate) const KEYS: [&str; 28] = [
    "backend",
    "backlog",
    "command",
    "control",
    "directory",
    "drain",
    "grace",
    "hang-after",
    "hang-kill",
    "health",
    "health-every",
    "health-failures",
    "listen",
    "log-format",
    "metrics",
    "name",
    "pin",
    "ready",
    "ready-timeout",
    "recycle-after",
    "require",
    "sockets",
    "steer",
    "stop-signal",
    "tls-cert",
    "tls-key",
    "user",
    "workers",
];

/// Reads the options in `path`. Relative paths in it become relative to the file's directory.
pub(crate) fn read(path: &Path) -> Result<RunOptions, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let base = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // An absolute base stays right when the process changes its directory.
    let base =
        std::path::absolute(base).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(path, &text).map(|options| relative_to(options, &base))
}

/// Reads the options in `text`, the content of `path`.
pub(crate) fn parse(path: &Path, text: &str) -> Result<RunOptions, ConfigError> {
    let content = |error: toml::de::Error| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        // Some messages of the parser run over several lines; the reader of a log wants one.
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        ConfigError::Content { path: path.to_owned(), line, column, message }
    };
    let table = DeTable::parse(text).map_err(content)?;
    // Unknown keys first: a misspelt key explains itself better than what follows from it.
    for key in table.get_ref().keys() {
        if KEYS.binary_search(&key.get_ref().as_ref()).is_err() {
            let (line, column) = position(text, key.span().start);
            let name = key.get_ref().to_string();
            let similar = similar(&name);
            return Err(ConfigError::UnknownKey { path: path.to_owned(), line, column, key: name, similar });
        }
    }
    toml::from_str(text).map_err(content)
}

/// The key that was probably meant.
fn similar(name: &str) -> Option<&'static str> {
    let name = name.replace('_', "-").to_lowercase();
    KEYS.into_iter()
        .map(|key| (strsim::jaro_winkler(&name, key), key))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}

/// Line and column of a byte, both counted from 1, columns in characters.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    (line, column)
}

/// Paths that the file gives are relative to it.
fn relative_to(mut options: RunOptions, base: &Path) -> RunOptions {
    let from_base = |path: PathBuf| base.join(path);
    options.control = options.control.map(from_base);
    options.tls_cert = options.tls_cert.map(from_base);
    options.tls_key = options.tls_key.map(from_base);
    options.directory = options.directory.map(from_base);
    for named in &mut options.listen {
        if let Address::Unix(path) = &mut named.address {
            *path = base.join(&*path);
        }
    }
    if let Some(program) = options.command.first_mut() {
        // The arguments may be relative paths too, but only the server knows which of them are paths: it starts
        // in the file's directory unless told otherwise.
        if program.contains('/')
            && let Some(absolute) = base.join(&*program).to_str()
        {
            *program = absolute.into();
        }
        options.directory.get_or_insert_with(|| base.to_owned());
    }
    options
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
