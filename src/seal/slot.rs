//! A slot: one way to unwrap the root key.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | kind: 1 host key, 2 credential, 3 passphrase, 4 recovery key |
//! | 1 | 1 | length of the label, at most 64 |
//! | 2 | 2 | zero |
//! | 4 | 12 | passphrase: Argon2id's memory in KiB, passes, lanes; else 0 |
//! | 16 | 16 | slot id, random |
//! | 32 | 8 | made at, Unix seconds |
//! | 40 | 8 | zero |
//! | 48 | 64 | label, UTF-8, filled with zeros |
//! | 112 | 112 | the root key, wrapped (wrap.rs); bytes 0..112 are its context |
//!
//! Leans on `kdf` and `wrap`. Refuses Argon2id costs out of bounds before it spends them.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use ::uuid::Uuid;

use super::kdf::Argon2Cost;
use super::key::{HostKey, KEY_LEN, RootKey, StoreId, random};
use super::recovery::RecoveryKey;
use super::wrap::{WRAPPED_LEN, unwrap, wrap};
use super::{Opener, SealError};
use crate::memory::SecretBytes;

pub(super) const SLOT_LEN: usize = CONTEXT_LEN + WRAPPED_LEN;
const CONTEXT_LEN: usize = 112;

/// What a label holds, in bytes.
pub const LABEL_LEN: usize = 64;

/// What opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotKind {
    /// A 32-byte key file.
    HostKey,
    /// The systemd credential `secrets-encryption-key`, 32 bytes too.
    Credential,
    /// A passphrase, through Argon2id.
    Passphrase(Argon2Cost),
    /// The recovery key that was shown once.
    Recovery,
}

impl SlotKind {
    /// Its name in tables and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::HostKey => "host key",
            Self::Credential => "credential",
            Self::Passphrase(_) => "passphrase",
            Self::Recovery => "recovery key",
        }
    }
}

/// What a slot's clear part says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// What opens it.
    pub kind: SlotKind,
    /// Its own id.
    pub id: Uuid,
    /// When it was made, in Unix seconds.
    pub made_at: u64,
    /// The operator's name for it, at most 64 bytes.
    pub label: String,
}

