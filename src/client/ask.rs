//! What a connection may have to ask a person: passwords, names, whether an unknown host is the right one.
//!
//! Whoever opens a connection may hand in an [`Ask`]; without one nobody is asked, and what would have to be asked is an
//! error that says so. Leans on `memory` for answers. Refuses to have them anywhere else.

use crate::memory::SecretBytes;

/// What is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Question {
    /// The words to show, without a colon: `Enter username for localhost`.
    pub prompt: String,
    /// Whether the answer may be seen while it is typed.
    pub echo: bool,
    /// What is taken if nothing is typed.
    pub default: Option<String>,
}

#[cfg_attr(
    not(any(feature = "sasl", feature = "libssh")),
    allow(dead_code, reason = "nothing has to be asked")
)]
impl Question {
    /// A question whose answer is no secret.
    pub(crate) fn open(prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), echo: true, default: None }
    }

    /// A question whose answer nobody should see.
    pub(crate) fn hidden(prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), echo: false, default: None }
    }
}

/// Somebody who can be asked.
pub trait Ask: Send + Sync {
    /// The answer, without a line's end. `None`: there is nobody to answer, or they won't.
    fn ask(&self, question: &Question) -> Option<SecretBytes>;
}
