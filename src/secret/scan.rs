//! A cursor over a document's text, with XML's smallest parts: characters, blanks, names, references.
//!
//! Leans on `fault`. Refuses what libxml2 refuses, in libxml2's words; where libxml2 merely complains (odd colons in
//! names), it agrees.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::fault::Fault;

/// A place in a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// An element's or attribute's name, split the way libxml2 splits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Name<'a> {
    pub(super) prefix: Option<&'a str>,
    pub(super) local: &'a str,
    /// Prefix, colon and local part as they stand in the document.
    pub(super) raw: &'a str,
}

impl<'a> Cursor<'a> {
    /// A cursor at an offset, which is a character's boundary.
    pub(super) fn at(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    pub(super) fn offset(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn starts_with(&self, token: &str) -> bool {
        self.rest().starts_with(token)
    }

    /// What has been passed since an earlier offset.
    pub(super) fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// A fault at the cursor.
    pub(super) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(self.at, message)
    }

    /// A fault at the end of the input.
    pub(super) fn truncated(&self, message: impl Into<String>) -> Fault {
        Fault::truncated(self.text.len(), message)
    }

    pub(super) fn advance(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes).min(self.text.len());
    }

    /// Passes a token if it stands here.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        let found = self.starts_with(token);
        if found {
            self.advance(token.len());
        }
        found
    }

    /// Passes the next character.
    pub(super) fn next(&mut self) -> Option<char> {
        let next = self.rest().chars().next()?;
        self.advance(next.len_utf8());
        Some(next)
    }

    /// Passes characters as long as they are wanted.
    pub(super) fn eat_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|next| !wanted(next)).unwrap_or(rest.len());
        self.advance(len);
        rest.get(..len).unwrap_or_default()
    }

    /// Passes white space, and says whether there was any.
    pub(super) fn eat_blanks(&mut self) -> bool {
        !self.eat_while(is_blank).is_empty()
    }

    /// A name that may hold colons: of a processing instruction, of an entity.
    pub(super) fn name(&mut self) -> Result<Option<&'a str>, Fault> {
        self.token("Name", |first| is_name_start(first) || first == ':', |next| is_name(next) || next == ':')
    }

    /// A name with at most one prefix. Colons in odd places become part of the local name.
    pub(super) fn qualified_name(&mut self) -> Result<Option<Name<'a>>, Fault> {
        let start = self.at;
        let Some(first) = self.plain_name()? else {
            let whole = if self.byte() == Some(b':') { self.name()? } else { None };
            return Ok(whole.map(|raw| Name { prefix: None, local: raw, raw }));
        };
        if !self.eat(":") {
            return Ok(Some(Name { prefix: None, local: first, raw: first }));
        }
        let second = self.at;
        if self.plain_name()?.is_none() {
            self.token("NmToken", |next| is_name(next) || next == ':', |next| is_name(next) || next == ':')?;
            let raw = self.since(start);
            return Ok(Some(Name { prefix: None, local: raw, raw }));
        }
        if self.eat(":") {
            self.name()?;
        }
        Ok(Some(Name { prefix: Some(first), local: self.since(second), raw: self.since(start) }))
    }

    /// A reference, at its `&`: the character that it stands for.
    pub(super) fn reference(&mut self) -> Result<char, Fault> {
        self.advance(1);
        if self.eat("#x") {
            self.character(16, "CharRef: invalid hexadecimal value")
        } else if self.eat("#") {
            self.character(10, "CharRef: invalid decimal value")
        } else {
            let Some(name) = self.name()? else { return Err(self.fault("xmlParseEntityRef: no name")) };
            if !self.eat(";") {
                return Err(self.fault("EntityRef: expecting ';'"));
            }
            match name {
                "lt" => Ok('<'),
                "gt" => Ok('>'),
                "amp" => Ok('&'),
                "quot" => Ok('"'),
                "apos" => Ok('\''),
                _ => Err(self.fault(format!("Entity '{name}' not defined"))),
            }
        }
    }

    fn character(&mut self, radix: u32, no_digit: &'static str) -> Result<char, Fault> {
        let mut value: u32 = 0;
        while !self.eat(";") {
            let digit = self.byte().and_then(|byte| char::from(byte).to_digit(radix));
            let Some(digit) = digit else { return Err(self.fault(no_digit)) };
            value = value.saturating_mul(radix).saturating_add(digit);
            self.advance(1);
        }
        match char::from_u32(value) {
            Some(character) if is_character(character) => Ok(character),
            _ if value > u32::from(char::MAX) => {
                Err(self.fault("xmlParseCharRef: character reference out of bounds"))
            }
            _ => Err(self.fault(format!("xmlParseCharRef: invalid xmlChar value {value}"))),
        }
    }

    /// A name without colons.
    fn plain_name(&mut self) -> Result<Option<&'a str>, Fault> {
        self.token("NCName", is_name_start, is_name)
    }

    fn token(
        &mut self,
        kind: &'static str,
        first: impl Fn(char) -> bool,
        more: impl Fn(char) -> bool,
    ) -> Result<Option<&'a str>, Fault> {
        if !self.rest().starts_with(first) {
            return Ok(None);
        }
        let token = self.eat_while(more);
        if token.len() > LONGEST_NAME {
            Err(self.fault(format!("Name too long: {kind}")))
        } else {
            Ok(Some(token))
        }
    }
}

/// White space, as XML has it.
pub(super) fn is_blank(next: char) -> bool {
    matches!(next, ' ' | '\t' | '\n' | '\r')
}

/// A character that XML 1.0 allows (production 2).
pub(super) fn is_character(next: char) -> bool {
    matches!(next, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

/// A character that begins a name (production 4, without the colon).
fn is_name_start(next: char) -> bool {
    matches!(next,
        'A'..='Z' | 'a'..='z' | '_'
        | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}' | '\u{370}'..='\u{37D}'
        | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}' | '\u{2070}'..='\u{218F}'
        | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}'
        | '\u{FDF0}'..='\u{FFFD}' | '\u{10000}'..='\u{EFFFF}')
}

/// A character inside a name (production 4a, without the colon).
fn is_name(next: char) -> bool {
    is_name_start(next)
        || matches!(next, '0'..='9' | '-' | '.' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}

/// libxml2's limit (XML_MAX_NAME_LENGTH), in bytes.
const LONGEST_NAME: usize = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_at_their_first_colon_if_at_all() {
        let cases = [
            ("a", None, "a"),
            ("x:a", Some("x"), "a"),
            (":a", None, ":a"),
            ("a:", None, "a:"),
            ("a:1", None, "a:1"),
            ("x:a:b", Some("x"), "a:b"),
            ("x:a:", Some("x"), "a:"),
            ("é·.-1", None, "é·.-1"),
        ];
        for (text, prefix, local) in cases {
            let name = Cursor::at(text, 0).qualified_name().unwrap().unwrap();
            assert_eq!((name.prefix, name.local, name.raw), (prefix, local, text));
        }
        for text in ["", "1", "-a", "·", "×", "<"] {
            assert_eq!(Cursor::at(text, 0).qualified_name(), Ok(None), "{text}");
        }
    }

    #[test]
    fn references_are_one_character() {
        let cases = [
            ("&lt;", '<'),
            ("&#65;", 'A'),
            ("&#x41;", 'A'),
            ("&#x1F600;", '😀'),
            ("&#000065;", 'A'),
            ("&#9;", '\t'),
        ];
        for (text, character) in cases {
            assert_eq!(Cursor::at(text, 0).reference(), Ok(character));
        }
    }
}
