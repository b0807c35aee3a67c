//! A bar on standard error while something takes long, where a person watches; else nothing.
//!
//! Leans on indicatif. Refuses to draw for a script, a pipe, or under `-q`.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How far something is.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Counts `unit`s.
    pub(super) fn of(what: &'static str, total: u64, quiet: bool) -> Self {
        Self::new(what, total, quiet, "{msg} {wide_bar} {human_pos} of {human_len}, {eta} left")
    }

    /// Counts bytes.
    pub(super) fn of_bytes(what: &'static str, total: u64, quiet: bool) -> Self {
        Self::new(what, total, quiet, "{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left")
    }

    fn new(what: &'static str, total: u64, quiet: bool, template: &str) -> Self {
        let target = match quiet || !io::stderr().is_terminal() {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_message(what);
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self(bar)
    }

    /// So much is done.
    pub(super) fn at(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
