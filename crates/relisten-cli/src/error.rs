//! Errors that users cause and can cure: what is wrong, and what to do about it.

use crate::config::ConfigError;
use relisten::address::ResolveError;
use relisten_supervise::runtime::control::PlaceError;
use std::path::PathBuf;

/// A Unix socket's path has at most 107 bytes (unix(7)), and the keeper's is the control socket's with ".keeper".
pub(crate) const LONGEST_CONTROL: usize = 107 - ".keeper".len();

/// The options ask for something that can't be. Exit code 2.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    #[error(transparent)]
    Config(#[from] ConfigError),

    #[error("command `{command}` was not found{}", in_path(command))]
    CommandMissing { command: String, similar: Option<String> },

    #[error("command `{}` is a directory", .0.display())]
    CommandIsDirectory(PathBuf),

    #[error("command `{}` is not executable", .0.display())]
    CommandNotExecutable(PathBuf),

    #[error("command `{}` can't be looked at: {source}", path.display())]
    CommandUnreadable { path: PathBuf, source: std::io::Error },

    #[error("a command's name can't be empty")]
    CommandEmpty,

    #[error("`{name}` can't be the name of an instance: {why}")]
    Name { name: String, why: &'static str },

    #[error(
        "the path of the control socket is too long: {} bytes, and at most {LONGEST_CONTROL} are possible: {}",
        .0.as_os_str().len(), .0.display()
    )]
    ControlTooLong(PathBuf),

    #[error("{}", crate::say::chain(.0))]
    Place(#[from] PlaceError),

    #[error("there is no user `{0}` here")]
    UnknownUser(String),

    #[error("user `{name}` can't be looked up: {why}")]
    UserLookup { name: String, why: String },

    #[error("running workers as `{0}` needs root")]
    UserNeedsRoot(String),

    #[error("address {address}: {}", crate::say::chain(source))]
    Address { address: String, source: ResolveError },

    #[error("address {0} is given twice")]
    AddressTwice(String),

    #[error("name `{0}` is given to two addresses")]
    AddressNameTwice(String),

    #[error("opening port {port} is not permitted: ports below {limit} need a privilege")]
    PrivilegedPort { port: u16, limit: u32 },

    #[error("--{option} is for the built-in worker, but a COMMAND is given")]
    BuiltInOnly { option: &'static str },

    #[error("--{given} needs --{missing}")]
    Needs { given: &'static str, missing: &'static str },

    #[error("{what} `{}` can't be read: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: std::io::Error },

    #[error("directory `{}` can't be used: {source}", path.display())]
    Directory { path: PathBuf, source: std::io::Error },

    #[error("--{option} can't be zero")]
    Zero { option: &'static str },

    #[error("--hang-after can't be shorter than 20ms: the scheduler alone may keep a worker waiting so long")]
    HangTooShort,

    #[error("--hang-kill needs --hang-after: nobody is ever found hung")]
    NeverHung,

    #[error("--sockets pass without --listen: there is nothing to pass")]
    NothingToPass,

    #[error("the {what} can't change while the instance runs: it is `{now}`, and `{wanted}` is asked for")]
    Fixed { what: &'static str, now: String, wanted: String },

    #[error("relisten's own program file can't be found: {0}")]
    OwnProgram(std::io::Error),
}

fn in_path(command: &str) -> &'static str {
    if command.contains('/') { "" } else { " in PATH" }
}

impl UsageError {
    /// What to do about it, where that is not plain from the message.
    pub(crate) fn tip(&self) -> Option<String> {
        Some(match self {
            Self::Config(error) => return error.tip(),
            Self::CommandMissing { similar: Some(similar), .. } => format!("did you mean `{similar}`?"),
            Self::CommandMissing { command, similar: None } if !command.contains('/') => {
                "install it, or give its path".into()
            }
            Self::CommandIsDirectory(path) => {
                format!("give the server's program; to serve the files: relisten run --directory {}", path.display())
            }
            Self::CommandNotExecutable(path) => format!(
                "chmod +x {0}, or put its interpreter before it, for example: -- python3 {0}",
                path.display()
            ),
            Self::Name { .. } => "give another with --name, for example --name web".into(),
            Self::ControlTooLong(_) => "give a shorter one with --control, or a shorter --name".into(),
            Self::UserNeedsRoot(_) => {
                "start relisten as root (or with CAP_SETUID and CAP_SETGID), or leave --user out".into()
            }
            Self::PrivilegedPort { .. } => {
                "start relisten as root and give --user for the workers, or give it CAP_NET_BIND_SERVICE, or lower \
                 the sysctl net.ipv4.ip_unprivileged_port_start, or use a higher port"
                    .into()
            }
            Self::BuiltInOnly { .. } => "give the certificate to COMMAND in its own way".into(),
            Self::HangTooShort => "give a longer time, or never".into(),
            Self::NeverHung => "give --hang-after a time, for example 200ms, or leave --hang-kill out".into(),
            Self::NothingToPass => "add --listen ADDR, or leave --sockets out: then COMMAND may bind itself".into(),
            Self::Fixed { .. } => "stop the instance and start it anew for that".into(),
            _ => return None,
        })
    }
}
