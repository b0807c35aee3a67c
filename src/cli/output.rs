//! What a person sees: virsh's lines and tables on standard output, `error:` and `hint:` lines on standard error.
//!
//! Standard output is written unbuffered, straight to its descriptor, because std's own handle would keep a copy of
//! a value in ordinary memory. Leans on anstream, which colours standard error on a terminal only. Refuses to panic
//! when nobody reads: a closed pipe ends the command quietly, a full disk is an error like any other.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::os::fd::AsFd;

use clap::builder::styling::{AnsiColor, Style};
use secrecy::ExposeSecret;

use super::failure::Failure;
use crate::memory::SecretBytes;

/// Where a command's results go.
pub(crate) struct Output {
    quiet: bool,
    coloured: bool,
    out: Box<dyn Write>,
}

impl Output {
    /// Standard output. `quiet` leaves out what virsh leaves out under `-q`.
    pub(crate) fn new(quiet: bool) -> Self {
        let coloured = anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
        Self { quiet, coloured, out: Box::new(Stdout) }
    }

    /// Writes text: what was asked for.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// Writes text that `-q` leaves out: what is said about it.
    pub(crate) fn extra(&mut self, text: &str) -> Result<(), Failure> {
        if self.quiet { Ok(()) } else { self.text(text) }
    }

    /// Whether `-q` was given.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Writes a value, byte for byte, from secret memory to the descriptor.
    pub(crate) fn value(&mut self, value: &SecretBytes) -> Result<(), Failure> {
        self.bytes(value.expose_secret())
    }

    /// A table as virsh lays it out: columns as wide as their widest cell, a rule below the header. `-q` drops both.
    pub(crate) fn table<const N: usize>(
        &mut self,
        header: [&str; N],
        rows: &[[String; N]],
    ) -> Result<(), Failure> {
        let text = table_text(header, rows, self.quiet, locale_is_utf8());
        self.text(&text)
    }

    /// Names and what belongs to them, one pair a line, in two columns.
    pub(crate) fn fields(&mut self, fields: &[Field]) -> Result<(), Failure> {
        let text = fields_text(fields, locale_is_utf8(), self.coloured);
        self.text(&text)
    }

    /// The same, left out by `-q`.
    pub(crate) fn extra_fields(&mut self, fields: &[Field]) -> Result<(), Failure> {
        if self.quiet { Ok(()) } else { self.fields(fields) }
    }

    /// Lines that may hold what others have named; what can't be printed is shown as in tables.
    pub(crate) fn lines(&mut self, lines: &[String]) -> Result<(), Failure> {
        let utf8 = locale_is_utf8();
        lines.iter().try_for_each(|line| self.text(&format!("{}\n", visible(line, utf8))))
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Silent,
            _ => Failure::system("failed to write output", &error),
        })
    }
}

/// A name, and what belongs to it. A nameless one goes on where the one before ended.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) content: String,
    pub(crate) tone: Tone,
}

/// How a field reads at a glance.
#[derive(Clone, Copy)]
pub(crate) enum Tone {
    Plain,
    Good,
    Doubtful,
    Bad,
}

impl Field {
    /// A plain one.
    pub(crate) fn of(name: &'static str, content: impl ToString) -> Self {
        Self { name, content: content.to_string(), tone: Tone::Plain }
    }
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Doubtful => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
        }
    }
}

/// Tells a failure on standard error.
pub(crate) fn tell(failure: &Failure) {
    if let Failure::Told { lines, hint } = failure {
        for line in lines {
            say(AnsiColor::Red.on_default().bold(), ERROR, line);
        }
        if let Some(hint) = hint_of(hint.as_deref()) {
            say(AnsiColor::Cyan.on_default().bold(), HINT, hint);
        }
    }
}

/// Whoever has nothing to advise says nothing.
fn hint_of(hint: Option<&str>) -> Option<&str> {
    hint.filter(|hint| !hint.trim().is_empty())
}

/// Warns on standard error, and goes on.
pub(crate) fn warn(text: &str) {
    say(AnsiColor::Yellow.on_default().bold(), WARNING, text);
}

/// One line on standard error. Nobody can be told when that fails.
fn say(style: Style, kind: &str, text: &str) {
    _ = writeln!(anstream::stderr().lock(), "{style}{kind}:{style:#} {}", harmless(text));
}

/// The text without what would move a terminal about, or pass for a line of ours: some of it comes from servers, before they
/// have proved who they are.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (at, line) in text.replace("\r\n", "\n").split('\n').enumerate() {
        if at > 0 {
            let is_as_ours = [ERROR, WARNING, HINT].iter().any(|kind| line.trim_start().starts_with(kind));
            shown.push_str(if is_as_ours { "\n  | " } else { "\n" });
        }
        for character in line.chars() {
            match character {
                '\t' => shown.push(character),
                _ if character.is_control() => _ = write!(shown, "\\x{:02x}", u32::from(character)),
                _ => shown.push(character),
            }
        }
    }
    shown
}

/// What lines of ours begin with.
const ERROR: &str = "error";
const WARNING: &str = "warning";
const HINT: &str = "hint";

/// Standard output without a buffer.
struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stdout().as_fd(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn table_text<const N: usize>(header: [&str; N], rows: &[[String; N]], quiet: bool, utf8: bool) -> String {
    let visible = |cell: &str| visible(cell, utf8);
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| visible(cell))).collect();
    let header = header.map(visible);
    let mut widths = header.each_ref().map(|cell| width(cell));
    for row in &rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    let mut text = String::new();
    if !quiet {
        push_row(&mut text, &header, &widths);
        text.push_str(&"-".repeat(widths.iter().map(|width| width + GAP).sum()));
        text.push('\n');
    }
    for row in &rows {
        push_row(&mut text, row, &widths);
    }
    text
}

