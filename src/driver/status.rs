//! What a driver says of how its keystore stands.
//!
//! Leans on `store` and `memory` for the figures. Refuses to sound safer than it is: it says what each key does not
//! protect against.

use std::borrow::Cow;

use super::failure::SEE_VERIFY;
use super::locking::{Open, State};
use super::{Driver, now};
use crate::administration::{Argon2Status, KeyStatus, LogStatus, MemoryStatus, SlotStatus, Status};
use crate::memory;
use crate::seal::{Keyring, SlotInfo, SlotKind};

const ROLLBACK: &str = "an older copy that is put back is noticed while run/secrets lasts; \
                        system and session keystores: until the host is restarted; \
                        not noticed: an older copy of the whole root, run/secrets included";

impl Driver {
    /// How it stands.
    pub fn status(&self) -> Status {
        let ephemeral = self.ephemeral().len();
        let mut status = Status {
            uri: self.uri.clone(),
            directory: self.root.etc.display().to_string(),
            locked: None,
            read_only: None,
            advice: None,
            store: None,
            secrets: 0,
            ephemeral,
            epochs: Vec::new(),
            epoch_began: None,
            epoch_writes: None,
            rotation_due: None,
            rotation: None,
            rotation_stopped: None,
            slots: Vec::new(),
            key: None,
            log: None,
            generation: None,
            copies: None,
            memory: MemoryStatus::now(),
            rollback: ROLLBACK.into(),
            findings: Vec::new(),
        };
        match &*self.state() {
            State::Locked(locked) => {
                status.locked = Some(locked.why.detail().to_owned());
                status.advice = locked.why.advice().map(str::to_owned);
                status.store = Some(locked.id.to_string());
                status.secrets = locked.listed.len();
                status.slots = locked.slots.iter().map(SlotStatus::of).collect();
            }
            State::Open(open) => {
                let (condition, keyring) = (open.store.condition(), open.store.keyring());
                status.advice = condition.read_only.is_some().then(|| SEE_VERIFY.to_owned());
                status.read_only = condition.read_only;
                status.store = Some(condition.store.to_string());
                status.secrets = condition.secrets;
                status.epochs = keyring.epochs().collect();
                let (began, at) = keyring.epoch_began();
                let writes = condition.generation.saturating_sub(at);
                (status.epoch_began, status.epoch_writes) = (Some(began), Some(writes));
                status.rotation = open.store.rotation();
                let due = || self.rotation_policy().due(began, writes, now());
                let stopped = self.rotation_stopped().filter(|_| status.rotation.is_some());
                status.rotation_stopped = stopped.map(|why| why.detail().to_owned());
                status.rotation_due = if status.rotation.is_none() { due() } else { None };
                status.slots = keyring.slots().map(SlotStatus::of).collect();
                status.key = self.key_status(open, &keyring);
                status.log = Some(LogStatus { bytes: condition.log.0, in_use: condition.log.1 });
                status.generation = Some(condition.generation);
                status.copies = Some(keyring.copies());
                status.findings = condition.findings;
            }
        }
        status
    }

    /// What opened it, unless that slot is gone since; worth as much as the weakest of all slots is.
    fn key_status(&self, open: &Open, keyring: &Keyring) -> Option<KeyStatus> {
        let by = keyring.slots().find(|slot| slot.id == open.by.id)?;
        let weakest = keyring.slots().min_by_key(|slot| strength(slot.kind)).unwrap_or(by);
        let inside = open.host_keys.iter().any(|place| self.root.holds(&place.path));
        Some(KeyStatus { slot: SlotStatus::of(by), ..KeyStatus::of(weakest, inside) })
    }
}

/// The higher, the less there is on the host to open the slot with.
fn strength(kind: SlotKind) -> u8 {
    match kind {
        SlotKind::HostKey => 0,
        SlotKind::Credential => 1,
        SlotKind::Passphrase(_) => 2,
        SlotKind::Recovery => 3,
    }
}

impl KeyStatus {
    /// `inside`: the host key's file lies in the root that it opens.
    pub(super) fn of(slot: &SlotInfo, inside: bool) -> Self {
        let (protects, does_not) = match slot.kind {
            SlotKind::HostKey if inside => (
                "nothing: the key file lies in the keystore's own root",
                "whoever gets a copy of the root, key file included: backups, moved disks, other users",
            ),
            SlotKind::HostKey => (
                "whoever gets a copy of the keystore without the key file: backups, moved disks, other users",
                "root on this host, nor whoever copies the whole disk, key file included",
            ),
            SlotKind::Credential => (
                "whoever copies the disk, if the credential is sealed to the TPM",
                "root on this host while the service runs",
            ),
            SlotKind::Passphrase(_) => (
                "everyone who doesn't know the passphrase",
                "guessing, if it is a weak one, nor root while the keystore is open",
            ),
            SlotKind::Recovery => (
                "everyone who doesn't have the recovery key",
                "whoever finds it written down, nor root while the keystore is open",
            ),
        };
        let advice = (slot.kind == SlotKind::HostKey && inside)
            .then_some("move the key file out of the root, and name its new place with --key-file");
        Self {
            slot: SlotStatus::of(slot),
            protects: protects.into(),
            does_not: does_not.into(),
            advice: advice.map(Cow::Borrowed),
        }
    }
}

impl MemoryStatus {
    fn now() -> Self {
        let protection = memory::protection().to_string(); // first: it makes the arena that usage() measures
        let (in_use, bytes) = memory::usage();
        Self { protection, in_use, bytes }
    }
}

impl SlotStatus {
    pub(super) fn of(slot: &SlotInfo) -> Self {
        let argon2id = match slot.kind {
            SlotKind::Passphrase(cost) => {
                let (memory_kib, passes, lanes) = cost.parts();
                Some(Argon2Status { memory_kib, passes, lanes })
            }
            _ => None,
        };
        let (id, label) = (slot.id.to_string(), slot.label.clone());
        Self { id, kind: slot.kind.name().into(), label, made_at: slot.made_at, argon2id }
    }
}
