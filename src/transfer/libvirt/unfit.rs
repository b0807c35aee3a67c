//! Why a file in a libvirt directory gives no secret.
//!
//! Leans on nothing but `secret`'s errors. Refuses to quote what is in a value file.

use std::fmt;
use std::io;

use ::uuid::Uuid;

use crate::memory::Exhausted;
use crate::secret::{Error, MAX_VALUE};

/// What is wrong with a file.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// It can't be read.
    Io(io::Error),
    /// A link, a pipe, a directory.
    NoFile,
    /// Longer than libvirt reads.
    TooLarge(u64),
    /// The document is none of a secret.
    Document(Error),
    /// The document is of another secret than the file's name says.
    OtherUuid(Uuid),
    /// A value that libvirt loads, and can't give to anybody.
    TooLong,
    /// It isn't empty, and holds nothing.
    Nothing,
    /// No length that an encrypted value can have.
    Length(usize),
    /// It doesn't open with the key.
    DoesNotOpen,
    /// It is encrypted, and there is no key.
    NoKey,
    /// A value, and another one than it was to be.
    OtherValue,
    /// It can't go; why.
    Stays(String),
    /// An import that was cut short had begun to destroy it.
    Overwritten,
    /// No secret memory is left for it: nothing is wrong with the file.
    Memory(Exhausted),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "can't be read: {error}"),
            Self::NoFile => f.write_str("is no regular file"),
            Self::TooLarge(len) => write!(f, "has {len} bytes; libvirt reads no more than {MAX_FILE}"),
            Self::Document(error) => write!(f, "can't be read: {}", first_line(&error.to_string())),
            Self::OtherUuid(uuid) => write!(f, "is the definition of another secret, {uuid}"),
            Self::TooLong => {
                write!(
                    f,
                    "holds more than {MAX_VALUE} bytes; libvirt itself can't give such a value to anybody"
                )
            }
            Self::Nothing => f.write_str("is not empty, but no value can be read from it"),
            Self::Length(len) => write!(f, "is damaged: {len} bytes are no encrypted value"),
            Self::DoesNotOpen => f.write_str("doesn't open with this key: it is damaged, or of another key"),
            Self::NoKey => f.write_str("is encrypted, and no key was given"),
            Self::Stays(why) => f.write_str(why),
            Self::OtherValue => f.write_str("holds another value than the keystore"),
            Self::Overwritten => f.write_str("is overwritten in part, by an import that was removing it"),
            Self::Memory(exhausted) => exhausted.fmt(f),
        }
    }
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Exhausted> for Unfit {
    fn from(exhausted: Exhausted) -> Self {
        Self::Memory(exhausted)
    }
}

/// A parser's message goes on with the line that it is about.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The longest file that libvirt reads, in bytes.
pub(super) const MAX_FILE: u64 = 10 << 20;
