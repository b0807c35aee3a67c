//! Values read from files, pipes and descriptors, straight into secret memory.
//!
//! Every read(2) lands in a [`SecretBytes`]; base64 is undone in place there. Leans on std's `File`, which has no
//! buffer of its own. Refuses what can't be a value: more than 65,536 bytes, and base64 that holds nothing.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, RawFd};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, ExposeSecretMut};

use super::failure::Failure;
use crate::memory::{SecretBytes, scrubbed};
use crate::secret::{Base64, Error, MAX_VALUE};

/// The most of a base64 file that is read: room for the largest value in lines of any width from 4 up. One less than
/// a power of two, because one byte more is asked for to see that there is none.
const MAX_TEXT: usize = 2 * MAX_VALUE - 1;

/// The longest passphrase or recovery key.
const MAX_LINE: usize = 4_095;

/// The largest XML file that virsh reads.
const MAX_XML: u64 = 10 << 20;

/// Reads a value from the file of this name; `-` is standard input. `plain`: the file holds the value itself.
pub(super) fn value_from_file(name: &OsStr, plain: bool) -> Result<SecretBytes, Failure> {
    let mut file = open(name)?;
    let limit = if plain { MAX_VALUE } else { MAX_TEXT };
    let content = read_up_to(&mut file, limit).map_err(|error| error.told(&name.display().to_string()))?;
    if plain { Ok(content) } else { from_base64(content) }
}

/// Reads a value from standard input as it is.
pub(super) fn value_from_stdin() -> Result<SecretBytes, Failure> {
    let mut stdin = open(OsStr::new("-"))?;
    read_up_to(&mut stdin, MAX_VALUE).map_err(|error| error.told("-"))
}

/// The value behind base64 as GLib reads it: see [`decode`]. Base64 that holds nothing is refused as libvirt 12.8
/// does; no text at all is left to the keystore to refuse, in its words.
pub(super) fn from_base64(mut text: SecretBytes) -> Result<SecretBytes, Failure> {
    let len = scrubbed(|| decode(text.expose_secret_mut()));
    match (text.len(), len) {
        (1.., 0) => Err(Failure::told("Secret value is not valid base64")),
        (_, len) if len > MAX_VALUE => {
            Err(Failure::told("Failed to set secret value").because(Error::value_too_long(len)))
        }
        _ => {
            text.truncate(len);
            Ok(text.try_clone().map_err(Error::from)?) // its own block, of its own size: it may live long
        }
    }
}

/// The value in base64, as it is shown.
pub(super) fn to_base64(value: &SecretBytes) -> Result<SecretBytes, Failure> {
    let mut text = SecretBytes::zeroed(value.len().div_ceil(3) * 4).map_err(Error::from)?;
    match scrubbed(|| STANDARD.encode_slice(value.expose_secret(), text.expose_secret_mut())) {
        Ok(len) => text.truncate(len),
        Err(_) => return Err(Failure::told("the value does not fit its base64 form")),
    }
    Ok(text)
}

/// One line from an open descriptor, without its end, for a passphrase. Read byte by byte, so that what follows in a pipe
/// stays there for others. The descriptor is opened anew through /proc: a file is read from its start, a socket not at all.
pub(super) fn line_from_descriptor(number: RawFd) -> Result<SecretBytes, Failure> {
    let failed = |error| Failure::system(format_args!("Failed to read file descriptor '{number}'"), &error);
    let mut file = match number {
        0 => stdin(),
        _ => File::open(format!("/proc/self/fd/{number}")),
    }
    .map_err(failed)?;
    read_line(&mut file, MAX_LINE).map_err(|error| error.told_as(failed))
}

/// The first line of a file, without its end, for a passphrase.
pub(super) fn line_from_file(name: &Path) -> Result<SecretBytes, Failure> {
    let mut file = open(name.as_os_str())?;
    let failed = |error| Failure::system(format_args!("Failed to read file '{}'", name.display()), &error);
    read_line(&mut file, MAX_LINE).map_err(|error| error.told_as(failed))
}

/// One line from standard input, without its end.
pub(super) fn line_from_stdin(limit: usize) -> Result<SecretBytes, Failure> {
    let failed =
        |error| Failure::told("Failed to read secret").because(Failure::system("standard input", &error));
    let mut file = stdin().map_err(failed)?;
    read_line(&mut file, limit).map_err(|error| error.told_as(failed))
}

/// An XML file, up to the 10 MiB that virsh reads. No secret: definitions are public beside values.
pub(super) fn xml_from_file(name: &OsStr) -> Result<Vec<u8>, Failure> {
    let file = open(name)?;
    let shown = name.display().to_string();
    let mut content = Vec::new();
    file.take(MAX_XML + 1).read_to_end(&mut content).map_err(|error| Unread::Io(error).told(&shown))?;
    if content.len() as u64 > MAX_XML {
        return Err(Failure::system(format_args!("Failed to read file '{shown}'"), &too_large()));
    }
    Ok(content)
}

/// Why bytes could not be had.
#[derive(Debug)]
enum Unread {
    Io(io::Error),
    TooLong,
    NoMemory(Error),
}

