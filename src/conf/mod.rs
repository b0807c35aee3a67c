//! libvirt's configuration grammar: `key = value` by lines, as all its `*.conf` files have it.
//!
//! Values are integers, strings in quotes (no escapes; `"""` spans lines) and lists. Leans on nothing. Refuses what
//! libvirt refuses, at the same line and in the same words, and besides: numbers beyond 64 bits, text that isn't UTF-8,
//! NUL in a string, lists more than 32 deep, files above 10 MB. Of a key that is given twice the first value holds.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod grammar;

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A configuration file, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    file: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    key: String,
    line: u32,
    value: Value,
}

/// What stands behind the `=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `5`, `-1`: what fits in 64 bits, with a sign or without.
    Integer(i128),
    /// `"text"`, `'text'`, or `"""text"""` over several lines.
    String(String),
    /// `[ "a", "b" ]`, and lists in lists.
    List(Vec<Self>),
}

/// Why a configuration file can't be used. Shows libvirt's text, which names the file; the advice names the line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ConfError {
    /// libvirt's number for it: 33 bad syntax, 1 a wrong value, 67 an unsupported one, 38 a file that can't be read.
    pub code: i32,
    /// The file.
    pub file: PathBuf,
    /// The line, where there is one.
    pub line: Option<u32>,
    /// The key, where there is one.
    pub key: Option<String>,
    /// What is wrong, for people and for scripts that match on it.
    pub text: String,
    /// What to write instead.
    pub advice: String,
}

impl Conf {
    /// A file with nothing in it.
    pub fn empty(file: &Path) -> Self {
        Self { file: file.into(), entries: Vec::new() }
    }

    /// Reads a file; `Ok(None)` if there is none.
    pub fn read(file: &Path) -> Result<Option<Self>, ConfError> {
        let mut text = Vec::new();
        let read =
            File::open(file).and_then(|open| open.take(LARGEST.saturating_add(1)).read_to_end(&mut text));
        match read {
            Ok(_) => Self::parse(file, &text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Self::empty(file).mistake(
                SYSTEM_ERROR,
                format!("cannot read the configuration file '{}': {error}", file.display()),
                "make it a file that this user can read, or name another one with --config",
            )),
        }
    }

    /// Reads a file's bytes. `file` is for errors only.
    pub fn parse(file: &Path, text: &[u8]) -> Result<Self, ConfError> {
        if u64::try_from(text.len()).is_ok_and(|len| len <= LARGEST) {
            return Ok(Self { file: file.into(), entries: grammar::parse(file, text)? });
        }
        let what = format!("the configuration file '{}' is larger than {LARGEST} bytes", file.display());
        Err(Self::empty(file).mistake(SYSTEM_ERROR, what, "name the right file"))
    }

