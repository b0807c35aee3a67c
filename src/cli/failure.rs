//! What went wrong, as virsh words it: a line of its own, then the library's message, then our advice.
//!
//! Leans on the library's [`Error`]. Refuses to hold anything but texts: no value ever reaches it.

use std::fmt;
use std::io;

use crate::secret::Error;

/// Why a command didn't do what was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// To be told: `error:` lines, and perhaps a `hint:` line.
    Told {
        /// One `error:` line each.
        lines: Vec<String>,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The person pressed Ctrl-C at a prompt.
    Interrupted,
    /// There is nothing to add: all was said, or nobody is reading.
    Silent,
}

impl Failure {
    /// A failure that one line tells.
    pub(crate) fn told(line: impl Into<String>) -> Self {
        Self::Told { lines: vec![line.into()], hint: None }
    }

    /// A failure of a system call: what was tried, on which file, and the system's text.
    pub(crate) fn system(doing: impl fmt::Display, error: &io::Error) -> Self {
        Error::system(doing, error).into()
    }

    /// The same failure with its cause below it. The cause's advice is kept.
    pub(crate) fn because(mut self, cause: impl Into<Self>) -> Self {
        if let Self::Told { lines, hint } = &mut self
            && let Self::Told { lines: cause, hint: advice } = cause.into()
        {
            lines.extend(cause);
            *hint = advice.or_else(|| hint.take());
        }
        self
    }

    /// The same failure with the next step for the person who meets it.
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        if let Self::Told { hint, .. } = &mut self {
            *hint = Some(advice.into());
        }
        self
    }

    /// The exit status: virsh's 1 for everything, but 130 where a shell expects it.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Told { .. } | Self::Silent => 1,
            Self::Interrupted => 130,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Told { lines: vec![error.to_string()], hint: error.advice().map(str::to_owned) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_stands_below_and_brings_its_advice() {
        let failure =
            Failure::told("Failed to set secret value").because(Error::empty_value().advise("type one"));
        let lines = vec![
            "Failed to set secret value".to_owned(),
            "value in virSecretSetValue must not be NULL".to_owned(),
        ];
        assert_eq!(failure, Failure::Told { lines, hint: Some("type one".to_owned()) });
    }
}
