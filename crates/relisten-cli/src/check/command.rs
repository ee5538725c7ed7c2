//! The COMMAND of `relisten run`: found, executable, and what the seccomp filter would take from it.

use super::privilege;
use crate::error::UsageError;
use rustix::fs::Access;
use rustix::thread::CapabilitySet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where a program is looked for when there is no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Finds the program as a shell in `here` would, and checks that it can be executed.
pub(crate) fn find(command: &str, here: &Path, search: Option<&str>) -> Result<PathBuf, UsageError> {
    if command.is_empty() {
        return Err(UsageError::CommandEmpty);
    }
    if command.contains('/') {
        let path = here.join(command);
        return match state(&path) {
            Ok(state) => state.accept(path),
            Err(source) if is_missing(&source) => Err(UsageError::CommandMissing {
                command: command.into(),
                similar: similar_file(&path).map(|name| path.with_file_name(name).display().to_string()),
            }),
            Err(source) => Err(UsageError::CommandUnreadable { path, source }),
        };
    }
    let search = search.unwrap_or(DEFAULT_PATH);
    let mut unusable = None;
    for directory in std::env::split_paths(search) {
        let path = here.join(directory).join(command);
        match state(&path) {
            Ok(State::Executable) => return Ok(path),
            // The search goes on, as in a shell; if nothing better is found, this is what to talk about.
            Ok(State::NotExecutable) => unusable = unusable.or(Some(path)),
            Ok(State::Directory) | Err(_) => {}
        }
    }
    if let Some(path) = unusable {
        return Err(UsageError::CommandNotExecutable(path));
    }
    let similar = match state(&here.join(command)) {
        Ok(State::Directory) => return Err(UsageError::CommandIsDirectory(here.join(command))),
        Ok(_) => Some(format!("./{command}")),
        Err(_) => similar_program(command, search),
    };
    Err(UsageError::CommandMissing { command: command.into(), similar })
}

/// What the command would lose under `no_new_privs`, if we have to set it.
///
/// A seccomp filter needs CAP_SYS_ADMIN or `no_new_privs` (seccomp(2)), and with the latter execve(2) ignores the
/// set-user-ID bits and file capabilities of the program.
pub(crate) fn lost_privileges(program: &Path) -> Option<String> {
    if privilege::has(CapabilitySet::SYS_ADMIN) { None } else { voided(program) }
}

fn voided(program: &Path) -> Option<String> {
    let bits = std::fs::metadata(program).map_or(0, |meta| meta.mode());
    let what = if bits & 0o4000 != 0 {
        "the set-user-ID bit"
    } else if bits & 0o2000 != 0 && bits & 0o010 != 0 {
        "the set-group-ID bit"
    } else if rustix::fs::getxattr(program, "security.capability", &mut [0_u8; 64][..]).is_ok() {
        "file capabilities"
    } else {
        return None;
    };
    Some(format!(
        "{} has {what}, without effect here: lacking CAP_SYS_ADMIN, the filter that adopts sockets \
         needs no_new_privs; to keep them, pass the sockets (--sockets pass --listen ADDR) or start relisten as root",
        program.display()
    ))
}

enum State {
    Executable,
    NotExecutable,
    Directory,
}

impl State {
    fn accept(self, path: PathBuf) -> Result<PathBuf, UsageError> {
        match self {
            Self::Executable => Ok(path),
            Self::NotExecutable => Err(UsageError::CommandNotExecutable(path)),
            Self::Directory => Err(UsageError::CommandIsDirectory(path)),
        }
    }
}

fn state(path: &Path) -> io::Result<State> {
    let meta = std::fs::metadata(path)?;
    Ok(if meta.is_dir() {
        State::Directory
    } else if meta.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok() {
        State::Executable
    } else {
        State::NotExecutable
    })
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The file beside `path` whose name is most like it.
fn similar_file(path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_str()?;
    best(wanted, names_in(path.parent()?))
}

/// The program in the search path whose name is most like it.
fn similar_program(wanted: &str, search: &str) -> Option<String> {
    best(wanted, std::env::split_paths(search).flat_map(|directory| names_in(&directory)))
}

fn names_in(directory: &Path) -> impl Iterator<Item = String> + use<> {
    std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str().map(ToOwned::to_owned))
}

fn best(wanted: &str, names: impl Iterator<Item = String>) -> Option<String> {
    names
        .map(|name| (strsim::osa_distance(wanted, &name), name))
        // One slip in a short name, two in a longer one; more is another word.
        .filter(|(distance, _)| *distance <= if wanted.len() < 5 { 1 } else { 2 })
        .min()
        .map(|(_, name)| name)
}

/// The file name of our own program. After an upgrade of the package the kernel adds a remark to the old path; the
/// new program is what the next worker should be.
pub(crate) fn own_program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(text) if Path::new(text).exists() => Ok(text.into()),
        _ => Ok(path),
    }
}

/// A path as a string; workers are described in JSON, which has no other bytes.
pub(crate) fn utf8(path: &OsStr) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
