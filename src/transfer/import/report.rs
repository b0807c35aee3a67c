//! What an import tells: a row for each secret, and a summary.
//!
//! Plain data. Names secrets by UUID and usage; refuses to hold a value.

use ::uuid::Uuid;

use crate::secret::Error;

/// One secret of the directory, or one file that belongs to none, and what came of it.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The secret's UUID, or the file's name.
    pub name: String,
    /// Which secret.
    pub uuid: Option<Uuid>,
    /// What it is for, in words, if its definition can be read.
    pub usage: Option<String>,
    /// What came of it; of a dry run, what would.
    pub outcome: Outcome,
    /// What is with the files that it came from.
    pub originals: Originals,
    /// What else there is to know, or to do.
    pub hint: Option<String>,
}

/// What came of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is in the keystore now.
    Added,
    /// It was there already, just like this.
    AlreadyThere,
    /// The keystore has another definition or value of this UUID, and keeps that.
    Differs,
    /// Another secret has its usage, and keeps it.
    UsageTaken(Uuid),
    /// Its definition or its value can't be read.
    Unreadable,
    /// Its value is encrypted, and no key was given.
    NoKey,
    /// Its definition says that it belongs on no disk.
    Ephemeral,
    /// The keystore didn't take it, or didn't give it back as it was.
    Refused,
    /// No secret: a file that libvirt doesn't look at either.
    Stray,
}

impl Outcome {
    /// In a word or two, for a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "imported",
            Self::AlreadyThere => "already there",
            Self::Differs => "differs",
            Self::UsageTaken(_) => "usage taken",
            Self::Unreadable => "unreadable",
            Self::NoKey => "no key",
            Self::Ephemeral => "ephemeral",
            Self::Refused => "refused",
            Self::Stray => "no secret",
        }
    }

    /// Whether the keystore has the secret now.
    pub fn is_in(self) -> bool {
        matches!(self, Self::Added | Self::AlreadyThere)
    }
}

/// What is with the files that a secret came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Originals {
    /// They are as they were.
    Kept,
    /// Overwritten and removed.
    Removed,
    /// They were to be removed, and not all could be. The hint says why.
    Left,
}

/// What an import came to.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Secrets that are in the keystore now.
    pub added: usize,
    /// Those that were there already.
    pub already_there: usize,
    /// Those of which the keystore has, and keeps, another version.
    pub differs: usize,
    /// Those whose usage another secret has.
    pub usage_taken: usize,
    /// Those that can't be read.
    pub unreadable: usize,
    /// Those that are encrypted, without a key.
    pub no_key: usize,
    /// Those that belong on no disk.
    pub ephemeral: usize,
    /// Those that the keystore didn't take.
    pub refused: usize,
    /// Files that belong to no secret.
    pub strays: usize,
    /// Secrets whose originals are gone.
    pub removed: usize,
    /// Secrets whose originals should be gone, and are not.
    pub left: usize,
    /// How the key did, if there was something to try it on.
    pub key: Option<KeyTrial>,
    /// Files left in the directory with a value, or what may be one, in plain text.
    pub plain_left: usize,
    /// The directory's mode, if others than its owner can look into it.
    pub loose_directory: Option<u32>,
}

impl Summary {
    /// Whether every secret of the directory is in the keystore.
    pub fn is_complete(&self) -> bool {
        self.differs + self.usage_taken + self.unreadable + self.no_key + self.ephemeral + self.refused == 0
    }

    pub(super) fn count(&mut self, row: &Imported) {
        let counter = match row.outcome {
            Outcome::Added => &mut self.added,
            Outcome::AlreadyThere => &mut self.already_there,
            Outcome::Differs => &mut self.differs,
            Outcome::UsageTaken(_) => &mut self.usage_taken,
            Outcome::Unreadable => &mut self.unreadable,
            Outcome::NoKey => &mut self.no_key,
            Outcome::Ephemeral => &mut self.ephemeral,
            Outcome::Refused => &mut self.refused,
            Outcome::Stray => &mut self.strays,
        };
        *counter += 1;
        self.removed += usize::from(row.originals == Originals::Removed);
        self.left += usize::from(row.originals == Originals::Left);
    }
}

/// How a key did on the encrypted values. Nothing but their padding tells a wrong one, and padding can be right by
/// chance: of one value in 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTrial {
    /// Values that it opened.
    pub opened: usize,
    /// Values that it was tried on. Those that are damaged in other ways don't count.
    pub tried: usize,
}

