//! One epoch in the keyring: a generation of the data key, wrapped by the root key.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | number |
//! | 4 | 4 | zero |
//! | 8 | 8 | made at, Unix seconds |
//! | 16 | 112 | the epoch key, wrapped (wrap.rs); bytes 0..16 are its context |
//!
//! Leans on `wrap`. Refuses a key that was wrapped for another store, number or time.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use super::key::{EpochKey, RootKey, StoreId};
use super::wrap::{WRAPPED_LEN, unwrap, wrap};
use super::{SealError, fields};

pub(super) const EPOCH_LEN: usize = CONTEXT_LEN + WRAPPED_LEN;
const CONTEXT_LEN: usize = 16;

/// One epoch: its number, when it began, and its wrapped key.
#[derive(Debug, Clone)]
pub(super) struct Epoch {
    pub(super) number: u32,
    pub(super) made_at: u64,
    bytes: [u8; EPOCH_LEN],
}

impl Epoch {
    /// Wraps a key.
    pub(super) fn make(
        number: u32,
        made_at: u64,
        key: &EpochKey,
        store: StoreId,
        root: &RootKey,
    ) -> Result<Self, SealError> {
        let mut bytes = [0; EPOCH_LEN];
        let (context, wrapped) = bytes.split_at_mut(CONTEXT_LEN);
        let clear = [&number.to_le_bytes()[..], &[0; 4], &made_at.to_le_bytes()].concat();
        context.copy_from_slice(&clear);
        wrapped.copy_from_slice(&wrap(&root.0, &[b"epoch", &store.0, context], &key.0)?);
        Ok(Self { number, made_at, bytes })
    }

    /// Reads an epoch: nothing is proved before its key unwraps.
    pub(super) fn decode(bytes: [u8; EPOCH_LEN]) -> Self {
        let mut clear = fields::Fields(&bytes);
        let (number, _, made_at) = (clear.u32(), clear.u32(), clear.u64());
        Self { number, made_at, bytes }
    }

    /// Its bytes in the keyring.
    pub(super) fn bytes(&self) -> &[u8; EPOCH_LEN] {
        &self.bytes
    }

    /// Its key.
    pub(super) fn open(&self, store: StoreId, root: &RootKey) -> Result<EpochKey, SealError> {
        let (context, wrapped) = self.bytes.split_first_chunk::<CONTEXT_LEN>().ok_or(SealError::Damaged)?;
        let wrapped = wrapped.first_chunk::<WRAPPED_LEN>().ok_or(SealError::Damaged)?;
        unwrap(&root.0, &[b"epoch", &store.0, context], wrapped).map(EpochKey)
    }
}
