//! Words to the user, in one manner: results on standard output, all else on standard error.

pub(crate) use relisten_supervise::runtime::chain;

use crate::error::UsageError;
use crate::exit::Exit;
use crate::render::Paint;
use std::io::Write;

/// `error: …` and, where there is one, `  tip: …`.
pub(crate) fn error(message: &str, tip: Option<&str>) {
    let paint = Paint::stderr();
    line(&format!("{} {message}", paint.error("error:")));
    if let Some(text) = tip {
        self::tip(text);
    }
}

/// What to do about an error that has been said.
pub(crate) fn tip(text: &str) {
    line(&format!("\n  {} {text}", Paint::stderr().good("tip:")));
}

/// Says what failed. Exit code 1.
pub(crate) fn failed(message: &str) -> Exit {
    error(message, None);
    Exit::Failed
}

/// Says what can't be, and how it can. Exit code 2.
pub(crate) fn usage(problem: &UsageError) -> Exit {
    error(&problem.to_string(), problem.tip().as_deref());
    Exit::Usage
}

/// Something to know, not an error.
pub(crate) fn note(message: &str) {
    line(&format!("{} {message}", Paint::stderr().warning("note:")));
}

/// One line as it is. A closed standard error is no reason to fail.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The result of a command, on standard output.
pub(crate) fn out(bytes: &[u8]) -> Exit {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Exit::Done,
        // The reader has seen enough (`relisten man | head`).
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => failed(&format!("standard output: {error}")),
    }
}
