//! From the bytes of a document to its text: NUL, byte order mark, XML declaration, encoding.
//!
//! Reads UTF-8 and Latin-1, and other encodings known by name as long as the document is plain ASCII. Leans on `scan`
//! and `fault`. Refuses documents over [`LARGEST`], malformed declarations, and bytes that aren't characters: those
//! only once everything before them is known to be right, because libxml2 reads from left to right too.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;

use super::fault::Fault;
use super::scan::{Cursor, is_blank};
use super::{Error, ErrorCode};

/// A document as text.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    /// The text, up to the first thing that is no character.
    pub(super) text: Cow<'a, str>,
    /// Where the markup begins: past byte order mark and XML declaration.
    pub(super) body: usize,
    bytes: &'a [u8],
    /// What stands at the end of the text, if it isn't the end of the document.
    unreadable: Option<Fault>,
}

impl<'a> Source<'a> {
    /// Decodes a document.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() > LARGEST {
            let detail = format!("the document is longer than {LARGEST} bytes");
            return Err(Error::secret(ErrorCode::XmlDetail, detail));
        }
        // Where libvirt's strings end.
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        if bytes.is_empty() {
            return Err(Fault::new(0, "Document is empty").into_error(bytes));
        }
        let marked = bytes.starts_with(BYTE_ORDER_MARK);
        let mark = if marked { BYTE_ORDER_MARK.len() } else { 0 };

        let (text, unreadable) = readable(bytes);
        let mut cursor = Cursor::at(text, mark);
        let encoding = if cursor.rest().strip_prefix("<?xml").is_some_and(|rest| rest.starts_with(is_blank)) {
            let read = declaration(&mut cursor);
            let source =
                Source { text: Cow::Borrowed(text), body: mark, bytes, unreadable: unreadable.clone() };
            read.map_err(|fault| source.error(fault))?
        } else {
            Encoding::Utf8
        };
        let body = cursor.offset();
        let (text, unreadable) = match encoding {
            // A byte order mark outranks the declaration.
            Encoding::Latin1 if !marked && !bytes.is_ascii() => {
                // All bytes are characters; the declaration, being ASCII, keeps its offsets.
                (Cow::Owned(bytes.iter().copied().map(char::from).collect()), None)
            }
            Encoding::Other(name) if !bytes.is_ascii() => {
                return Err(Fault::new(body, format!("Unsupported encoding {name}")).into_error(bytes));
            }
            _ => (Cow::Borrowed(text), unreadable),
        };
        Ok(Self { text, body, bytes, unreadable })
    }

    /// The error for a fault found in the text. If it is that the text ends here, the unreadable rest is to blame.
    pub(super) fn error(&self, fault: Fault) -> Error {
        let input = match &self.text {
            // Unreadable bytes belong to the line that is shown.
            Cow::Borrowed(_) => self.bytes,
            Cow::Owned(text) => text.as_bytes(),
        };
        match &self.unreadable {
            Some(unreadable) if fault.is_truncation() => unreadable.clone(),
            _ => fault,
        }
        .into_error(input)
    }

    /// Whether the text is all of the document.
    pub(super) fn is_complete(&self) -> bool {
        self.unreadable.is_none()
    }
}

/// The encodings that a declaration can name.
enum Encoding<'a> {
    Utf8,
    Latin1,
    /// Known to libxml2, and the same as ASCII for ASCII's characters.
    Other(&'a str),
}

impl<'a> Encoding<'a> {
    fn named(name: &'a str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        match upper.as_str() {
            // libxml2 takes the last two for what they turn out to be.
            "UTF-8" | "UTF8" | "US-ASCII" | "ASCII" | "UTF-16" | "UTF16" => Some(Self::Utf8),
            "ISO-8859-1" | "ISO8859-1" | "ISO_8859-1" | "ISO-LATIN-1" | "LATIN1" | "LATIN-1" | "L1" => {
                Some(Self::Latin1)
            }
            _ => ASCII_COMPATIBLE.iter().any(|prefix| upper.starts_with(prefix)).then_some(Self::Other(name)),
        }
    }
}

