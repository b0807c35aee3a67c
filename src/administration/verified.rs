//! What checking a keystore, and repairing it, came to.
//!
//! Plain data; leans on serde for JSON. Names secrets by UUID and usage, never by value.

use ::uuid::Uuid;
use serde::{Deserialize, Serialize};

use super::finding::{as_string, from_string};
use super::{Finding, SlotStatus};
use crate::secret::Usage;

/// What a check found.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verified {
    /// How many secrets nothing is wrong with.
    pub sound: usize,
    /// Every secret, by UUID. A daemon with very many names only those that are not sound.
    pub secrets: Vec<Checked>,
    /// All that is wrong, what opening found included.
    pub findings: Vec<Finding>,
}

/// What a repair came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Repaired {
    /// Secrets that are whole.
    pub kept: usize,
    /// Secrets whose definition was kept, but whose value is gone.
    pub without_value: Vec<Lost>,
    /// Secrets that are gone.
    pub lost: Vec<Lost>,
    /// Records that were lost without a trace of whose they were, at most.
    pub unnamed: usize,
    /// The files in `etc/secrets` that keep the damaged bytes.
    pub aside: Vec<String>,
    /// `.xml` copies that were written anew.
    pub copies: usize,
    /// What was wrong with keyring and log before.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

/// What restoring a backup came to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Restored {
    /// The store's id.
    pub store: String,
    /// When the backup was made, in Unix seconds.
    pub made_at: u64,
    /// Secrets that are there again, whole.
    pub restored: usize,
    /// Secrets whose definition is there again, but not their value.
    pub without_value: Vec<Lost>,
    /// Secrets that the backup had, and that are lost.
    pub lost: Vec<Lost>,
    /// Secrets that are lost without a trace of whose they were.
    pub unnamed: usize,
    /// The files in `etc/secrets` that keep what was there before.
    pub aside: Vec<String>,
    /// What opens the keystore.
    pub slots: Vec<SlotStatus>,
    /// What was wrong with the backup.
    pub findings: Vec<Finding>,
}

/// A secret that is gone, or its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Lost {
    /// Which secret.
    #[serde(serialize_with = "as_string", deserialize_with = "from_string")]
    pub uuid: Uuid,
    /// What it was for, in words, as far as its definition or its `.xml` copy still tells.
    pub usage: Option<String>,
}

/// One secret, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Checked {
    /// Which secret.
    #[serde(serialize_with = "as_string", deserialize_with = "from_string")]
    pub uuid: Uuid,
    /// What it is for, in words, where the definition opens.
    pub usage: Option<String>,
    /// What its record is like.
    pub state: RecordState,
}

/// What a secret's record is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RecordState {
    /// Definition and value open.
    Ok,
    /// The definition opens, and there is no value.
    NoValue,
    /// The definition doesn't open.
    DefinitionDamaged,
    /// The definition opens, the value doesn't.
    ValueDamaged,
}

impl RecordState {
    /// Whether nothing is wrong with it.
    pub fn is_sound(self) -> bool {
        matches!(self, Self::Ok | Self::NoValue)
    }
}

/// A usage in words, as `secret-list` shows it: its type, then its id.
pub fn usage_in_words(usage: &Usage) -> String {
    match &*usage.id {
        "" => usage.kind.name().to_owned(),
        id => format!("{} {id}", usage.kind.name()),
    }
}
