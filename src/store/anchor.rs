//! The rollback anchor: the last commit this host has seen, in a file of its own under `run/`.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `SRANCHOR` |
//! | 8 | 16 | store id |
//! | 24 | 8 | generation of the commit, u64 little-endian |
//! | 32 | 32 | its chain |
//! | 64 | 8 | serial of the keyring |
//! | 72 | 32 | HMAC-SHA256 over all that stands before, under a key from the root key |
//!
//! Written after each sync of the log, never synced itself: it may lag behind the log, but is never ahead of it. An
//! anchor that doesn't read is no anchor. Leans on `seal` for the HMAC. Refuses nothing; the store judges.

use std::io;
use std::sync::{Arc, PoisonError};

use subtle::ConstantTimeEq;

use super::Store;
use super::disk::{Directory, File, read_whole};
use super::log::Log;
use crate::seal::{Keyring, SealError, StoreId};

pub(super) const ANCHOR: &str = "anchor";
const MAGIC: &[u8; 8] = b"SRANCHOR";
const LEN: usize = 104;

/// A commit, by its number and its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Anchor {
    pub(super) store: StoreId,
    pub(super) generation: u64,
    pub(super) chain: [u8; 32],
    pub(super) keyring: u64,
}

/// What was found in `run/`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// None: the host was restarted, or never had this store open.
    None,
    /// Something that is no anchor of this store's keys.
    Unreadable,
    /// An anchor of another store.
    OtherStore,
    /// This store's.
    Anchor(Anchor),
}

impl Anchor {
    pub(super) fn read(run: &dyn Directory, keyring: &Keyring) -> io::Result<Found> {
        let bytes = match run.open(ANCHOR).and_then(|file| read_whole(&*file, LEN)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::None),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Ok(Found::Unreadable),
            Err(error) => return Err(error),
        };
        let Ok(bytes) = <[u8; LEN]>::try_from(bytes) else { return Ok(Found::Unreadable) };
        if bytes[..8] != *MAGIC {
            return Ok(Found::Unreadable);
        }
        let part = |range: std::ops::Range<usize>| <[u8; 8]>::try_from(&bytes[range]).map(u64::from_le_bytes);
        let (Ok(generation), Ok(keyring_serial)) = (part(24..32), part(64..72)) else {
            return Ok(Found::Unreadable);
        };
        let mut anchor =
            Self { store: StoreId([0; 16]), generation, chain: [0; 32], keyring: keyring_serial };
        anchor.store.0.copy_from_slice(&bytes[8..24]);
        anchor.chain.copy_from_slice(&bytes[32..64]);
        if anchor.store != keyring.store() {
            return Ok(Found::OtherStore);
        }
        let sound = anchor.encode(keyring).is_ok_and(|right| right.ct_eq(&bytes).into());
        Ok(if sound { Found::Anchor(anchor) } else { Found::Unreadable })
    }

    /// The file's bytes.
    pub(super) fn encode(&self, keyring: &Keyring) -> Result<[u8; LEN], SealError> {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..24].copy_from_slice(&self.store.0);
        bytes[24..32].copy_from_slice(&self.generation.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.chain);
        bytes[64..72].copy_from_slice(&self.keyring.to_le_bytes());
        let seal = keyring.anchor_seal(&bytes[..72])?;
        bytes[72..].copy_from_slice(&seal);
        Ok(bytes)
    }
}

/// Opens the file, or makes it, and writes it. Where there is no room for the whole, nothing is left of it: half an anchor
/// would be called an unreadable one.
fn first_written(run: &dyn Directory, bytes: &[u8]) -> io::Result<Arc<dyn File>> {
    let file = run.open(ANCHOR).or_else(|_| run.create(ANCHOR))?;
    let is_whole = file.size()? >= bytes.len() as u64;
    if let Err(error) = file.write_at(bytes, 0) {
        if !is_whole {
            _ = run.remove(ANCHOR);
        }
        return Err(error);
    }
    file.set_len(bytes.len() as u64)?;
    Ok(file)
}

impl Store {
    /// Says on this host how far the log goes. Not synced, and nothing hangs on it: an older anchor is no lie.
    pub(super) fn write_anchor(&self, log: &Log, keyring: &Keyring) {
        let (generation, chain) = log.last_commit();
        let anchor = Anchor { store: keyring.store(), generation, chain, keyring: keyring.serial() };
        let mut file = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let written = anchor.encode(keyring).map_err(io::Error::other).and_then(|bytes| match &*file {
            Some(file) => file.write_at(&bytes, 0),
            None => first_written(&*self.disk.run, &bytes).map(|opened| *file = Some(opened)),
        });
        if let Err(error) = written {
            tracing::warn!(%error, "cannot write the rollback anchor");
        }
    }
}
