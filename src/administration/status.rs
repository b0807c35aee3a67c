//! How a keystore stands, in words and numbers: what `strongroom status` shows.
//!
//! Plain data. Leans on serde: as JSON it is what `--json` writes, and how a daemon tells it. A reader of an older
//! version passes over what it doesn't know.

use std::borrow::Cow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Finding;

/// A keystore's standing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// What was opened.
    pub uri: String,
    /// Where the keyring, the log and the `.xml` copies lie.
    pub directory: String,
    /// Why it is locked, if it is.
    pub locked: Option<String>,
    /// Why it takes no changes, if it doesn't.
    pub read_only: Option<String>,
    /// What to do about either.
    pub advice: Option<String>,
    /// The store's id.
    pub store: Option<String>,
    /// Persistent secrets, or while locked those with a copy.
    pub secrets: usize,
    /// Secrets in memory only.
    pub ephemeral: usize,
    /// Epochs whose keys are there; the last one seals.
    pub epochs: Vec<u32>,
    /// When the last epoch began, in Unix seconds.
    #[serde(default)]
    pub epoch_began: Option<u64>,
    /// Records that were written since.
    #[serde(default)]
    pub epoch_writes: Option<u64>,
    /// Why it is time for a new one, if it is.
    #[serde(default)]
    pub rotation_due: Option<String>,
    /// How far a rotation that is under way has come.
    #[serde(default)]
    pub rotation: Option<Rotation>,
    /// Why it stands still, if it does.
    #[serde(default)]
    pub rotation_stopped: Option<String>,
    /// The ways to open it.
    pub slots: Vec<SlotStatus>,
    /// What opened it, and what that is worth.
    pub key: Option<KeyStatus>,
    /// The size of the log.
    pub log: Option<LogStatus>,
    /// The last commit.
    pub generation: Option<u64>,
    /// Whether `.xml` copies are kept.
    pub copies: Option<bool>,
    /// How secret memory is protected.
    pub memory: MemoryStatus,
    /// How far rollback is noticed.
    pub rollback: Cow<'static, str>,
    /// What was found when it was opened.
    pub findings: Vec<Finding>,
}

/// How far a rotation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rotation {
    /// The epoch that it goes to.
    pub epoch: u32,
    /// Records sealed in it.
    pub done: u64,
    /// Records in all.
    pub total: u64,
}

/// One way to open a keystore.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SlotStatus {
    /// Its id.
    pub id: String,
    /// What opens it.
    pub kind: Cow<'static, str>,
    /// The operator's name for it.
    pub label: String,
    /// When it was made, in Unix seconds.
    pub made_at: u64,
    /// For a passphrase: what each guess costs.
    pub argon2id: Option<Argon2Status>,
}

/// The parameters of Argon2id.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Argon2Status {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes of it.
    pub lanes: u32,
}

/// The size of the log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LogStatus {
    /// How long it is.
    pub bytes: u64,
    /// How many of them are records in use.
    pub in_use: u64,
}

/// The standing of this process's secret memory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MemoryStatus {
    /// What protects it.
    pub protection: String,
    /// Bytes in use.
    pub in_use: usize,
    /// Bytes in all.
    pub bytes: usize,
}

/// A key, and what it is worth.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeyStatus {
    /// The slot.
    pub slot: SlotStatus,
    /// Whom or what it protects against.
    pub protects: Cow<'static, str>,
    /// What it doesn't.
    pub does_not: Cow<'static, str>,
    /// How it could be made to protect against more.
    pub advice: Option<Cow<'static, str>>,
}

/// A keystore that was just made.
#[derive(Debug)]
pub struct Made {
    /// Where the keyring, the log and the `.xml` copies lie.
    pub directory: PathBuf,
    /// The host key's file, if it has a slot.
    pub host_key: Option<PathBuf>,
    /// What opens it.
    pub keys: Vec<KeyStatus>,
    /// Whether `.xml` copies are kept.
    pub copies: bool,
}
