//! The rules for a token of XML: tags, comments, processing instructions, CDATA, text.
//!
//! quick-xml finds tokens but lets many malformed ones pass; each function here reads one token, strictly, in the
//! order in which libxml2 notices faults. Leans on `scan` and `fault`. Refuses what libxml2 refuses, in its words.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;
use std::collections::HashSet;

use super::fault::Fault;
use super::scan::{Cursor, Name, is_blank, is_character};

/// A start tag's content.
#[derive(Debug)]
pub(super) struct StartTag<'a> {
    pub(super) name: Name<'a>,
    pub(super) attributes: Vec<(Name<'a>, Cow<'a, str>)>,
    /// The namespaces declared here: prefix (empty for the default one), and whether it is bound rather than unbound.
    pub(super) namespaces: Vec<(&'a str, bool)>,
    pub(super) empty: bool,
}

/// A start tag, at its `<`, which stands in this line.
pub(super) fn start_tag<'a>(cursor: &mut Cursor<'a>, line: usize) -> Result<StartTag<'a>, Fault> {
    cursor.advance(1);
    let Some(name) = cursor.qualified_name()? else {
        return Err(cursor.fault("StartTag: invalid element name"));
    };
    let mut tag = StartTag { name, attributes: Vec::new(), namespaces: Vec::new(), empty: false };
    let mut declared = HashSet::new();
    cursor.eat_blanks();
    while !at_tag_end(cursor) && cursor.rest().starts_with(is_tag_character) {
        let (name, value) = attribute(cursor)?;
        if let Some((prefix, bound)) = declaration(&name, &value) {
            if declared.insert(prefix) {
                tag.namespaces.push((prefix, bound));
            } else {
                return Err(cursor.fault(format!("Attribute {} redefined", name.raw)));
            }
        } else if !is_idle_declaration(&name) {
            tag.attributes.push((name, value));
        }
        if at_tag_end(cursor) {
            break;
        }
        if !cursor.eat_blanks() {
            return Err(cursor.fault("attributes construct error"));
        }
    }
    let mut seen = HashSet::new();
    if let Some((name, _)) = tag.attributes.iter().find(|(name, _)| !seen.insert((name.prefix, name.local))) {
        return Err(cursor.fault(format!("Attribute {} redefined", name.raw)));
    }
    tag.empty = cursor.eat("/>");
    if !tag.empty && !cursor.eat(">") {
        let message = format!("Couldn't find end of Start Tag {} line {line}", tag.name.local);
        return Err(if cursor.rest().is_empty() { cursor.truncated(message) } else { cursor.fault(message) });
    }
    Ok(tag)
}

/// An end tag, at its `</`, for the element of this name which was opened in this line.
pub(super) fn end_tag(cursor: &mut Cursor<'_>, open: Name<'_>, line: usize) -> Result<(), Fault> {
    cursor.advance(2);
    let start = cursor.offset();
    // An unprefixed element is closed by any name that reads the same, a prefixed one by prefix and local name.
    let (matches, found) = if let Some(prefix) = open.prefix {
        let found = cursor.qualified_name()?;
        let raw = cursor.since(start);
        let rest = raw.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(':'));
        (rest == Some(open.local), found.map(|name| name.local))
    } else {
        let found = cursor.name()?;
        (found == Some(open.local), found)
    };
    cursor.eat_blanks();
    if !cursor.eat(">") {
        return Err(cursor.fault("expected '>'"));
    }
    if matches {
        return Ok(());
    }
    let (open, found) = (open.local, found.unwrap_or("unparsable"));
    Err(cursor.fault(format!("Opening and ending tag mismatch: {open} line {line} and {found}")))
}

/// A comment, at its `<!--`.
pub(super) fn comment(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    cursor.advance(4);
    let start = cursor.offset();
    loop {
        cursor.eat_while(|next| next != '-' && is_character(next));
        if cursor.eat("-->") {
            return Ok(());
        }
        if cursor.starts_with("--") {
            return Err(double_hyphen(cursor, start));
        }
        let here = *cursor;
        match cursor.next() {
            Some('-') => {}
            Some(next) => {
                return Err(here.fault(format!("xmlParseComment: invalid xmlChar value {}", u32::from(next))));
            }
            None => return Err(cursor.truncated("Comment not terminated")),
        }
    }
}

/// The fault for a `--` that doesn't end its comment. libxml2 has two readers for comments, with two sets of words.
fn double_hyphen(cursor: &mut Cursor<'_>, start: usize) -> Fault {
    let text = cursor.since(start);
    if text.is_empty() {
        cursor.fault("Double hyphen within comment")
    } else if text.is_ascii() {
        cursor.fault(format!("Double hyphen within comment: <!--{}", first_50(text)))
    } else if cursor.rest().len() == 2 {
        cursor.truncated("Comment not terminated")
    } else {
        cursor.advance(2);
        cursor.fault("Comment must not contain '--' (double-hyphen)")
    }
}

/// A processing instruction, at its `<?`. The XML declaration isn't one.
pub(super) fn instruction(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    cursor.advance(2);
    let Some(target) = cursor.name()? else { return Err(cursor.fault("xmlParsePI : no target name")) };
    if target == "xml" {
        return Err(cursor.fault("XML declaration allowed only at the start of the document"));
    }
    if target.eq_ignore_ascii_case("xml") {
        return Err(cursor.fault("Invalid PI name"));
    }
    if cursor.eat("?>") {
        return Ok(());
    }
    if !cursor.eat_blanks() {
        return Err(cursor.fault(format!("ParsePI: PI {target} space expected")));
    }
    let message = || format!("ParsePI: PI {target} never end ...");
    loop {
        cursor.eat_while(|next| next != '?' && is_character(next));
        if cursor.eat("?>") {
            return Ok(());
        }
        let here = *cursor;
        match cursor.next() {
            Some('?') => {}
            Some(_) => return Err(here.fault(message())),
            None => return Err(cursor.truncated(message())),
        }
    }
}