impl Unread {
    /// In libvirt's words for files.
    fn told(self, name: &str) -> Failure {
        let too_long = matches!(self, Self::TooLong);
        let failure =
            self.told_as(|error| Failure::system(format_args!("Failed to read file '{name}'"), &error));
        if too_long { failure.advise(format!("a value has at most {MAX_VALUE} bytes")) } else { failure }
    }

    fn told_as(self, told: impl Fn(io::Error) -> Failure) -> Failure {
        match self {
            Self::Io(error) => told(error),
            Self::TooLong => told(too_large()),
            Self::NoMemory(error) => error.into(),
        }
    }
}

/// "Value too large for defined data type": what libvirt says of a file that is longer than it reads.
fn too_large() -> io::Error {
    rustix::io::Errno::OVERFLOW.into()
}

fn open(name: &OsStr) -> Result<File, Failure> {
    if name == "-" { stdin() } else { File::open(name) }
        .map_err(|error| Failure::system(format_args!("Failed to open file '{}'", name.display()), &error))
}

/// Standard input without std's buffer.
fn stdin() -> io::Result<File> {
    io::stdin().as_fd().try_clone_to_owned().map(File::from)
}

/// All there is, if it is no more than `limit`.
fn read_up_to(from: &mut impl Read, limit: usize) -> Result<SecretBytes, Unread> {
    let memory = |error| Unread::NoMemory(Error::from(error));
    let mut buffer = SecretBytes::zeroed(limit + 1).map_err(memory)?;
    let mut len = 0;
    while len <= limit {
        match from.read(&mut buffer.expose_secret_mut()[len..]) {
            Ok(0) => {
                buffer.truncate(len);
                return buffer.try_clone().map_err(memory);
            }
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Unread::Io(error)),
        }
    }
    Err(Unread::TooLong)
}

/// The bytes up to a newline or the end.
fn read_line(from: &mut impl Read, limit: usize) -> Result<SecretBytes, Unread> {
    let mut line = SecretBytes::zeroed(limit + 1).map_err(|error| Unread::NoMemory(error.into()))?;
    let mut len = 0;
    while len <= limit {
        match from.read(&mut line.expose_secret_mut()[len..=len]) {
            Ok(1) if line.expose_secret()[len] != b'\n' => len += 1,
            Ok(_) => {
                line.truncate(len);
                return line.try_clone().map_err(|error| Unread::NoMemory(error.into()));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Unread::Io(error)),
        }
    }
    Err(Unread::TooLong)
}

/// Undoes base64 in place, as leniently as GLib, and returns how many bytes there are. What is read is never behind what is
/// written.
fn decode(bytes: &mut [u8]) -> usize {
    let (mut reader, mut written) = (Base64::default(), 0);
    for index in 0..bytes.len() {
        for byte in reader.take(bytes[index]) {
            bytes[written] = byte;
            written += 1;
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What virsh 9.0 with a libvirtd 9.0 stored for each of these files.
    #[test]
    fn base64_is_read_as_glib_reads_it() {
        for (text, value) in [
            ("aGVsbG8=", "hello"),
            ("aGVsbG8=\n", "hello"),
            ("aGVsbG8", "hel"),
            ("aGVs!bG8=", "hello"),
            ("aGVsbG8=x", "hello"),
            ("aGVsbG8=aGVs", "hellohel"),
            ("aG=Vs", "h\u{15}"),
            ("aG==", "h"),
            ("YQ==YQ==", "aa"),
            ("====", "\0"),
            ("aGVs-_bG8=", "hello"),
            ("Y===", "`"),
            ("YWI=c=", "ab"),
            ("", ""),
        ] {
            let value_read = from_base64(SecretBytes::copy_of(text.as_bytes()).unwrap()).unwrap();
            assert_eq!(value_read.expose_secret(), value.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn base64_that_holds_nothing_is_refused() {
        for text in ["!!", "a", "=", "\n"] {
            let refused = from_base64(SecretBytes::copy_of(text.as_bytes()).unwrap());
            assert_eq!(refused.unwrap_err(), Failure::told("Secret value is not valid base64"), "{text:?}");
        }
    }

    #[test]
    fn base64_goes_round() {
        for len in [1, 2, 3, 1000, MAX_VALUE] {
            let value = SecretBytes::copy_of(&vec![0xA5; len]).unwrap();
            let back = from_base64(to_base64(&value).unwrap()).unwrap();
            assert_eq!(back.expose_secret(), value.expose_secret(), "{len}");
        }
    }

    #[test]
    fn reading_stops_at_the_limit() {
        assert_eq!(read_up_to(&mut &[7; 10][..], 10).unwrap().len(), 10);
        assert!(matches!(read_up_to(&mut &[7; 11][..], 10), Err(Unread::TooLong)));
    }

    #[test]
    fn a_line_leaves_the_rest_unread() {
        let mut from = &b"first\nsecond"[..];
        assert_eq!(read_line(&mut from, 100).unwrap().expose_secret(), b"first");
        assert_eq!(from, b"second");
        assert_eq!(read_line(&mut from, 100).unwrap().expose_secret(), b"second");
    }
}
