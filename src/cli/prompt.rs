//! Asks on the terminal: for a secret, without showing it; for a name, with what is typed to be seen.
//!
//! The terminal is read byte by byte into secret memory, with echo, line editing and signals off, so this file does
//! the little editing there is. rpassword, the usual crate, is not used: what is typed passes through its ordinary
//! `String`s, which grow and leave copies behind. Leans on rustix for the terminal's modes. Refuses to leave the
//! terminal changed: a guard puts it back on every way out.
//!
//! [`Terminal`] is who a connection can ask ([`Ask`]).

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use secrecy::{ExposeSecret, ExposeSecretMut};

use super::failure::Failure;
use super::output::harmless;
use crate::client::{Ask, Question};
use crate::memory::SecretBytes;
use crate::secret::{Error, MAX_VALUE};

/// Asks once. `Ok(None)`: there is no terminal to ask on.
pub(super) fn prompt(question: &str) -> Result<Option<SecretBytes>, Failure> {
    match Silenced::open() {
        Ok(mut terminal) => terminal.ask(question).map(Some),
        Err(_) => Ok(None),
    }
}

/// Asks for something new, twice, until both answers agree. `Ok(None)`: there is no terminal to ask on.
pub(super) fn prompt_twice(question: &str, again: &str) -> Result<Option<SecretBytes>, Failure> {
    let Ok(mut terminal) = Silenced::open() else { return Ok(None) };
    loop {
        let first = terminal.ask(question)?;
        let second = terminal.ask(again)?;
        if first.expose_secret() == second.expose_secret() {
            return Ok(Some(first));
        }
        terminal.write("They differ. Once more.\n")?;
    }
}

/// Asks a question that is no secret, until it is answered. Without a terminal the answer is no.
pub(super) fn yes_or_no(question: &str) -> Result<bool, Failure> {
    let failed = |error: io::Error| Failure::system("/dev/tty", &error);
    let Ok(mut device) = File::options().read(true).write(true).open("/dev/tty") else { return Ok(false) };
    loop {
        device.write_all(question.as_bytes()).map_err(failed)?;
        // In the terminal's own line mode: a read gives a line.
        let mut line = [0; 64];
        let len = device.read(&mut line).map_err(failed)?;
        match line[..len].trim_ascii().to_ascii_lowercase().as_slice() {
            b"y" | b"yes" => return Ok(true),
            b"n" | b"no" => return Ok(false),
            _ if len == 0 => return Err(Failure::Interrupted),
            _ => {}
        }
    }
}

/// Whoever sits at the controlling terminal, if there is one, for what a connection has to ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terminal;

impl Ask for Terminal {
    fn ask(&self, question: &Question) -> Option<SecretBytes> {
        let words = match &question.default {
            Some(default) => format!("{} [{default}]: ", question.prompt),
            None => format!("{}: ", question.prompt),
        };
        let words = harmless(&words); // a server may have chosen them
        let answer = match question.echo {
            true => ask_openly(&words).ok()?,
            false => prompt(&words).ok()??,
        };
        match &question.default {
            Some(default) if answer.is_empty() => SecretBytes::copy_of(default.as_bytes()).ok(),
            _ => Some(answer),
        }
    }
}

/// Asks for what may be seen: in the terminal's own line mode, where a read gives a line.
fn ask_openly(question: &str) -> io::Result<SecretBytes> {
    let mut device = File::options().read(true).write(true).open("/dev/tty")?;
    device.write_all(question.as_bytes())?;
    let mut line = SecretBytes::zeroed(LONGEST_LINE).map_err(io::Error::other)?;
    let len = device.read(line.expose_secret_mut())?;
    match line.expose_secret()[..len].strip_suffix(b"\n") {
        Some(answer) => SecretBytes::copy_of(answer).map_err(io::Error::other),
        None => Err(io::ErrorKind::UnexpectedEof.into()), // Ctrl-D: there is no answer
    }
}

/// The controlling terminal, silenced as long as this lives.
struct Silenced {
    device: File,
    before: Termios,
}