/// The longest readable beginning, and what is wrong with the byte after it.
fn readable(bytes: &[u8]) -> (&str, Option<Fault>) {
    let (text, rest) = match std::str::from_utf8(bytes) {
        Ok(text) => (text, &[] as &[u8]),
        Err(error) => {
            let (good, rest) = bytes.split_at(error.valid_up_to());
            (std::str::from_utf8(good).unwrap_or_default(), rest)
        }
    };
    // Encoded well, but not allowed in XML at all.
    if let Some((at, found)) = text.char_indices().find(|(_, next)| matches!(next, '\u{FFFE}' | '\u{FFFF}')) {
        let fault = Fault::new(at, out_of_range(u32::from(found)));
        return (text.get(..at).unwrap_or_default(), Some(fault));
    }
    let message = match *rest {
        [] => return (text, None),
        [0xED, second @ 0xA0..=0xBF, third @ 0x80..=0xBF, ..] => {
            out_of_range(0xD000 | u32::from(second & 0x3F) << 6 | u32::from(third & 0x3F))
        }
        [lead @ 0xF4..=0xF7, second @ 0x80..=0xBF, third @ 0x80..=0xBF, fourth @ 0x80..=0xBF, ..] => {
            out_of_range(
                u32::from(lead & 7) << 18
                    | u32::from(second & 0x3F) << 12
                    | u32::from(third & 0x3F) << 6
                    | u32::from(fourth & 0x3F),
            )
        }
        _ => {
            let shown: String = rest.iter().take(4).map(|byte| format!(" 0x{byte:02X}")).collect();
            format!("Input is not proper UTF-8, indicate encoding !\nBytes:{shown}")
        }
    };
    (text, Some(Fault::new(text.len(), message)))
}

fn out_of_range(value: u32) -> String {
    format!("Char 0x{value:X} out of allowed range")
}

/// The XML declaration, at its `<?xml`.
fn declaration<'a>(cursor: &mut Cursor<'a>) -> Result<Encoding<'a>, Fault> {
    cursor.advance(5);
    cursor.eat_blanks();
    let version = setting(cursor, "version", |cursor| Ok(version_number(cursor)))?;
    let Some(version) = version.filter(|version| !version.is_empty()) else {
        return Err(cursor.fault("Malformed declaration expecting version"));
    };
    if !version.starts_with("1.") {
        return Err(cursor.fault(format!("Unsupported version '{version}'")));
    }
    let mut encoding = Encoding::Utf8;
    if cursor.eat("?>") {
        return Ok(encoding);
    }
    if !cursor.eat_blanks() {
        return Err(cursor.fault("Blank needed here"));
    }
    if let Some(name) = setting(cursor, "encoding", encoding_name)? {
        let Some(named) = Encoding::named(name) else {
            return Err(cursor.fault(format!("Unsupported encoding {name}")));
        };
        encoding = named;
        if cursor.eat("?>") {
            return Ok(encoding);
        }
        // A slip of libxml2's that documents may live by: after UTF-8's name no blank is asked for.
        if !cursor.eat_blanks() && !name.eq_ignore_ascii_case("UTF-8") {
            return Err(cursor.fault("Blank needed here"));
        }
    }
    setting(cursor, "standalone", |cursor| {
        if cursor.eat("yes") || cursor.eat("no") {
            return Ok("");
        }
        Err(cursor.fault("standalone accepts only 'yes' or 'no'"))
    })?;
    cursor.eat_blanks();
    if cursor.eat("?>") { Ok(encoding) } else { Err(cursor.fault("parsing XML declaration: '?>' expected")) }
}

/// `name = "value"`, if it stands here.
fn setting<'a>(
    cursor: &mut Cursor<'a>,
    name: &str,
    value: impl FnOnce(&mut Cursor<'a>) -> Result<&'a str, Fault>,
) -> Result<Option<&'a str>, Fault> {
    if !cursor.eat(name) {
        return Ok(None);
    }
    cursor.eat_blanks();
    if !cursor.eat("=") {
        return Err(cursor.fault("expected '='"));
    }
    cursor.eat_blanks();
    let quote = if cursor.eat("\"") {
        "\""
    } else if cursor.eat("'") {
        "'"
    } else {
        return Err(cursor.fault("String not started expecting ' or \""));
    };
    let value = value(cursor)?;
    if cursor.eat(quote) { Ok(Some(value)) } else { Err(cursor.fault("String not closed expecting \" or '")) }
}

/// A digit, a point, any digits; or nothing.
fn version_number<'a>(cursor: &mut Cursor<'a>) -> &'a str {
    let start = cursor.offset();
    if !cursor.byte().is_some_and(|byte| byte.is_ascii_digit()) {
        return "";
    }
    cursor.advance(1);
    if !cursor.eat(".") {
        return "";
    }
    cursor.eat_while(|next| next.is_ascii_digit());
    cursor.since(start)
}

fn encoding_name<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, Fault> {
    if !cursor.rest().starts_with(|next: char| next.is_ascii_alphabetic()) {
        return Err(cursor.fault("Invalid XML encoding name"));
    }
    Ok(cursor.eat_while(|next| next.is_ascii_alphanumeric() || matches!(next, '.' | '_' | '-')))
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The longest document, in bytes: libvirt's limit for a string on the wire.
const LARGEST: usize = 4 << 20;

/// Families of encodings, by the beginnings of their names.
const ASCII_COMPATIBLE: [&str; 10] =
    ["BIG5", "CP125", "EUC-", "GB", "ISO-8859-", "KOI8-", "LATIN", "SHIFT_JIS", "TIS-620", "WINDOWS-125"];
