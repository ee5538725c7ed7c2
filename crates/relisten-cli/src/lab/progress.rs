//! How far a run has come; only where somebody is looking.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relisten_lab::experiment::Progress;

pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Drawn on standard error if that is a terminal, else nowhere.
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix} [{bar:20}] {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        Self(bar)
    }

    pub(super) fn begin(&mut self, name: &str, number: usize, of: usize) {
        self.0.reset();
        self.0.set_length(1);
        self.0.set_prefix(format!("{number}/{of} {name}"));
        self.0.set_message("");
        self.0.tick();
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        self.0.set_length(progress.of.max(1));
        self.0.set_position(progress.done);
        self.0.set_message(progress.what.clone());
    }

    /// Takes it away from the screen.
    pub(super) fn clear(&mut self) {
        self.0.finish_and_clear();
    }
}
