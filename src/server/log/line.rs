//! One event of the log, and how it is written: as a line of libvirt's, for syslog, for the journal.
//!
//! Leans on tracing for the event. Refuses to let its text out as it came: control characters are escaped, so that
//! no client can forge a line or steer a terminal, and a long text is cut, so that none fills the disk.

use std::fmt::{self, Write};
use std::time::SystemTime;

use tracing::field::{Field, Visit};

use super::filters::Level;
use crate::clock;

/// What is logged once.
#[derive(Debug)]
pub(super) struct Line {
    time: SystemTime,
    thread: i32,
    pub(super) level: Level,
    /// The module and the line that log; none for what the log says of itself.
    source: Option<(String, u32)>,
    /// Escaped, and not too long.
    text: String,
}

impl Line {
    /// An event's.
    pub(super) fn of(event: &tracing::Event<'_>, level: Level) -> Self {
        let metadata = event.metadata();
        let mut text = Text::default();
        event.record(&mut text);
        let source = Some((metadata.target().to_owned(), metadata.line().unwrap_or_default()));
        Self { source, ..Self::own(level, text.0) }
    }

    /// One of the log's own.
    pub(super) fn own(level: Level, text: String) -> Self {
        let thread = rustix::thread::gettid().as_raw_pid();
        Self { time: SystemTime::now(), thread, level, source: None, text }
    }

    /// What it says, and no more.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Like libvirt's, with its end: `2026-11-21 23:24:28.106+0000: 4711: error : target:12 : text`.
    pub(super) fn with_time(&self) -> String {
        format!("{}: {}\n", clock::timestamp(self.time), self.without_time())
    }

    /// The same for syslog, which knows the time.
    fn without_time(&self) -> String {
        let (thread, level, text) = (self.thread, self.level.name(), &self.text);
        match &self.source {
            Some((target, line)) => format!("{thread}: {level} : {target}:{line} : {text}"),
            None => format!("{thread}: {level} : {text}"),
        }
    }

    /// A datagram for syslog.
    pub(super) fn for_syslog(&self, identity: &str) -> String {
        const DAEMON: u8 = 3 << 3;
        let (priority, process) = (DAEMON | self.level.syslog(), std::process::id());
        format!("<{priority}>{identity}[{process}]: {}", self.without_time())
    }

    /// A datagram for the journal: one field a line, none of which can have an end of line in it.
    pub(super) fn for_journal(&self, identity: &str) -> String {
        let (priority, thread, text) = (self.level.syslog(), self.thread, &self.text);
        let mut fields =
            format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER={identity}\nTID={thread}\nMESSAGE={text}\n");
        if let Some((target, line)) = &self.source {
            _ = write!(fields, "TARGET={target}\nCODE_LINE={line}\n");
        }
        fields
    }
}

/// An event's message, and its fields behind it as `name=value`.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut bounded = Bounded(&mut self.0);
        // It fails when the text is full.
        _ = match field.name() {
            "message" => write!(bounded, "{value:?}"),
            name => write!(bounded, " {name}={value:?}"),
        };
    }
}

/// Escapes what it takes, up to the limit.
struct Bounded<'a>(&'a mut String);

impl Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.0.len() >= MAX_TEXT {
                if !self.0.ends_with('…') {
                    self.0.push('…');
                }
                return Err(fmt::Error);
            }
            match character {
                character if is_harmful(character) => self.0.extend(character.escape_default()),
                character => self.0.push(character),
            }
        }
        Ok(())
    }
}

/// Ends a line, steers a terminal, or turns the text around it.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// What of a text is kept, in bytes.
const MAX_TEXT: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    fn bounded(text: &str) -> String {
        let mut kept = String::new();
        _ = Bounded(&mut kept).write_str(text);
        kept
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            bounded("a\nb\r\t\x1b[0m\0\u{85}\u{2028}\u{202e}"),
            "a\\nb\\r\\t\\u{1b}[0m\\u{0}\\u{85}\\u{2028}\\u{202e}"
        );
        assert_eq!(bounded("grüße 密"), "grüße 密");
    }

    #[test]
    fn long_texts_are_cut() {
        let cut = bounded(&"x".repeat(MAX_TEXT * 2));
        assert_eq!(cut.len(), MAX_TEXT + '…'.len_utf8());
        assert_eq!(bounded(&"x".repeat(MAX_TEXT)).len(), MAX_TEXT);
        let mut twice = cut.clone();
        _ = write!(Bounded(&mut twice), " field=1");
        assert_eq!(twice, cut);
    }

    #[test]
    fn each_output_has_its_form() {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_500);
        let source = Some(("strongroom::server".to_owned(), 7));
        let line = Line { time, thread: 12, level: Level::Error, source, text: "no".to_owned() };
        assert_eq!(line.with_time(), "1970-01-01 00:00:01.500+0000: 12: error : strongroom::server:7 : no\n");
        let process = std::process::id();
        assert_eq!(
            line.for_syslog("me"),
            format!("<27>me[{process}]: 12: error : strongroom::server:7 : no")
        );
        assert_eq!(
            line.for_journal("me"),
            "PRIORITY=3\nSYSLOG_IDENTIFIER=me\nTID=12\nMESSAGE=no\nTARGET=strongroom::server\nCODE_LINE=7\n"
        );
        let own = Line { source: None, ..line };
        assert_eq!(own.with_time(), "1970-01-01 00:00:01.500+0000: 12: error : no\n");
    }
}
