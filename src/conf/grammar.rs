//! The grammar itself: bytes become keys and values.
//!
//! A cursor that goes forward once. Leans on nothing. Refuses at the line where libvirt's own reader stops, in its words;
//! what it refuses beyond them is said in the room's head.

use std::path::Path;

use super::{CONF_SYNTAX, ConfError, Entry, SYNTAX, Value};

pub(super) fn parse(file: &Path, text: &[u8]) -> Result<Vec<Entry>, ConfError> {
    let mut reader = Reader { file, rest: text, line: 1, key: None };
    let mut entries = Vec::new();
    while !reader.rest.is_empty() {
        reader.skip(is_space);
        if reader.peek() != Some(b'#') {
            entries.push(reader.statement()?);
        }
        reader.end_statement()?;
    }
    Ok(entries)
}

struct Reader<'a> {
    file: &'a Path,
    rest: &'a [u8],
    line: u32,
    /// The key whose value is being read.
    key: Option<&'a str>,
}

impl<'a> Reader<'a> {
    /// `name = value`
    fn statement(&mut self) -> Result<Entry, ConfError> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_alphabetic()) {
            return Err(self.refuse("expecting a name"));
        }
        let line = self.line;
        let key = self.skip(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let key = str::from_utf8(key).unwrap_or_default(); // it is ASCII
        self.key = Some(key);
        self.skip(is_blank);
        if self.peek() != Some(b'=') {
            return Err(self.refuse("expecting an assignment"));
        }
        self.step();
        self.skip(is_blank);
        let value = self.value(0)?;
        Ok(Entry { key: key.to_owned(), line, value })
    }

    /// A comment if there is one, then the end of the line, `;`, or the end of the file.
    fn end_statement(&mut self) -> Result<(), ConfError> {
        self.skip(is_blank);
        if self.peek() == Some(b'#') {
            self.skip(|byte| !is_line_end(byte));
        }
        match self.peek() {
            Some(b';' | b'\n' | b'\r') => self.step(),
            Some(_) => return Err(self.refuse("expecting a separator")),
            None => {}
        }
        self.skip(is_space);
        self.key = None;
        Ok(())
    }

    fn value(&mut self, depth: u32) -> Result<Value, ConfError> {
        match self.peek() {
            Some(b'"') if self.rest.starts_with(TRIPLE) => self.long_string(),
            Some(quote @ (b'"' | b'\'')) => self.string(quote),
            Some(b'+' | b'-' | b'0'..=b'9') => self.integer(),
            Some(b'[') => self.list(depth),
            _ => Err(self.refuse("expecting a value")),
        }
    }

    fn string(&mut self, quote: u8) -> Result<Value, ConfError> {
        self.step();
        let text = self.skip(|byte| byte != quote && !is_line_end(byte));
        if self.peek() != Some(quote) {
            return Err(self.refuse("unterminated string"));
        }
        let value = self.text(text)?;
        self.step();
        Ok(value)
    }

    fn long_string(&mut self) -> Result<Value, ConfError> {
        let begin = self.line;
        self.advance(TRIPLE.len());
        let Some(len) = self.rest.windows(TRIPLE.len()).position(|three| three == TRIPLE) else {
            self.advance(self.rest.len().saturating_sub(2)); // where libvirt stops counting lines
            let advice = format!("line {begin}: the string that begins there has no closing \"\"\"");
            return Err(ConfError { advice, ..self.refuse("unterminated string") });
        };
        let text = self.advance(len);
        let value = self.text(text)?;
        self.advance(TRIPLE.len());
        Ok(value)
    }

    fn text(&self, bytes: &[u8]) -> Result<Value, ConfError> {
        let text = str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
        text.map(|text| Value::String(text.to_owned())).ok_or_else(|| self.refuse("string is not UTF-8 text"))
    }

    fn integer(&mut self) -> Result<Value, ConfError> {
        let from = self.rest;
        if matches!(self.peek(), Some(b'+' | b'-')) {
            self.step();
        }
        if self.skip(|byte| byte.is_ascii_digit()).is_empty() {
            return Err(self.refuse("unterminated number"));
        }
        let text = from.get(..from.len().saturating_sub(self.rest.len())).unwrap_or_default();
        let number = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        let fits = |number: &i128| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(number);
        number.filter(fits).map(Value::Integer).ok_or_else(|| self.refuse("number is too large"))
    }

    fn list(&mut self, depth: u32) -> Result<Value, ConfError> {
        if depth >= DEEPEST {
            return Err(self.refuse("lists are nested too deep"));
        }
        let mut items = Vec::new();
        self.step();
        self.skip(is_space);
        let mut more = self.peek().is_some();
        while more && self.peek() != Some(b']') {
            items.push(self.value(depth.saturating_add(1))?);
            self.skip(is_space);
            more = self.peek() == Some(b',');
            if more {
                self.step();
                self.skip(is_space);
            }
        }
        match self.peek() {
            Some(b']') => self.step(),
            Some(_) => return Err(self.refuse("expecting a separator in list")),
            None => return Err(self.refuse("list is not closed with ]")),
        }
        Ok(Value::List(items))
    }

    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn step(&mut self) {
        self.advance(1);
    }

    /// Goes over the bytes of this kind, and gives them.
    fn skip(&mut self, kind: impl Fn(u8) -> bool) -> &'a [u8] {
        let len = self.rest.iter().position(|&byte| !kind(byte));
        self.advance(len.unwrap_or(self.rest.len()))
    }

    fn advance(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(len).unwrap_or((self.rest, &[]));
        let lines = taken.iter().filter(|&&byte| byte == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.rest = rest;
        taken
    }

    fn refuse(&self, what: &str) -> ConfError {
        let advice = match what {
            "expecting a name" => "a setting is written key = value; a comment begins with #",
            "expecting an assignment" => {
                "a key is letters, digits and _, and = stands behind it on the same line"
            }
            "expecting a value" => {
                "numbers stand bare, texts in quotes, lists in [ ]; yes and no are 1 and 0"
            }
            "expecting a separator" => {
                "one setting a line, nothing behind its value; \" can't stand inside \"…\""
            }
            "expecting a separator in list" => "put commas between the items, and no comments",
            "unterminated string" => "close the quotes on the same line, or use \"\"\"…\"\"\"",
            "list is not closed with ]" => "close the list with ]",
            "unterminated number" => "digits must follow the sign",
            "number is too large" => "a number has 64 bits at most",
            "lists are nested too deep" => "no setting needs lists in lists",
            _ => "save the file as UTF-8, without NUL",
        };
        ConfError {
            code: CONF_SYNTAX,
            file: self.file.into(),
            line: Some(self.line),
            key: self.key.map(str::to_owned),
            text: format!("{SYNTAX}{}:{}: {what}", self.file.display(), self.line),
            advice: format!("line {}: {advice}", self.line),
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn is_space(byte: u8) -> bool {
    is_blank(byte) || is_line_end(byte)
}

const TRIPLE: &[u8] = b"\"\"\"";

/// How deep lists may be nested.
const DEEPEST: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: impl AsRef<[u8]>) -> String {
        let error = parse(Path::new("f"), text.as_ref()).unwrap_err();
        assert_eq!((error.code, error.file.as_path()), (CONF_SYNTAX, Path::new("f")));
        assert_eq!(error.text, error.to_string());
        error.text.strip_prefix("configuration file syntax error: f:").unwrap().to_owned()
    }

    fn keys(text: &str) -> Vec<(String, u32)> {
        parse(Path::new("f"), text.as_bytes())
            .unwrap()
            .into_iter()
            .map(|entry| (entry.key, entry.line))
            .collect()
    }

    fn value(text: &str) -> Value {
        let entries = parse(Path::new("f"), format!("a={text}").as_bytes()).unwrap();
        assert_eq!(entries.len(), 1, "{text}");
        entries.into_iter().next().unwrap().value
    }

    #[test]
    fn statements_end_at_a_line_end_or_a_semicolon() {
        assert_eq!(keys(""), []);
        assert_eq!(keys("#c\n \n"), []);
        assert_eq!(keys("\n  #c"), []);
        let two = [("a".to_owned(), 1), ("b_2".to_owned(), 1)];
        for text in ["a=1;b_2=2", "\ta =\t1 ; b_2 = 2;", "a=1\rb_2=2#c", "a=1;#c\r b_2=2 "] {
            assert_eq!(keys(text), two, "{text:?}");
        }
        let lines = "# head\r\n\r\na = [\n1 ,\n2\n]\nb = \"\"\"x\n\ny\"\"\" # c\n\nc = 1";
        assert_eq!(keys(lines), [("a".to_owned(), 3), ("b".to_owned(), 7), ("c".to_owned(), 11)]);
    }

    #[test]
    fn strings_have_no_escapes() {
        let string = |text: &str| Value::String(text.to_owned());
        assert_eq!(value(r#"'a\"b'"#), string(r#"a\"b"#));
        assert_eq!(value(r#""a\'b\""#), string(r"a\'b\"));
        assert_eq!(value("\"\""), string(""));
        assert_eq!(value("\"\"\"a\"b\"\"\n'c\"\"\""), string("a\"b\"\"\n'c"));
        assert_eq!(value("\"\"\"\"\"\""), string(""));
        assert_eq!(value("'é\t'"), string("é\t"));
    }

    #[test]
    fn numbers_have_64_bits() {
        for (text, number) in [
            ("+1", 1),
            ("-0", 0),
            ("007", 7),
            ("18446744073709551615", i128::from(u64::MAX)),
            ("-9223372036854775808", i128::from(i64::MIN)),
        ] {
            assert_eq!(value(text), Value::Integer(number));
        }
        for text in ["18446744073709551616", "-9223372036854775809", &"9".repeat(1000)] {
            assert_eq!(refused(format!("a={text}")), "1: number is too large");
        }
    }

    #[test]
    fn lists_nest_and_may_end_in_a_comma() {
        let list = |items: &[Value]| Value::List(items.to_vec());
        let (one, text) = (Value::Integer(1), Value::String("x".into()));
        assert_eq!(value("[]"), list(&[]));
        assert_eq!(value("[\n1\r,'x',\n]"), list(&[one.clone(), text.clone()]));
        assert_eq!(value("[[1],['x',]]"), list(&[list(&[one]), list(&[text])]));
        assert!(parse(Path::new("f"), format!("a={}{}", "[".repeat(32), "]".repeat(32)).as_bytes()).is_ok());
        assert_eq!(refused(format!("a={}", "[".repeat(100_000))), "1: lists are nested too deep");
    }

    /// Each as libvirt 9.0 has it, line and words.
    #[test]
    fn bad_syntax_is_refused_where_libvirt_refuses_it() {
        for (text, expected) in [
            (" ", "1: expecting a name"),
            (" \n", "2: expecting a name"),
            (";a=1", "1: expecting a name"),
            ("a=1;;b=2", "1: expecting a name"),
            ("a=1\n;", "2: expecting a name"),
            ("_a=1", "1: expecting a name"),
            ("\u{FEFF}a=1", "1: expecting a name"),
            ("#c\r\n\r\nx", "3: expecting an assignment"),
            ("\r\rx", "1: expecting an assignment"),
            ("a\n=1", "1: expecting an assignment"),
            ("a.b=1", "1: expecting an assignment"),
            ("a=", "1: expecting a value"),
            ("a=\n1", "1: expecting a value"),
            ("a=yes", "1: expecting a value"),
            ("a=[,]", "1: expecting a value"),
            ("a=[1,,]", "1: expecting a value"),
            ("a=[\"\"\"x\ny\"\"\",\n!]", "3: expecting a value"),
            ("a=1 b=2", "1: expecting a separator"),
            ("a=0x10", "1: expecting a separator"),
            ("a=5k", "1: expecting a separator"),
            ("a='b' 'c'", "1: expecting a separator"),
            ("a='''x'''", "1: expecting a separator"),
            ("a=1\x0B", "1: expecting a separator"),
            ("a=\"\"\"abcd\"\"\"\"\"", "1: expecting a separator"),
            ("a=[1 2]", "1: expecting a separator in list"),
            ("a=[1,\n\n2 3]", "3: expecting a separator in list"),
            ("a=[1 #c\n]", "1: expecting a separator in list"),
            ("a=[\"x\"\"y\"]", "1: expecting a separator in list"),
            ("a='x", "1: unterminated string"),
            ("a=\"x\n\"", "1: unterminated string"),
            ("a=\"x\ry\"", "1: unterminated string"),
            ("a=[\n\"x\n]", "2: unterminated string"),
            ("a=\"\"\"xxxxxxxx\n\nb=1", "3: unterminated string"),
            ("a=[1,2", "1: list is not closed with ]"),
            ("a=[", "1: list is not closed with ]"),
            ("a=[1\n", "2: list is not closed with ]"),
            ("a=[1,\n", "2: expecting a value"),
            ("a=-", "1: unterminated number"),
            ("a=+-1", "1: unterminated number"),
        ] {
            assert_eq!(refused(text), expected, "{text:?}");
        }
        assert_eq!(refused(b"a='\xFF'"), "1: string is not UTF-8 text");
        assert_eq!(refused("a='x\0'"), "1: string is not UTF-8 text");
        let error = parse(Path::new("f"), b"\na=\"\"\"x\n\nyz").unwrap_err();
        assert_eq!((error.line, error.key.as_deref()), (Some(4), Some("a")));
        assert_eq!(error.advice, "line 2: the string that begins there has no closing \"\"\"");
    }
}
