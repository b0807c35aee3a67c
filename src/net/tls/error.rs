//! What is wrong with TLS, in one line: libvirt's words where it has them, whose certificate it is, and what to do.
//!
//! Leans on nothing. Refuses to hold anything but texts, and bytes of a key are never among them; nor does it let what it
//! quotes begin a line of its own.

use std::fmt::{self, Write as _};
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
        Self { text: visible(text), advice: String::new(), refusal: false }
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
            io::ErrorKind::NotADirectory => {
                told.advise("a file stands where a directory should: name the one that holds these files")
            }
            io::ErrorKind::IsADirectory => told.advise("a directory stands in its place: put the file there"),
            _ => told.advise("put it there anew, or name another place for it"),
        }
    }

    /// The other end's certificate is not accepted.
    pub(super) fn refusal(text: impl Into<String>) -> Self {
        Self { refusal: true, ..Self::new(text) }
    }

    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = visible(advice);
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

/// A text with what isn't seen in it escaped as RFC 4514 does it: a certificate's names are quoted before it is proved, and
/// a terminal would obey them.
pub(super) fn visible(text: impl Into<String>) -> String {
    let text = text.into();
    // Directions of writing, and ends of lines and paragraphs.
    let hides = |character: char| {
        character.is_control()
            || matches!(character, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(hides) {
        return text;
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if hides(character) {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                _ = write!(shown, "\\{byte:02X}");
            }
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_keeps_a_file_from_being_read_there_is_a_next_step() {
        use rustix::io::Errno;
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::NOTDIR, Errno::ISDIR, Errno::LOOP, Errno::IO] {
            let error = TlsError::unreadable("certificate", Path::new("/a/file"), &errno.into());
            assert!(!error.advice().is_empty(), "{error}");
        }
    }

    #[test]
    fn nothing_that_is_quoted_can_speak_for_us() {
        let error = TlsError::new("CN=a\n\u{1b}[2Jhint: \u{202e}").advise("it is for b\r\0\u{85}Zoë");
        assert_eq!(error.to_string(), r"CN=a\0A\1B[2Jhint: \E2\80\AE");
        assert_eq!(error.advice(), r"it is for b\0D\00\C2\85Zoë");
        assert_eq!(visible("C=GB,CN=Zoë Ω"), "C=GB,CN=Zoë Ω");
    }
}
