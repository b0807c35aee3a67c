//! What a SASL negotiation is made of, whoever runs it: steps, questions, an end, reasons to fail.
//!
//! Leans on `memory` for what may hold a password. Refuses to show more of a stranger's words than a line.

use super::layer::Layer;
use crate::memory::{Exhausted, SecretBytes};

/// What one end has to say.
#[derive(Debug)]
pub(crate) struct Step {
    /// Whether it needs to hear no more.
    pub(crate) complete: bool,
    /// To be sent; nothing is something else than no bytes.
    pub(crate) data: Option<SecretBytes>,
}

/// How a negotiation has ended.
pub(crate) struct Done {
    /// Who the client is: at the server, by what it has proved.
    pub(crate) user: String,
    /// The mechanism that was used.
    pub(crate) mechanism: String,
    /// How many bits its layer has.
    pub(crate) ssf: u32,
    /// The layer, if there is one.
    pub(crate) layer: Option<Layer>,
}

/// Why a negotiation has failed: for the log, or for whoever runs the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct SaslError {
    /// Cyrus's number.
    pub(crate) code: i32,
    /// What it says of it, on one line.
    pub(crate) detail: String,
    /// Who the client said that it was, if it had come to that.
    pub(crate) user: Option<String>,
}

/// What a mechanism wants to know from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Who it is.
    AuthName,
    /// The password.
    Password,
    /// Where the name is known.
    Realm,
    /// Something else, which may be seen.
    Open,
    /// Something else, which may not.
    Hidden,
}

/// A question of a mechanism.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) want: Want,
    /// As Cyrus puts it, without a colon.
    pub(crate) text: String,
    /// What it takes if nothing is said.
    pub(crate) default: Option<String>,
}

/// Answers a mechanism's question; nothing ends the negotiation.
pub(crate) type Answer<'a> = &'a mut dyn FnMut(&Prompt) -> Option<SecretBytes>;

impl SaslError {
    /// Whether a question of the mechanism wasn't answered.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.code == INTERACT
    }

    /// Whether there was none to choose from.
    #[cfg(feature = "daemon")]
    pub(crate) fn is_without_mechanism(&self) -> bool {
        self.code == NO_MECHANISM
    }

    pub(super) fn new(code: i32, detail: impl AsRef<str>) -> Self {
        Self { code, detail: shown(detail.as_ref()), user: None }
    }
}

impl From<Exhausted> for SaslError {
    fn from(exhausted: Exhausted) -> Self {
        Self::new(NO_MEMORY, exhausted.to_string())
    }
}

/// What a stranger may have chosen, on one line.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(LONGEST_SHOWN).map(|char| if char.is_control() { '?' } else { char }).collect()
}

/// SASL_NOMEM.
const NO_MEMORY: i32 = -2;

/// SASL_NOMECH.
#[cfg(feature = "daemon")]
const NO_MECHANISM: i32 = -4;

/// SASL_INTERACT.
const INTERACT: i32 = 2;

/// How much of a message is shown.
const LONGEST_SHOWN: usize = 300;