impl KeyTrial {
    /// A wrong key would have done as well in one of so many cases; `None`: in practice never. Values can be looked at one
    /// by one where this number is small.
    pub fn one_in(self) -> Option<u64> {
        let opened = u32::try_from(self.opened).ok().filter(|opened| *opened < 4)?;
        // So many ways there are to choose those that opened.
        let ways = (0..u64::from(opened))
            .fold(1, |ways, chosen| ways * (self.tried as u64).saturating_sub(chosen) / (chosen + 1));
        Some(256_u64.pow(opened) / ways.max(1))
    }

    /// Why values that it opened may be rubbish all the same.
    pub(super) fn doubt(self) -> Option<&'static str> {
        match self.one_in() {
            Some(_) => Some(TOO_FEW),
            None => (self.opened < self.tried).then_some(NOT_ALL),
        }
    }

    /// Whether it is most likely a wrong one: it opened half of them or less.
    pub(super) fn failed(self) -> bool {
        self.tried > 0 && self.opened * 2 <= self.tried
    }

    pub(super) fn error(self) -> Error {
        let Self { opened, tried } = self;
        Error::failed(format!("the key is wrong: it opens {opened} of {tried} encrypted values; nothing was imported"))
            .advise("name the file that libvirt's setting secrets_encryption_key names, or that its credential came from; if the values are damaged indeed, move their files elsewhere first")
    }
}

impl Imported {
    pub(super) fn of(uuid: Uuid) -> Self {
        Self {
            name: uuid.to_string(),
            uuid: Some(uuid),
            usage: None,
            outcome: Outcome::Unreadable,
            originals: Originals::Kept,
            hint: None,
        }
    }

    pub(super) fn stray(file: &str, hint: &str) -> Self {
        Self {
            name: file.to_owned(),
            uuid: None,
            usage: None,
            outcome: Outcome::Stray,
            originals: Originals::Kept,
            hint: Some(hint.to_owned()),
        }
    }

    pub(super) fn add_hint(&mut self, hint: impl Into<String>) {
        let hint = hint.into();
        self.hint = Some(match self.hint.take() {
            Some(before) => format!("{before}; {hint}"),
            None => hint,
        });
    }
}

pub(super) const MISNAMED: &str = "the name is no UUID as libvirt writes it; libvirt doesn't read this file";
pub(super) const UNFINISHED: &str = "a write that was cut short; libvirt doesn't read this file";
pub(super) const UNFINISHED_VALUE: &str = "a write that was cut short; libvirt doesn't read this file, but it may hold a value in plain text: destroy it with shred -u";
pub(super) const TAKEN_OUT: &str = "a value that an earlier import was removing, and no definition with it; it is removed with --remove-originals if the keystore has it";
pub(super) const TAKEN_OUT_AND_LEFT: &str =
    "a value that an earlier import was removing, and no definition with it; it is left:";
pub(super) const NO_DEFINITION: &str = "a value without a definition; libvirt doesn't read this file";

const TOO_FEW: &str = "so few values are encrypted that a wrong key could have opened them by chance, and their originals are kept; look at one in the keystore, and if it is right, import again with --trust-key";
const NOT_ALL: &str = "the key doesn't open every encrypted value, so that some may be of another key and have opened by chance, and their originals are kept; look at this one in the keystore, and if it is right, import again with --trust-key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_judged_by_how_often_chance_would_do_as_well() {
        let trial = |opened, tried| KeyTrial { opened, tried };
        assert_eq!(trial(1, 1).one_in(), Some(256));
        assert_eq!(trial(2, 2).one_in(), Some(65_536));
        assert_eq!(trial(2, 3).one_in(), Some(65_536 / 3));
        assert_eq!(trial(3, 3).one_in(), Some(1 << 24));
        assert_eq!(trial(3, 5).one_in(), Some((1 << 24) / 10));
        assert_eq!(trial(4, 4).one_in(), None);
        for wrong in [trial(0, 1), trial(1, 2), trial(0, 500), trial(2, 500), trial(250, 500)] {
            assert!(wrong.failed(), "{wrong:?}");
        }
        for doubtful in [trial(1, 1), trial(3, 3), trial(2, 3), trial(499, 500)] {
            assert!(doubtful.doubt().is_some(), "{doubtful:?}");
        }
        assert_eq!(trial(4, 4).doubt(), None);
        for right in [trial(0, 0), trial(1, 1), trial(2, 3), trial(499, 500)] {
            assert!(!right.failed(), "{right:?}");
        }
    }
}
