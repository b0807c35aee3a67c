//! The keys, a type for each role, and where they come from.
//!
//! Leans on `memory`: a key is 32 bytes there and nowhere else, and prints as nothing. Refuses to let one role stand
//! for another: only the functions that need a role take its type.

use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, ExposeSecretMut};

use super::SealError;
use crate::memory::SecretBytes;

/// The length of every key.
pub(super) const KEY_LEN: usize = 32;

/// A store's name, random at creation: in the keyring and in every frame, so that none can be put into another store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreId(pub [u8; 16]);

impl StoreId {
    /// A new one.
    pub fn random() -> Result<Self, SealError> {
        random().map(Self)
    }
}

impl std::fmt::Display for StoreId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        ::uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

/// The host's key: 32 bytes from a file or a systemd credential. It opens host-key and credential slots.
#[derive(Debug)]
pub struct HostKey(SecretBytes);

impl HostKey {
    /// The key in `bytes`, if they are 32.
    pub fn from_bytes(bytes: SecretBytes) -> Option<Self> {
        (bytes.len() == KEY_LEN).then_some(Self(bytes))
    }

    /// A new one.
    pub fn random() -> Result<Self, SealError> {
        random_key().map(Self)
    }

    /// Its bytes, to be written to its file.
    pub fn bytes(&self) -> &SecretBytes {
        &self.0
    }
}

/// The key that all else hangs on. Never stored bare: wrapped by each slot.
#[derive(Debug)]
pub(super) struct RootKey(pub(super) SecretBytes);

impl RootKey {
    pub(super) fn random() -> Result<Self, SealError> {
        random_key().map(Self)
    }
}

/// One generation of the data key. Wrapped by the root key.
#[derive(Debug)]
pub(super) struct EpochKey(pub(super) SecretBytes);

impl EpochKey {
    pub(super) fn random() -> Result<Self, SealError> {
        random_key().map(Self)
    }
}

/// Random bytes for what is not secret: salts and ids.
pub(super) fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SealError::NoRandomness)?;
    Ok(bytes)
}

/// Random bytes that are secret, made where they stay.
pub(super) fn random_secret(len: usize) -> Result<SecretBytes, SealError> {
    let mut bytes = SecretBytes::zeroed(len)?;
    SystemRandom::new().fill(bytes.expose_secret_mut()).map_err(|_| SealError::NoRandomness)?;
    Ok(bytes)
}

fn random_key() -> Result<SecretBytes, SealError> {
    let key = random_secret(KEY_LEN)?;
    // A generator that gives zeros is broken; sealing under it would be worse than stopping.
    if key.expose_secret().iter().all(|&byte| byte == 0) {
        return Err(SealError::NoRandomness);
    }
    Ok(key)
}
