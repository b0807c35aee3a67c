//! A value becomes a sealed record and back; the keyring that holds the keys for it.
//!
//! The keys, from the outside in: a *slot* (host key, passphrase, recovery key) unwraps the root key; the root key
//! unwraps the epoch keys; an epoch key derives, for each frame anew, the key that seals it. [`Keyring`] is the file
//! of slots and wrapped keys, [`EpochCipher`] seals and opens frames, [`Head`] is a frame's clear part.
//!
//! Pure: bytes in, bytes out, no files. Leans on ring (AES-256-GCM, HKDF-SHA256, SHA-256), argon2 (Argon2id) and on
//! `memory`, where every key lives. Refuses to say why something didn't open, beyond what its clear part shows.

mod change;
mod backup;
mod definition;
mod epoch;
mod fields;
mod frame;
mod head;
mod kdf;
mod key;
mod keyring;
mod recovery;
mod slot;
mod wrap;

pub use backup::{BACKUP_HEADER, BLOCK_LEN, BackupHeader, BackupHeaderError, Listed, TableBlock};
pub use change::{MadeSlot, Proved};
pub use frame::{EpochCipher, Frame};
pub use head::{Chain, GRAIN, HEAD_LEN, Head, HeadError, Kind, SALT};
pub use kdf::Argon2Cost;
pub use key::{HostKey, StoreId};
pub use keyring::{Keyring, KeyringError, LockedKeyring, MAX_KEYRING, Opened, Opener, Tried};
pub use recovery::{RecoveryKey, RecoveryKeyError};
pub use slot::{LABEL_LEN, NewSlot, SlotInfo, SlotKind};

use crate::memory::Exhausted;

/// Sealing or opening failed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The bytes are not what was sealed, or not under this key. Which of the two can't be told.
    #[error("wrong key or damaged bytes")]
    Damaged,
    /// The system gave no random bytes.
    #[error("the system has no random bytes to give")]
    NoRandomness,
    /// No room in secret memory.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// No room in ordinary memory for a passphrase's work.
    #[error("not enough memory for the passphrase's key derivation ({0} KiB)")]
    NoMemory(u32),
}