    /// The file's path.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// All keys with their values, in order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|entry| (&*entry.key, &entry.value))
    }

    /// The line on which a key gets the value that holds.
    pub fn line(&self, key: &str) -> Option<u32> {
        self.entry(key).map(|entry| entry.line)
    }

    /// A string. `None` if the key isn't there, here and below.
    pub fn string(&self, key: &str) -> Result<Option<&str>, ConfError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        match &entry.value {
            Value::String(text) => Ok(Some(text)),
            _ => Err(self.expected(entry, "a string", "\"…\"")),
        }
    }

    /// A signed number of 32 bits. `default`: for the hint, here and below.
    pub fn integer(&self, key: &str, default: i32) -> Result<Option<i32>, ConfError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        let Value::Integer(number) = entry.value else {
            return Err(self.expected(entry, "a signed integer", &the_default(default)));
        };
        let range = || self.out_of_range(entry, number, &format!("in range {}:{}", i32::MIN, i32::MAX));
        i32::try_from(number).map(Some).map_err(|_| range())
    }

    /// A number of 32 bits, not negative.
    pub fn unsigned(&self, key: &str, default: u32) -> Result<Option<u32>, ConfError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        let Value::Integer(number @ 0..) = entry.value else {
            return Err(self.expected(entry, "an unsigned integer", &the_default(default)));
        };
        let range = || self.out_of_range(entry, number, &format!("in range 0:{}", u32::MAX));
        u32::try_from(number).map(Some).map_err(|_| range())
    }

    /// 0 or 1.
    pub fn boolean(&self, key: &str, default: bool) -> Result<Option<bool>, ConfError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        match entry.value {
            Value::Integer(0) => Ok(Some(false)),
            Value::Integer(1) => Ok(Some(true)),
            Value::Integer(number) => Err(self.out_of_range(entry, number, "0 or 1")),
            _ => Err(self.expected(entry, "a bool", &the_default(u8::from(default)))),
        }
    }

    /// A list of strings.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<&str>>, ConfError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        let wrong = || self.expected(entry, "a string list", "[ \"…\", \"…\" ]");
        let Value::List(items) = &entry.value else { return Err(wrong()) };
        let texts: Option<Vec<&str>> = items.iter().map(Value::text).collect();
        // libvirt calls a wrong item bad syntax, and words it as a wrong type.
        let bad_item =
            || ConfError { code: CONF_SYNTAX, text: format!("{SYNTAX}{}", wrong().text), ..wrong() };
        texts.map(Some).ok_or_else(bad_item)
    }

    /// A path that doesn't depend on where the program was started.
    pub fn path(&self, key: &str) -> Result<Option<PathBuf>, ConfError> {
        self.string(key)?.map(|path| self.whole(key, path)).transpose()
    }

    /// A list of such paths.
    pub fn paths(&self, key: &str) -> Result<Option<Vec<PathBuf>>, ConfError> {
        let Some(list) = self.strings(key)? else { return Ok(None) };
        list.into_iter().map(|path| self.whole(key, path)).collect::<Result<_, _>>().map(Some)
    }

    fn whole(&self, key: &str, path: &str) -> Result<PathBuf, ConfError> {
        if path.starts_with('/') {
            return Ok(path.into());
        }
        let text = format!("{}: the path '{path}' of {key} is not absolute", self.file.display());
        Err(self.wrong(key, INTERNAL_ERROR, text, "write the whole path, from / on"))
    }

    /// The keys that aren't among these, with their lines.
    pub fn unknown<'a>(&'a self, known: &'a [&str]) -> impl Iterator<Item = (&'a str, u32)> {
        let unknown = self.entries.iter().filter(|entry| !known.contains(&&*entry.key));
        unknown.map(|entry| (&*entry.key, entry.line))
    }

    /// What is given once more, to no effect: the key, its line, and the line that holds.
    pub fn repeated(&self) -> impl Iterator<Item = (&str, u32, u32)> {
        let mut first = HashMap::new();
        self.entries.iter().filter_map(move |entry| match first.entry(&*entry.key) {
            Vacant(place) => {
                place.insert(entry.line);
                None
            }
            Occupied(holds) => Some((&*entry.key, entry.line, *holds.get())),
        })
    }

    /// An error about a key's value. `advice` follows `line 3: `, or stands alone if the key isn't in the file.
    pub fn wrong(&self, key: &str, code: i32, text: impl Into<String>, advice: &str) -> ConfError {
        let line = self.line(key);
        let advice = match line {
            Some(line) => format!("line {line}: {advice}"),
            None => advice.to_owned(),
        };
        ConfError { line, key: Some(key.to_owned()), ..self.mistake(code, text, &advice) }
    }

    /// An error about the whole file.
    pub fn mistake(&self, code: i32, text: impl Into<String>, advice: &str) -> ConfError {
        let (text, advice) = (text.into(), advice.to_owned());
        ConfError { code, file: self.file.clone(), line: None, key: None, text, advice }
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    fn expected(&self, entry: &Entry, what: &str, example: &str) -> ConfError {
        let key = &entry.key;
        let text = format!("{}: expected {what} for '{key}' parameter", self.file.display());
        self.wrong(
            key,
            INTERNAL_ERROR,
            text,
            &format!("{} stands there; write {key} = {example}", entry.value.kind()),
        )
    }

    fn out_of_range(&self, entry: &Entry, number: i128, range: &str) -> ConfError {
        let key = &entry.key;
        let text = format!("{}: value for '{key}' parameter must be {range}", self.file.display());
        self.wrong(
            key,
            INTERNAL_ERROR,
            text,
            &format!("{number} stands there; write a number that is {range}"),
        )
    }
}

