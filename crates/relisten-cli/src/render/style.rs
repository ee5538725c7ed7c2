//! Colours: only on a terminal, and not where NO_COLOR is set (no-color.org).

use anstyle::{AnsiColor, Style};
use std::io::IsTerminal;

/// Puts colours on text, or not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    colours: bool,
}

impl Paint {
    /// For standard output.
    pub(crate) fn stdout() -> Self {
        Self { colours: wanted(std::io::stdout().is_terminal()) }
    }

    /// For standard error.
    pub(crate) fn stderr() -> Self {
        Self { colours: wanted(std::io::stderr().is_terminal()) }
    }

    /// Never, for tests.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { colours: false }
    }

    /// Always, for tests.
    #[cfg(test)]
    pub(crate) fn coloured() -> Self {
        Self { colours: true }
    }

    /// Are colours used?
    pub(crate) fn colours(self) -> bool {
        self.colours
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.with(Style::new().dimmed(), text)
    }

    pub(crate) fn error(self, text: &str) -> String {
        self.with(AnsiColor::Red.on_default().bold(), text)
    }

    pub(crate) fn warning(self, text: &str) -> String {
        self.with(AnsiColor::Yellow.on_default(), text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.with(AnsiColor::Green.on_default(), text)
    }

    /// The colour of a state word of an instance, a slot or a worker.
    pub(crate) fn state(self, state: &str) -> String {
        match state {
            "running" | "ready" | "serving" => self.good(state),
            "lost" | "waiting" | "hung" => self.error(state),
            _ => self.warning(state),
        }
    }

    fn with(self, style: Style, text: &str) -> String {
        if self.colours { format!("{style}{text}{style:#}") } else { text.into() }
    }
}

fn wanted(terminal: bool) -> bool {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    terminal && !no_colour && !dumb
}