impl Silenced {
    fn open() -> io::Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&device)?;
        let mut silent = before.clone();
        silent.local_modes.remove(
            LocalModes::ICANON
                | LocalModes::ECHO
                | LocalModes::ECHONL
                | LocalModes::ISIG
                | LocalModes::IEXTEN,
        );
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&device, OptionalActions::Flush, &silent)?;
        Ok(Self { device, before })
    }

    fn ask(&mut self, question: &str) -> Result<SecretBytes, Failure> {
        self.write(question)?;
        let answer = edit_line(&mut self.device, MAX_VALUE);
        self.write("\n")?;
        answer.map_err(|ended| match ended {
            Ended::Interrupted => Failure::Interrupted,
            Ended::Closed => Failure::told("Failed to read secret"),
            Ended::TooLong => {
                Failure::told("Failed to read secret").because(Failure::told("the line is too long"))
            }
            Ended::Io(error) => {
                Failure::told("Failed to read secret").because(Failure::system("/dev/tty", &error))
            }
            Ended::NoMemory(error) => error.into(),
        })
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        self.device.write_all(text.as_bytes()).map_err(|error| Failure::system("/dev/tty", &error))
    }
}

impl Drop for Silenced {
    fn drop(&mut self) {
        _ = tcsetattr(&self.device, OptionalActions::Flush, &self.before);
    }
}

/// How a line ended without an answer.
#[derive(Debug)]
enum Ended {
    Interrupted,
    Closed,
    TooLong,
    Io(io::Error),
    NoMemory(Error),
}

/// Reads a line and edits it as it is typed. Each byte is read into its place in secret memory.
///
/// Enter ends the line, and so does Ctrl-D behind something typed; on an empty line Ctrl-D gives up. Backspace takes
/// back a character, Ctrl-U all of them. Every other byte belongs to the line.
fn edit_line(from: &mut impl Read, limit: usize) -> Result<SecretBytes, Ended> {
    let memory = |error| Ended::NoMemory(Error::from(error));
    let mut line = SecretBytes::zeroed(limit + 1).map_err(memory)?;
    let mut len = 0;
    loop {
        let bytes = line.expose_secret_mut();
        match from.read(&mut bytes[len..=len]) {
            Ok(0) if len == 0 => return Err(Ended::Closed),
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Ended::Io(error)),
        }
        match bytes[len] {
            b'\r' | b'\n' => break,
            CTRL_C => return Err(Ended::Interrupted),
            CTRL_D if len == 0 => return Err(Ended::Closed),
            CTRL_D => break,
            CTRL_U => len = 0,
            CTRL_H | DELETE => len = character_start(&bytes[..len]),
            _ if len == limit => return Err(Ended::TooLong),
            _ => len += 1,
        }
    }
    line.truncate(len);
    line.try_clone().map_err(memory)
}

/// Where the last character begins, in UTF-8.
fn character_start(bytes: &[u8]) -> usize {
    let continues = bytes.iter().rev().take_while(|byte| **byte & 0xC0 == 0x80).count();
    bytes.len().saturating_sub(continues + 1)
}

/// As long a line as a terminal gives.
const LONGEST_LINE: usize = 4096;

const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const CTRL_H: u8 = 0x08;
const CTRL_U: u8 = 0x15;
const DELETE: u8 = 0x7F;

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> Result<Vec<u8>, Ended> {
        edit_line(&mut &keys[..], 16).map(|line| line.expose_secret().to_vec())
    }

    #[test]
    fn a_line_is_what_was_typed_before_enter() {
        assert_eq!(typed(b"hello\nrest").unwrap(), b"hello");
        assert_eq!(typed(b"hello\r").unwrap(), b"hello");
        assert_eq!(typed(b"\n").unwrap(), b"");
        assert_eq!(typed(b"hel\x04").unwrap(), b"hel");
        assert_eq!(typed(b"hel").unwrap(), b"hel");
    }

    #[test]
    fn keys_that_edit() {
        assert_eq!(typed(b"ax\x7fb\n").unwrap(), b"ab");
        assert_eq!(typed(b"\x7f\x7fa\x08b\n").unwrap(), b"b");
        assert_eq!(typed(b"wrong\x15right\n").unwrap(), b"right");
        assert_eq!(typed("aé中\x7f\x7fb\n".as_bytes()).unwrap(), b"ab");
    }

    #[test]
    fn ways_out() {
        assert!(matches!(typed(b"abc\x03\n"), Err(Ended::Interrupted)));
        assert!(matches!(typed(b"\x04"), Err(Ended::Closed)));
        assert!(matches!(typed(b""), Err(Ended::Closed)));
        assert!(matches!(typed(b"12345678901234567\n"), Err(Ended::TooLong)));
        assert_eq!(typed(b"1234567890123456\n").unwrap().len(), 16);
    }
}
