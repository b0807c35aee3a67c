//! How a keystore stands, in words and numbers: what `strongroom status` shows.
//!
//! Leans on serde for `--json`. Refuses to sound safer than it is: it says what the host key does not protect against.

use serde::Serialize;

use super::{Driver, State};
use crate::memory;
use crate::seal::{SlotInfo, SlotKind};
use crate::store::Finding;

/// A keystore's standing.
#[derive(Debug, Serialize)]
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
    /// The store's id.
    pub store: Option<String>,
    /// Persistent secrets, or while locked those with a copy.
    pub secrets: usize,
    /// Secrets in memory only.
    pub ephemeral: usize,
    /// Epochs whose keys are there; the last one seals.
    pub epochs: Vec<u32>,
    /// The ways to open it.
    pub slots: Vec<SlotStatus>,
    /// What opened it, and what that is worth.
    pub key: Option<KeyStatus>,
    /// Bytes of the log, and how many of them are records in use.
    pub log: Option<(u64, u64)>,
    /// The last commit.
    pub generation: Option<u64>,
    /// Whether `.xml` copies are kept.
    pub copies: Option<bool>,
    /// How secret memory is protected.
    pub memory: String,
    /// Bytes of secret memory in use, and in all.
    pub memory_used: (usize, usize),
    /// How far rollback is noticed.
    pub rollback: &'static str,
    /// What was found when it was opened.
    pub findings: Vec<Finding>,
}

/// One way to open a keystore.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SlotStatus {
    /// Its id.
    pub id: String,
    /// What opens it.
    pub kind: &'static str,
    /// The operator's name for it.
    pub label: String,
    /// When it was made, in Unix seconds.
    pub made_at: u64,
    /// For a passphrase: KiB of memory, passes, lanes.
    pub argon2id: Option<(u32, u32, u32)>,
}

/// What opened a keystore.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeyStatus {
    /// The slot.
    pub slot: SlotStatus,
    /// What it protects against.
    pub protects: &'static str,
    /// What it doesn't.
    pub does_not: &'static str,
}

const ROLLBACK: &str = "noticed while run/secrets lasts (for system and session keystores: until the host is restarted); \
                        an older copy of the whole root put back together with its run/secrets is not";

impl Driver {
    /// How it stands.
    pub fn status(&self) -> Status {
        let ephemeral = self.ephemeral().len();
        let mut status = Status {
            uri: self.uri.clone(),
            directory: self.root.etc.display().to_string(),
            locked: None,
            read_only: None,
            store: None,
            secrets: 0,
            ephemeral,
            epochs: Vec::new(),
            slots: Vec::new(),
            key: None,
            log: None,
            generation: None,
            copies: None,
            memory: memory::protection().to_string(),
            memory_used: memory::usage(),
            rollback: ROLLBACK,
            findings: Vec::new(),
        };
        match &self.state {
            State::Locked(why, listed) => {
                status.locked = Some(why.detail().to_owned());
                status.secrets = listed.len();
                status.slots = self.locked_slots.iter().map(SlotStatus::of).collect();
            }
            State::Open(store) => {
                let (condition, keyring) = (store.condition(), store.keyring());
                status.read_only = condition.read_only;
                status.store = Some(condition.store.to_string());
                status.secrets = condition.secrets;
                status.epochs = keyring.epochs().collect();
                status.slots = keyring.slots().map(SlotStatus::of).collect();
                status.key = self.opened_by.as_ref().map(|slot| self.key_status(slot));
                status.log = Some(condition.log);
                status.generation = Some(condition.generation);
                status.copies = Some(keyring.copies());
                status.findings = condition.findings;
            }
        }
        status
    }

    fn key_status(&self, slot: &SlotInfo) -> KeyStatus {
        let inside = self.host_keys.iter().any(|place| {
            let key = place.path.canonicalize();
            key.is_ok_and(|key| self.root.etc.ancestors().nth(2).is_some_and(|root| key.starts_with(root)))
        });
        let (protects, does_not) = match slot.kind {
            SlotKind::HostKey if inside => (
                "against nobody who can copy the keystore: the key file lies inside its root",
                "move the key file elsewhere and name it with --key-file",
            ),
            SlotKind::HostKey => (
                "against whoever gets a copy of the keystore without the key file: backups, moved disks, other users",
                "against root on this host, nor against whoever copies the whole disk, key file included",
            ),
            SlotKind::Credential => (
                "against whoever copies the disk, if the credential is sealed to the TPM",
                "against root on this host while the service runs",
            ),
            SlotKind::Passphrase(_) => (
                "against everyone who doesn't know the passphrase",
                "against guessing, if it is a weak one, nor against root while the keystore is open",
            ),
            SlotKind::Recovery => (
                "against everyone who doesn't have the recovery key",
                "against whoever finds it written down, nor against root while the keystore is open",
            ),
        };
        KeyStatus { slot: SlotStatus::of(slot), protects, does_not }
    }
}

impl SlotStatus {
    fn of(slot: &SlotInfo) -> Self {
        let argon2id = match slot.kind {
            SlotKind::Passphrase(cost) => Some(cost.parts()),
            _ => None,
        };
        let (id, label) = (slot.id.to_string(), slot.label.clone());
        Self { id, kind: slot.kind.name(), label, made_at: slot.made_at, argon2id }
    }
}
