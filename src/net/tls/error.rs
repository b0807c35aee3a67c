//! What is wrong with TLS, in one line: libvirt's words where it has them, whose certificate it is, and what to do.
//!
//! Leans on nothing. Refuses to hold anything but texts, and bytes of a key are never among them.

use std::fmt;
use std::io;
use std::path::Path;

/// Why there is no TLS: a file that doesn't fit, a handshake that failed, a certificate that isn't accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsError {
    text: String,
    advice: String,
    refusal: bool,
}

impl TlsError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), advice: String::new(), refusal: false }
    }

    /// A file can't be read: `what` it is, and why.
    pub(super) fn unreadable(what: &str, path: &Path, error: &io::Error) -> Self {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        let told = Self::new(format!("Cannot read {what} '{}': {text}", path.display()));
        match error.kind() {
            io::ErrorKind::NotFound => told.advise("put it there, or name another place for it"),
            io::ErrorKind::PermissionDenied => {
                told.advise("let this user read it, and look into all directories above it")
            }
            _ => told,
        }
    }

    /// The other end's certificate is not accepted.
    pub(super) fn refusal(text: impl Into<String>) -> Self {
        Self { refusal: true, ..Self::new(text) }
    }

    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// What to do about it; empty if there is nothing to say.
    pub(crate) fn advice(&self) -> &str {
        &self.advice
    }

    /// Whether it is the other end's certificate that was judged, and not something of ours.
    #[cfg(test)]
    pub(crate) fn is_refusal(&self) -> bool {
        self.refusal
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for TlsError {}