/// A CDATA section, at its `<![CDATA[`: its text.
pub(super) fn cdata<'a>(cursor: &mut Cursor<'a>) -> Result<Cow<'a, str>, Fault> {
    cursor.advance(9);
    let rest = cursor.rest();
    let end = rest.find("]]>");
    let text = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
    // libxml2 looks two characters ahead, and quotes what it has behind it.
    let message = |text: &str| {
        let end = text.char_indices().rev().nth(1).map_or(0, |(at, _)| at);
        format!("CData section not finished\n{}", first_50(text.get(..end).unwrap_or_default()))
    };
    if let Some(bad) = text.find(|next| !is_character(next)) {
        cursor.advance(bad);
        return Err(cursor.fault(message(text.get(..bad).unwrap_or_default())));
    }
    if end.is_none() {
        return Err(cursor.truncated(message(text)));
    }
    cursor.advance(text.len().saturating_add(3));
    Ok(with_newlines(text))
}

/// Text up to the next `<` or `&`.
pub(super) fn text<'a>(cursor: &mut Cursor<'a>) -> Result<Cow<'a, str>, Fault> {
    let start = cursor.offset();
    loop {
        cursor.eat_while(|next| !matches!(next, '<' | '&' | ']') && is_character(next));
        if cursor.starts_with("]]>") {
            return Err(cursor.fault("Sequence ']]>' not allowed in content"));
        }
        let here = *cursor;
        match cursor.next() {
            Some(']') => {}
            Some('<' | '&') | None => {
                *cursor = here;
                return Ok(with_newlines(cursor.since(start)));
            }
            Some(next) => return Err(here.fault(format!("PCDATA invalid Char value {}", u32::from(next)))),
        }
    }
}

fn attribute<'a>(cursor: &mut Cursor<'a>) -> Result<(Name<'a>, Cow<'a, str>), Fault> {
    let Some(name) = cursor.qualified_name()? else {
        return Err(cursor.fault("error parsing attribute name"));
    };
    cursor.eat_blanks();
    if !cursor.eat("=") {
        let name = name.local;
        return Err(cursor.fault(format!("Specification mandates value for attribute {name}")));
    }
    cursor.eat_blanks();
    Ok((name, attribute_value(cursor)?))
}

/// A quoted value: references replaced, each white-space character a space.
fn attribute_value<'a>(cursor: &mut Cursor<'a>) -> Result<Cow<'a, str>, Fault> {
    let quote = match cursor.byte() {
        Some(b'"') => '"',
        Some(b'\'') => '\'',
        _ => return Err(cursor.fault("AttValue: \" or ' expected")),
    };
    cursor.advance(1);
    let mut value = Cow::Borrowed("");
    loop {
        let plain = cursor.eat_while(|next| {
            next != quote && !matches!(next, '<' | '&' | '\t' | '\n' | '\r') && is_character(next)
        });
        if value.is_empty() {
            value = Cow::Borrowed(plain);
        } else {
            value.to_mut().push_str(plain);
        }
        let here = *cursor;
        match cursor.next() {
            Some(next) if next == quote => return Ok(value),
            Some('&') => {
                *cursor = here;
                value.to_mut().push(cursor.reference()?);
            }
            Some('\r') => {
                cursor.eat("\n");
                value.to_mut().push(' ');
            }
            Some('\t' | '\n') => value.to_mut().push(' '),
            Some('<') => return Err(here.fault("Unescaped '<' not allowed in attributes values")),
            Some(_) => return Err(here.fault("invalid character in attribute value")),
            None => return Err(cursor.truncated("AttValue: ' expected")),
        }
    }
}

/// The namespace that an attribute declares, unless it is one of the declarations that have no effect.
fn declaration<'a>(name: &Name<'a>, value: &str) -> Option<(&'a str, bool)> {
    let reserved = matches!(value, XML_NAMESPACE | XMLNS_NAMESPACE);
    match (name.prefix, name.local) {
        (None, "xmlns") => (!reserved).then_some(("", !value.is_empty())),
        (Some("xmlns"), "xml" | "xmlns") => None,
        (Some("xmlns"), prefix) => (!reserved && !value.is_empty()).then_some((prefix, true)),
        _ => None,
    }
}

/// An attribute that looks like a declaration. libxml2 drops those that it complains about.
fn is_idle_declaration(name: &Name<'_>) -> bool {
    matches!((name.prefix, name.local), (Some("xmlns"), _) | (None, "xmlns"))
}

fn at_tag_end(cursor: &Cursor<'_>) -> bool {
    cursor.starts_with(">") || cursor.starts_with("/>")
}

fn is_tag_character(next: char) -> bool {
    next >= ' ' || is_blank(next)
}

/// Line ends as XML has them: a line feed, whatever stood in the document.
fn with_newlines(text: &str) -> Cow<'_, str> {
    if text.contains('\r') {
        Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The first 50 bytes, or a few fewer, so as not to cut a character.
fn first_50(text: &str) -> &str {
    let end =
        text.char_indices().map(|(at, next)| at.saturating_add(next.len_utf8())).take_while(|end| *end <= 50);
    text.get(..end.last().unwrap_or(0)).unwrap_or_default()
}

const XML_NAMESPACE: &str = "http://www.w3.org/XML/1998/namespace";
const XMLNS_NAMESPACE: &str = "http://www.w3.org/2000/xmlns/";
