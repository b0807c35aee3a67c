//! What is wrong with a document that isn't well-formed, and where: libvirt's message for it.
//!
//! A message is `at line N:`, libxml2's text, the offending line, and a line that points into it. Leans on `error`
//! alone. Refuses to quote a line of any length: past [`LONGEST_LINE`] bytes only the part around the fault is shown.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::{Error, ErrorCode};

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The byte offset that libxml2 has reached when it notices.
    pub(super) at: usize,
    message: String,
    /// It is that a construct isn't finished where the text ends.
    truncated: bool,
}

impl Fault {
    /// A fault noticed at this offset, in libxml2's words.
    pub(super) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), truncated: false }
    }

    /// The same for input that ends too early.
    pub(super) fn truncated(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), truncated: true }
    }

    /// Whether what follows the text, if it is no text, is to blame rather than this.
    pub(super) fn is_truncation(&self) -> bool {
        self.truncated
    }

    /// The error as libvirt 11.3 and 12.8 word it. Bytes that aren't UTF-8 are shown as U+FFFD.
    pub(super) fn into_error(self, input: &[u8]) -> Error {
        let (before, after) = input.split_at(self.at.min(input.len()));
        let newlines = before.iter().filter(|byte| **byte == b'\n').count();
        // A fault at a line's end belongs to that line, not to the next one.
        let end_of_line = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let anchor = if after.first().is_some_and(end_of_line) {
            before.iter().rposition(|byte| !end_of_line(byte)).map_or(0, |last| last.saturating_add(1))
        } else {
            before.len()
        };
        let start = before
            .get(..anchor)
            .and_then(|line| line.iter().rposition(end_of_line))
            .map_or(0, |last| last.saturating_add(1));
        let head = before.get(start..anchor).unwrap_or_default();
        let tail = input.get(anchor..).unwrap_or_default();
        let tail = tail.split(|byte| end_of_line(byte)).next().unwrap_or_default();
        let (head, tail) = shorten(head, tail);

        let pointer: String =
            head.iter().map(|byte| if *byte == b'\t' { '\t' } else { '-' }).chain(['^']).collect();
        let line = [head, tail].concat();
        let detail = format!(
            "at line {}: {}\n{}\n{pointer}",
            newlines.saturating_add(1),
            self.message,
            String::from_utf8_lossy(&line),
        );
        Error::secret(ErrorCode::XmlDetail, detail)
    }
}

/// The two halves of a line, cut to the fault's neighbourhood if the line is long.
fn shorten<'a>(head: &'a [u8], tail: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    if head.len().saturating_add(tail.len()) <= LONGEST_LINE {
        return (head, tail);
    }
    // Not inside a character: a continuation byte is never the first one shown.
    let from = head.len().saturating_sub(NEIGHBOURHOOD);
    let head = head.get(from..).unwrap_or_default();
    let skip = head.iter().take_while(|byte| **byte & 0xC0 == 0x80).count().min(3);
    let upto = tail.len().min(NEIGHBOURHOOD);
    let more =
        tail.get(upto..).unwrap_or_default().iter().take_while(|byte| **byte & 0xC0 == 0x80).count().min(3);
    (head.get(skip..).unwrap_or_default(), tail.get(..upto.saturating_add(more)).unwrap_or_default())
}

/// Lines up to this long are quoted whole.
const LONGEST_LINE: usize = 1024;

/// How much of a longer line is quoted on either side.
const NEIGHBOURHOOD: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(input: &[u8], at: usize) -> String {
        Fault::new(at, "oh").into_error(input).to_string()
    }

    #[test]
    fn the_line_is_quoted_and_pointed_into() {
        assert_eq!(shown(b"<a>\n\t<b\tc>\n</a>", 9), "at line 2: oh\n\t<b\tc>\n\t--\t-^");
        assert_eq!(shown(b"", 0), "at line 1: oh\n\n^");
        assert_eq!(shown(b"<a>\n", 4), "at line 2: oh\n\n^");
        assert_eq!(shown(b"<a>\r\n<b>", 8), "at line 2: oh\n<b>\n---^");
        assert_eq!(shown(b"\xff", 0), "at line 1: oh\n\u{fffd}\n^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_fault() {
        let input = "é".repeat(5000);
        let shown = shown(input.as_bytes(), 5000);
        assert!(!shown.contains('\u{fffd}'));
        assert!(shown.len() < 300);
    }

    #[test]
    fn any_offset_can_be_shown() {
        for at in 0..=20 {
            shown(b"\n\r\n\ra\r\nb\n\n\xc3\n", at);
        }
    }
}