/// What an operator who is told to write something else most likely wants.
fn the_default(value: impl std::fmt::Display) -> String {
    format!("{value}, which is the default")
}

impl Value {
    fn text(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Integer(0..) => "an integer",
            Self::Integer(_) => "a negative integer",
            Self::String(_) => "a string",
            Self::List(_) => "a list",
        }
    }
}

/// The known key that was probably meant: at most two letters away.
pub fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    nearest_within(2, key, known)
}

/// The same, with no more than so many letters that are wrong.
pub(crate) fn nearest_within<'a>(letters: usize, key: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = known.iter().filter(|known| known.len().abs_diff(key.len()) <= letters);
    let distances = near.map(|known| (distance(key, known), *known));
    distances.filter(|(distance, _)| *distance <= letters).min().map(|(_, known)| known)
}

/// How many letters must be changed, added or taken away (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (number, letter) in from.bytes().enumerate() {
        let mut left = number.saturating_add(1);
        let mut corner = std::mem::replace(row.first_mut().unwrap_or(&mut 0), left);
        for (other, cell) in to.bytes().zip(row.iter_mut().skip(1)) {
            let changed = corner.saturating_add(usize::from(other != letter));
            corner = *cell;
            left = changed.min(left.min(corner).saturating_add(1));
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// libvirt's numbers of the errors that files can cause.
pub const INTERNAL_ERROR: i32 = 1;
/// See [`INTERNAL_ERROR`].
pub const CONF_SYNTAX: i32 = 33;
/// See [`INTERNAL_ERROR`].
pub const SYSTEM_ERROR: i32 = 38;
/// See [`INTERNAL_ERROR`].
pub const CONFIG_UNSUPPORTED: i32 = 67;

const SYNTAX: &str = "configuration file syntax error: ";

/// In bytes, as libvirt has it.
const LARGEST: u64 = 10 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Conf {
        Conf::parse(Path::new("a.conf"), text.as_bytes()).unwrap()
    }

    #[test]
    fn values_come_out_by_their_type() {
        let conf = conf("n = -1\nu = 7\nb = 1\ns = 'x'\nl = [ 'x', \"y\" ]\nn = 9\n");
        assert_eq!(conf.integer("n", -1).unwrap(), Some(-1), "the first holds");
        assert_eq!(conf.unsigned("u", 20).unwrap(), Some(7));
        assert_eq!(conf.boolean("b", true).unwrap(), Some(true));
        assert_eq!(conf.string("s").unwrap(), Some("x"));
        assert_eq!(conf.strings("l").unwrap(), Some(vec!["x", "y"]));
        assert_eq!(conf.string("none").unwrap(), None);
        assert_eq!(conf.strings("none").unwrap(), None);
    }

    /// The texts are those of libvirt 9.0.
    #[test]
    fn a_wrong_type_is_told_in_libvirts_words_with_line_and_key() {
        let conf = conf(
            "\n\ns = 1\ni = '1'\nm = -1\nb = 2\nbig = 4294967296\nl = 'x'\nlow = -2147483649\nlist = [ 1 ]\n",
        );
        let of = |error: ConfError| (error.line.unwrap(), error.key.unwrap(), error.code, error.text);
        let is = |line: u32, key: &str, text: &str| (line, key.to_owned(), 1, format!("a.conf: {text}"));
        assert_eq!(of(conf.string("s").unwrap_err()), is(3, "s", "expected a string for 's' parameter"));
        assert_eq!(
            of(conf.integer("i", -1).unwrap_err()),
            is(4, "i", "expected a signed integer for 'i' parameter")
        );
        assert_eq!(
            of(conf.unsigned("m", 20).unwrap_err()),
            is(5, "m", "expected an unsigned integer for 'm' parameter")
        );
        assert_eq!(
            of(conf.boolean("b", true).unwrap_err()),
            is(6, "b", "value for 'b' parameter must be 0 or 1")
        );
        assert_eq!(of(conf.boolean("i", true).unwrap_err()), is(4, "i", "expected a bool for 'i' parameter"));
        let range = "value for 'big' parameter must be in range 0:4294967295";
        assert_eq!(of(conf.unsigned("big", 20).unwrap_err()), is(7, "big", range));
        assert_eq!(
            of(conf.strings("l").unwrap_err()),
            is(8, "l", "expected a string list for 'l' parameter")
        );
        let range = "value for 'low' parameter must be in range -2147483648:2147483647";
        assert_eq!(of(conf.integer("low", -1).unwrap_err()), is(9, "low", range));
        let item = conf.strings("list").unwrap_err();
        assert_eq!(item.code, CONF_SYNTAX);
        assert_eq!(
            item.to_string(),
            "configuration file syntax error: a.conf: expected a string list for 'list' parameter"
        );
        let advice = |error: ConfError| error.advice;
        assert_eq!(advice(conf.string("s").unwrap_err()), "line 3: an integer stands there; write s = \"…\"");
        for (error, hint) in [
            (
                conf.integer("i", -1).unwrap_err(),
                "4: a string stands there; write i = -1, which is the default",
            ),
            (
                conf.unsigned("m", 20).unwrap_err(),
                "5: a negative integer stands there; write m = 20, which is the default",
            ),
            (
                conf.boolean("i", true).unwrap_err(),
                "4: a string stands there; write i = 1, which is the default",
            ),
        ] {
            assert_eq!(advice(error), format!("line {hint}"));
        }
    }

    #[test]
    fn a_misspelt_key_and_a_repeated_one_are_found() {
        let conf = conf("max_client = 1\nmax_clients = 2\nfoo = 3\nmax_clients = 4; max_clients = 5");
        let known = ["max_clients", "min_workers", "max_workers"];
        assert_eq!(conf.unknown(&known).collect::<Vec<_>>(), [("max_client", 1), ("foo", 3)]);
        let repeated: Vec<_> = conf.repeated().collect();
        assert_eq!(repeated, [("max_clients", 4, 2), ("max_clients", 4, 2)]);
        assert_eq!(nearest("max_client", &known), Some("max_clients"));
        assert_eq!(nearest("mxa_workers", &known), Some("max_workers"));
        assert_eq!(nearest("foo", &known), None);
        assert_eq!(nearest("", &["ab"]), Some("ab"));
        for (from, to, steps) in
            [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0)]
        {
            assert_eq!(distance(from, to), steps, "{from} to {to}");
        }
    }

    #[test]
    fn only_a_missing_file_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.conf");
        assert_eq!(Conf::read(&file), Ok(None));
        std::fs::write(&file, "a = 1\n").unwrap();
        assert_eq!(Conf::read(&file).unwrap().unwrap().unsigned("a", 20), Ok(Some(1)));
        let error = Conf::read(directory.path()).unwrap_err();
        assert!(error.text.starts_with("cannot read the configuration file '/"), "{error}");
        std::fs::write(&file, vec![b' '; (10 << 20) + 1]).unwrap();
        assert!(Conf::read(&file).unwrap_err().text.contains("is larger than 10485760 bytes"));
    }
}