/// A slot to be made: what shall open it.
#[derive(Debug)]
pub enum NewSlot<'a> {
    /// A host key from a file.
    HostKey(&'a HostKey),
    /// The systemd credential.
    Credential(&'a HostKey),
    /// A passphrase, and what it shall cost to try.
    Passphrase(&'a SecretBytes, Argon2Cost),
    /// A recovery key.
    Recovery(&'a RecoveryKey),
}

/// A slot of a keyring.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) info: SlotInfo,
    bytes: [u8; SLOT_LEN],
}

impl Slot {
    /// Wraps `root` for what shall open it.
    pub(super) fn make(
        new: &NewSlot<'_>,
        label: &str,
        made_at: u64,
        store: StoreId,
        root: &RootKey,
    ) -> Result<Self, SealError> {
        let (number, cost) = match new {
            NewSlot::HostKey(_) => (1, None),
            NewSlot::Credential(_) => (2, None),
            NewSlot::Passphrase(_, cost) => (3, Some(*cost)),
            NewSlot::Recovery(_) => (4, None),
        };
        let (memory, passes, lanes) = cost.map_or((0, 0, 0), Argon2Cost::parts);
        let fits = (0..=LABEL_LEN).rev().find_map(|len| label.get(..len));
        let label = fits.unwrap_or(label).as_bytes();
        let mut context = Vec::with_capacity(SLOT_LEN);
        context.extend([number, u8::try_from(label.len()).unwrap_or(0), 0, 0]);
        context.extend([memory, passes, lanes].iter().flat_map(|part| part.to_le_bytes()));
        context.extend(random::<16>()?);
        context.extend(made_at.to_le_bytes());
        context.extend([0; 8]);
        context.extend(label);
        context.resize(CONTEXT_LEN, 0);
        let wrapped = match new {
            NewSlot::HostKey(key) | NewSlot::Credential(key) => {
                wrap(key.bytes(), &[&store.0, &context], &root.0)
            }
            NewSlot::Recovery(key) => wrap(key.bytes(), &[&store.0, &context], &root.0),
            NewSlot::Passphrase(passphrase, cost) => {
                let key = cost.derive(passphrase, &salt(store, &context))?;
                wrap(&key, &[&store.0, &context], &root.0)
            }
        }?;
        context.extend(wrapped);
        let bytes = context.try_into().map_err(|_| SealError::Damaged)?;
        Self::decode(bytes).ok_or(SealError::Damaged)
    }

    /// Reads a slot: its shape only.
    pub(super) fn decode(bytes: [u8; SLOT_LEN]) -> Option<Self> {
        let (&[number, label_len, 0, 0], rest) = bytes.split_first_chunk()? else { return None };
        let (memory, rest) = rest.split_first_chunk()?;
        let (passes, rest) = rest.split_first_chunk()?;
        let (lanes, rest) = rest.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (made_at, rest) = rest.split_first_chunk()?;
        let ([0, 0, 0, 0, 0, 0, 0, 0], rest) = rest.split_first_chunk()? else { return None };
        let cost = [memory, passes, lanes].map(|part| u32::from_le_bytes(*part));
        let kind = match (number, cost) {
            (1, [0, 0, 0]) => SlotKind::HostKey,
            (2, [0, 0, 0]) => SlotKind::Credential,
            (3, [memory, passes, lanes]) => SlotKind::Passphrase(Argon2Cost::new(memory, passes, lanes)?),
            (4, [0, 0, 0]) => SlotKind::Recovery,
            _ => return None,
        };
        let (label, filling) = rest.get(..LABEL_LEN)?.split_at_checked(usize::from(label_len))?;
        let label = std::str::from_utf8(label).ok()?.to_owned();
        if filling.iter().any(|&byte| byte != 0) {
            return None;
        }
        let (id, made_at) = (Uuid::from_bytes(*id), u64::from_le_bytes(*made_at));
        Some(Self { info: SlotInfo { kind, id, made_at, label }, bytes })
    }

    pub(super) fn bytes(&self) -> &[u8; SLOT_LEN] {
        &self.bytes
    }

    /// The root key, if `opener` is for this kind of slot. `None` if it isn't.
    pub(super) fn open(&self, opener: &Opener, store: StoreId) -> Option<Result<RootKey, SealError>> {
        let (context, wrapped) = self.parts()?;
        self.with_key(opener, store, |key| unwrap(key, &[&store.0, context], wrapped).map(RootKey))
    }

    /// The same slot around another root key, if `opener` opens it. `None` if it isn't for this kind of slot.
    pub(super) fn rewrapped(
        &self,
        opener: &Opener,
        store: StoreId,
        root: &RootKey,
    ) -> Option<Result<Self, SealError>> {
        let (context, wrapped) = self.parts()?;
        self.with_key(opener, store, |key| {
            unwrap(key, &[&store.0, context], wrapped)?;
            let mut slot = self.clone();
            let again = wrap(key, &[&store.0, context], &root.0)?;
            slot.bytes.iter_mut().skip(CONTEXT_LEN).zip(again).for_each(|(to, from)| *to = from);
            Ok(slot)
        })
    }

    /// Its context, and the wrapped root key.
    fn parts(&self) -> Option<(&[u8; CONTEXT_LEN], &[u8; WRAPPED_LEN])> {
        let (context, wrapped) = self.bytes.split_first_chunk::<CONTEXT_LEN>()?;
        Some((context, wrapped.first_chunk()?))
    }

    /// Hands `act` the key that the root key is wrapped with. `None` if `opener` isn't for this kind of slot.
    fn with_key<R>(
        &self,
        opener: &Opener,
        store: StoreId,
        act: impl FnOnce(&SecretBytes) -> Result<R, SealError>,
    ) -> Option<Result<R, SealError>> {
        Some(match (self.info.kind, opener) {
            (SlotKind::HostKey | SlotKind::Credential, Opener::HostKey(key)) => act(key.bytes()),
            (SlotKind::Recovery, Opener::Recovery(key)) => act(key.bytes()),
            (SlotKind::Passphrase(cost), Opener::Passphrase(passphrase)) => {
                let (context, _) = self.parts()?;
                cost.derive(passphrase, &salt(store, context)).and_then(|key| act(&key))
            }
            _ => return None,
        })
    }
}

/// Argon2id's salt: the slot's random id and the store's.
fn salt(store: StoreId, context: &[u8]) -> [u8; KEY_LEN] {
    let mut salt = [0; KEY_LEN];
    let id = context.get(16..32).unwrap_or_default();
    salt.iter_mut().zip(store.0.iter().chain(id)).for_each(|(to, from)| *to = *from);
    salt
}
