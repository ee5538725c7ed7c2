//! The exit codes of `relisten`, all of them, in one place. The man page renders this table.

use std::process::ExitCode;

/// How `relisten` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done as asked.
    Done = 0,
    /// The operation failed.
    Failed = 1,
    /// The command line or the configuration asks for something impossible.
    Usage = 2,
    /// No running instance by that name, or none at all.
    NoInstance = 3,
    /// An instance of that name runs already.
    AlreadyRuns = 4,
    /// The instance could not start.
    CannotStart = 5,
}

impl Exit {
    /// Every code, in order.
    pub(crate) const ALL: [Self; 6] =
        [Self::Done, Self::Failed, Self::Usage, Self::NoInstance, Self::AlreadyRuns, Self::CannotStart];

    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// What the manual says about it.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Done => "Done as asked.",
            Self::Failed => {
                "The operation failed: a reload was rolled back, a stop took too long, `load` lost a connection, \
                 `doctor` found something serious, output could not be written."
            }
            Self::Usage => {
                "Usage: an unknown option, a bad value, a name that can't be resolved, a port that this user may not \
                 open, an error in the configuration file, a COMMAND that does not exist."
            }
            Self::NoInstance => {
                "No instance: none runs under that name; or no name was given and none runs, or several do."
            }
            Self::AlreadyRuns => "An instance of that name runs already.",
            Self::CannotStart => {
                "The instance could not start: an address is in use or not this machine's, a feature of --require is \
                 missing, no worker became ready."
            }
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}
