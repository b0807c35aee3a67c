//! What is wrong with a store, one finding each: what opening and `verify` report.
//!
//! Leans on serde for `verify --json`. Names secrets by UUID, never by value; refuses to guess at what can't be known.

use ::uuid::Uuid;
use serde::{Deserialize, Deserializer, Serialize};

/// One thing that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[non_exhaustive]
pub enum Finding {
    /// The keyring's seal doesn't hold, though a slot still opened.
    KeyringDamaged,
    /// A stretch of the log doesn't prove itself. Secrets written there are lost, unless a later record has them.
    LogDamaged {
        /// Where it begins.
        from: u64,
        /// Where it ends.
        to: u64,
        /// Records that the commit behind it covers.
        expected: usize,
        /// Records found in it all the same.
        found: usize,
    },
    /// Bytes behind the last commit: a write that was never acknowledged, or damage to the very last one.
    TornTail {
        /// Where the tail begins.
        from: u64,
        /// How many bytes it has up to its last that is not zero.
        len: u64,
        /// The secrets that it was about, as far as that can be told.
        #[serde(serialize_with = "as_strings", deserialize_with = "from_strings")]
        secrets: Vec<Uuid>,
        /// The file in `etc/secrets` that keeps the bytes.
        kept_as: Option<String>,
    },
    /// The log ends before a commit that this host has seen, though it was acknowledged.
    RolledBack {
        /// The last commit in the log.
        generation: u64,
        /// The last commit that was seen.
        seen: u64,
    },
    /// The anchor in `run/secrets` doesn't read: rollback can't be noticed until the next write.
    AnchorUnreadable,
    /// A secret's definition doesn't open.
    DefinitionDamaged {
        /// Which secret.
        #[serde(serialize_with = "as_string", deserialize_with = "from_string")]
        uuid: Uuid,
    },
    /// A secret's value doesn't open.
    ValueDamaged {
        /// Which secret.
        #[serde(serialize_with = "as_string", deserialize_with = "from_string")]
        uuid: Uuid,
    },
    /// A secret's `.xml` copy was missing or wrong.
    CopyDiffers {
        /// Which secret.
        #[serde(serialize_with = "as_string", deserialize_with = "from_string")]
        uuid: Uuid,
        /// Whether it was written anew.
        rebuilt: bool,
    },
    /// A backup's file ends too early.
    BackupCut {
        /// How long it should be.
        expected: u64,
        /// How long it is.
        len: u64,
    },
    /// A part of a backup is damaged. What is lost by that is named apart; parts that a backup has twice cost nothing.
    BackupDamaged {
        /// Which part.
        part: String,
    },
    /// A secret in a backup is lost.
    BackupRecordLost {
        /// Which secret.
        #[serde(serialize_with = "as_string", deserialize_with = "from_string")]
        uuid: Uuid,
        /// What it was for, in words.
        usage: Option<String>,
    },
    /// Secrets in a backup are lost, and with them what says whose they were.
    BackupRecordsUnnamed {
        /// How many.
        count: u64,
    },
    /// A record in a backup that its table of contents doesn't have: it was put there from elsewhere, and isn't taken.
    BackupRecordStray {
        /// Its secret.
        #[serde(serialize_with = "as_string", deserialize_with = "from_string")]
        uuid: Uuid,
    },
    /// A file that doesn't belong to the store.
    Orphan {
        /// Its name in `etc/secrets`.
        file: String,
    },
}

impl Finding {
    /// Whether something is lost or in doubt; the rest is a note.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::AnchorUnreadable | Self::CopyDiffers { .. } | Self::Orphan { .. })
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::KeyringDamaged => {
                f.write_str("keyring: damaged (its seal doesn't hold), but a slot still opened")
            }
            Self::LogDamaged { from, to, expected, found } => write!(
                f,
                "secrets.log: damaged between bytes {from} and {to}; of {} records there, {found} can still be told",
                expected.max(found)
            ),
            Self::TornTail { from, len, secrets, kept_as } => {
                let what = match kept_as {
                    Some(_) => "an unfinished write",
                    None => "a damaged write",
                };
                write!(f, "secrets.log: {len} bytes behind the last good commit, at byte {from}: {what}")?;
                if !secrets.is_empty() {
                    let secrets: Vec<String> = secrets.iter().map(Uuid::to_string).collect();
                    write!(f, " of {}", secrets.join(", "))?;
                }
                match kept_as {
                    Some(file) => write!(f, " (kept as {file})"),
                    None => Ok(()),
                }
            }
            Self::RolledBack { generation, seen } => write!(
                f,
                "secrets.log: rolled back: it ends at generation {generation}, but {seen} was acknowledged on this host"
            ),
            Self::AnchorUnreadable => {
                f.write_str("anchor: doesn't read; rollback can't be noticed until the next write")
            }
            Self::DefinitionDamaged { uuid } => write!(f, "secret {uuid}: its definition is damaged"),
            Self::ValueDamaged { uuid } => write!(f, "secret {uuid}: its value is damaged"),
            Self::CopyDiffers { uuid, rebuilt: true } => {
                write!(f, "{uuid}.xml: missing or wrong, written anew")
            }
            Self::CopyDiffers { uuid, rebuilt: false } => write!(f, "{uuid}.xml: missing or wrong"),
            Self::BackupCut { expected, len } => {
                write!(f, "backup: cut off: {len} of its {expected} bytes are there")
            }
            Self::BackupDamaged { part } => write!(f, "backup: {part}: damaged"),
            Self::BackupRecordLost { uuid, usage: None } => write!(f, "secret {uuid}: lost"),
            Self::BackupRecordLost { uuid, usage: Some(usage) } => write!(f, "secret {uuid} ({usage}): lost"),
            Self::BackupRecordsUnnamed { count } => {
                write!(f, "backup: {count} secrets are lost, and what named them too")
            }
            Self::BackupRecordStray { uuid } => {
                write!(
                    f,
                    "secret {uuid}: its record is not in the backup's table of contents, and isn't taken"
                )
            }
            Self::Orphan { file } if ASIDE.iter().any(|part| file.contains(part)) => {
                write!(
                    f,
                    "{file}: set aside by a repair or in a restore; it can be removed when it isn't needed any more"
                )
            }
            Self::Orphan { file } if file.starts_with("secrets.log.torn-") => {
                write!(f, "{file}: an unfinished write, set aside earlier; nothing in it was confirmed")
            }
            Self::Orphan { file } if file.starts_with("keyring.replaced-") => {
                write!(f, "{file}: an earlier keyring, set aside when another one was put in its place")
            }
            Self::Orphan { file } if LIBVIRTS.iter().any(|suffix| file.ends_with(suffix)) => {
                write!(f, "{file}: a value that libvirt's own driver left; it is kept, and not served")
            }
            Self::Orphan { file } => write!(f, "{file}: belongs to no secret here"),
        }
    }
}

/// What is in the names of files that a repair or a restore set aside.
const ASIDE: [&str; 3] = [".damaged-", ".replaced-", ".xml.lost"];

/// The ends of libvirt's value files.
const LIBVIRTS: [&str; 2] = [".base64", ".aes256cbc"];

pub(super) fn as_string<S: serde::Serializer>(uuid: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(uuid)
}

fn as_strings<S: serde::Serializer>(uuids: &[Uuid], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(uuids.iter().map(Uuid::to_string))
}

pub(super) fn from_string<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

fn from_strings<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Uuid>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}