fn push_row(text: &mut String, row: &[String], widths: &[usize]) {
    for (index, (cell, widest)) in row.iter().zip(widths).enumerate() {
        text.push(' ');
        text.push_str(cell);
        if index + 1 < row.len() {
            text.push_str(&" ".repeat(widest - width(cell) + GAP - 1));
        }
    }
    text.push('\n');
}

/// A column takes its widest cell, a blank before it and two behind it.
const GAP: usize = 3;

fn fields_text(fields: &[Field], utf8: bool, coloured: bool) -> String {
    let widest = fields.iter().map(|field| width(field.name)).max().unwrap_or(0);
    let mut text = String::new();
    for Field { name, content, tone } in fields {
        let colon = if name.is_empty() { ' ' } else { ':' };
        let pad = " ".repeat(widest - width(name) + 2);
        let style = if coloured { tone.style() } else { Style::new() };
        _ = writeln!(text, "{name}{colon}{pad}{style}{}{style:#}", visible(content, utf8));
    }
    text
}

/// The text as virsh shows it in a table: what can't be printed, in this locale, as `\x0a`, byte for byte.
fn visible(cell: &str, utf8: bool) -> String {
    let mut text = String::with_capacity(cell.len());
    for character in cell.chars() {
        if !character.is_control() && (utf8 || character.is_ascii()) {
            text.push(character);
        } else {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text
}

/// How many columns of a terminal the text takes.
fn width(text: &str) -> usize {
    text.chars().map(|character| character_width(u32::from(character))).sum()
}

/// The C library's wcwidth in broad strokes: combining marks take none, East Asian characters and pictures two.
fn character_width(code: u32) -> usize {
    match code {
        0x300..=0x36F | 0x200B..=0x200F | 0xFE00..=0xFE0F => 0,
        0x1100..=0x115F
        | 0x2E80..=0x303E
        | 0x3041..=0xA4CF
        | 0xAC00..=0xD7A3
        | 0xF900..=0xFAFF
        | 0xFE30..=0xFE6F
        | 0xFF00..=0xFF60
        | 0xFFE0..=0xFFE6
        | 0x1_F300..=0x1_F64F
        | 0x1_F900..=0x1_F9FF
        | 0x2_0000..=0x3_FFFD => 2,
        _ => 1,
    }
}

/// Whether the locale's characters are UTF-8, by the variables that name it.
fn locale_is_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|locale| !locale.is_empty())
        .unwrap_or_default()
        .to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

#[cfg(test)]
impl Output {
    /// Output into a buffer that the test keeps.
    pub(crate) fn into(quiet: bool, buffer: &std::rc::Rc<std::cell::RefCell<Vec<u8>>>) -> Self {
        struct Shared(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.borrow_mut().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        Self { quiet, coloured: false, out: Box::new(Shared(std::rc::Rc::clone(buffer))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(uuid: &str, usage: &str) -> [String; 2] {
        [uuid.to_owned(), usage.to_owned()]
    }

    #[test]
    fn what_a_server_says_moves_no_terminal() {
        assert_eq!(harmless("a\u{1b}]0;b\u{7}\u{9b}2J\r\nc\td\r"), "a\\x1b]0;b\\x07\\x9b2J\nc\td\\x0d");
        assert_eq!(harmless("no\nhint: run this\n <a\n--^\n"), "no\n  | hint: run this\n <a\n--^\n");
    }

    #[test]
    fn there_is_no_empty_hint() {
        assert_eq!([None, Some(""), Some(" \n"), Some("x")].map(hint_of), [None, None, None, Some("x")]);
    }

    #[test]
    fn an_empty_table_is_virshs() {
        assert_eq!(table_text(["UUID", "Usage"], &[], false, true), " UUID   Usage\n---------------\n");
        assert_eq!(table_text(["UUID", "Usage"], &[], true, true), "");
    }

    #[test]
    fn a_table_is_virshs() {
        let rows = [
            row("3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234", "ceph a"),
            row("4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234", "Unused"),
        ];
        let expected = concat!(
            " UUID                                   Usage\n",
            "------------------------------------------------\n",
            " 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234   ceph a\n",
            " 4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234   Unused\n",
        );
        assert_eq!(table_text(["UUID", "Usage"], &rows, false, true), expected);
    }

    #[test]
    fn what_cannot_be_printed_is_shown_in_hex_and_counts_so() {
        let text = table_text(["A", "B"], &[row("hé中\n", "x")], false, true);
        assert_eq!(text, " A          B\n---------------\n hé中\\x0a   x\n");
        assert_eq!(visible("hé\t", false), "h\\xc3\\xa9\\x09");
    }

    #[test]
    fn fields_stand_in_two_columns() {
        let fields = [Field::of("Root", "/srv"), Field::of("Secrets", 2), Field::of("", "x")];
        assert_eq!(fields_text(&fields, true, true), "Root:     /srv\nSecrets:  2\n          x\n");
        let good = Field { tone: Tone::Good, ..Field::of("A", "b") };
        assert_eq!(fields_text(&[good], true, true), "A:  \x1b[32mb\x1b[0m\n");
    }
}
