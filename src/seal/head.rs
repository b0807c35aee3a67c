//! A frame's clear head, and the chain over all heads of a log.
//!
//! A frame is a clear head of 160 bytes, then the sealed definition, then the sealed value. All numbers are
//! little-endian; every frame starts on a multiple of 32 bytes. docs/format.md has the same table:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `SRf\n` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | suite, 1: HKDF-SHA256, AES-256-GCM, SHA-256 |
//! | 6 | 1 | kind: 1 put, 2 delete, 3 commit |
//! | 7 | 1 | flags: bit 0 has a value (put), closed in order (commit) |
//! | 8 | 4 | length of the sealed definition, without its tag |
//! | 12 | 4 | length of the sealed value, without its tag |
//! | 16 | 8 | generation |
//! | 24 | 4 | epoch |
//! | 28 | 4 | commit: frames in its batch; else 0 |
//! | 32 | 16 | store id |
//! | 48 | 16 | uuid; commit: the keyring's serial (8 bytes), then 0 |
//! | 64 | 32 | salt, fresh for each frame; commit: the chain |
//! | 96 | 32 | commitment |
//! | 128 | 16 | tag of the definition |
//! | 144 | 16 | tag of the value |
//!
//! Leans on ring's SHA-256. Refuses a head whose lengths are out of bounds before anything is read or allocated.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::ops::Range;

use ::uuid::Uuid;
use ring::digest::{Context, SHA256};

use super::fields::Fields;
use super::key::StoreId;
use crate::secret::MAX_VALUE;

/// A head's length.
pub const HEAD_LEN: usize = 160;

/// Frames start on multiples of this many bytes.
pub const GRAIN: usize = 32;

/// Sealed parts longer than this are refused. The largest XML document is 4 MiB, so no definition comes near it.
const MAX_DEFINITION: usize = 6 << 20;
/// The largest value, its length, and the padding of its bucket.
pub(super) const MAX_SEALED_VALUE: usize = MAX_VALUE + (8 << 10);

pub(super) const MAGIC: &[u8; 4] = b"SRf\n";
pub(super) const VERSION: u8 = 1;
pub(super) const SUITE: u8 = 1;
pub(super) const INFO: Range<usize> = 0..96;
/// Where a put's salt stands in its head.
pub const SALT: Range<usize> = 64..96;
pub(super) const COMMITMENT: Range<usize> = 96..128;
pub(super) const DEFINITION_TAG: Range<usize> = 128..144;
pub(super) const VALUE_TAG: Range<usize> = 144..160;

/// What a frame does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This is the secret from now on.
    Put {
        /// Whether a value is sealed in it.
        has_value: bool,
    },
    /// The secret is gone from now on.
    Delete,
    /// All frames since the last commit hold.
    Commit {
        /// The log was closed in order behind this commit, with its `.xml` copies written out.
        closed: bool,
        /// Frames in the batch.
        count: u32,
        /// The serial of the keyring in force: an older keyring is a restored one.
        keyring: u64,
    },
}

/// A frame's clear part, as read. Nothing in it is to be believed before the frame opened or its commit held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// What the frame does.
    pub kind: Kind,
    /// Its number, store-wide and strictly rising.
    pub generation: u64,
    /// The epoch whose key sealed it.
    pub epoch: u32,
    /// The store it belongs to.
    pub store: StoreId,
    /// The secret it is about; nil in a commit.
    pub uuid: Uuid,
    definition_len: usize,
    value_len: usize,
    pub(super) bytes: [u8; HEAD_LEN],
}

/// Why bytes are no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not the start of a frame at all.
    #[error("no frame starts here")]
    NoFrame,
    /// A frame of a later version of the format.
    #[error("written by a newer version of Strongroom (frame format {0})")]
    Newer(u8),
}

impl Head {
    /// Reads a head: its shape only. Every field is within its bounds afterwards.
    pub fn decode(bytes: &[u8; HEAD_LEN]) -> Result<Self, HeadError> {
        let mut fields = Fields(bytes);
        if &fields.take::<4>() != MAGIC {
            return Err(HeadError::NoFrame);
        }
        let [version, suite, kind, flags] = fields.take();
        if version != VERSION || suite != SUITE {
            return if version > VERSION { Err(HeadError::Newer(version)) } else { Err(HeadError::NoFrame) };
        }
        let definition_len = fields.u32() as usize;
        let value_len = fields.u32() as usize;
        let generation = fields.u64();
        let epoch = fields.u32();
        let count = fields.u32();
        let store = StoreId(fields.take());
        let uuid = fields.take::<16>();
        let kind = match (kind, flags) {
            (1, 0 | 1) if count == 0 => Kind::Put { has_value: flags == 1 },
            (2, 0) if count == 0 => Kind::Delete,
            (3, 0 | 1) => {
                let mut fields = Fields(&uuid);
                let keyring = fields.u64();
                Kind::Commit { closed: flags == 1, count, keyring }
            }
            _ => return Err(HeadError::NoFrame),
        };
        let whole = definition_len.is_multiple_of(GRAIN) && value_len.is_multiple_of(GRAIN);
        let fits = match kind {
            Kind::Put { has_value } => {
                (GRAIN..=MAX_DEFINITION).contains(&definition_len)
                    && if has_value {
                        (GRAIN..=MAX_SEALED_VALUE).contains(&value_len)
                    } else {
                        value_len == 0
                    }
            }
            Kind::Delete | Kind::Commit { .. } => definition_len == 0 && value_len == 0,
        };
        // Tags of what isn't there are zero: every byte of a head means something, or is known.
        let no_tag = |tag: Range<usize>| part::<16>(bytes, tag) == [0; 16];
        let bare = (definition_len > 0 || no_tag(DEFINITION_TAG)) && (value_len > 0 || no_tag(VALUE_TAG));
        if !whole || !fits || !bare {
            return Err(HeadError::NoFrame);
        }
        let uuid = if matches!(kind, Kind::Commit { .. }) { Uuid::nil() } else { Uuid::from_bytes(uuid) };
        Ok(Self { kind, generation, epoch, store, uuid, definition_len, value_len, bytes: *bytes })
    }

    /// The whole frame's length.
    #[allow(clippy::arithmetic_side_effects)] // both lengths are bounded by `decode`
    pub fn frame_len(&self) -> usize {
        HEAD_LEN + self.definition_len + self.value_len
    }

    /// Where the sealed definition lies in the frame.
    #[allow(clippy::arithmetic_side_effects)] // bounded by `decode`
    pub fn definition(&self) -> Range<usize> {
        HEAD_LEN..HEAD_LEN + self.definition_len
    }

    /// Where the sealed value lies in the frame.
    pub fn value(&self) -> Range<usize> {
        self.definition().end..self.frame_len()
    }

    /// Frames in the batch that a commit ends; 0 for other frames.
    pub fn count(&self) -> usize {
        match self.kind {
            Kind::Commit { count, .. } => count as usize,
            Kind::Put { .. } | Kind::Delete => 0,
        }
    }

    /// Whether a value is sealed in it.
    pub fn has_value(&self) -> bool {
        matches!(self.kind, Kind::Put { has_value: true })
    }

    /// The head as it lies on disk.
    pub fn bytes(&self) -> &[u8; HEAD_LEN] {
        &self.bytes
    }

    /// The chain that a commit states.
    pub fn chain(&self) -> [u8; 32] {
        part(&self.bytes, SALT)
    }

    /// Whether the salt was overwritten, because the frame is dead.
    pub fn is_wiped(&self) -> bool {
        part(&self.bytes, SALT) == [0; 32]
    }
}

/// The running hash over all heads of a log. Each commit states it, and starts the next one.
#[derive(Clone)]
pub struct Chain(Context);

impl Chain {
    /// The chain of a log that begins.
    pub fn begin(store: StoreId) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(b"strongroom log v1");
        hash.update(&store.0);
        Self(hash)
    }

    /// The chain behind a commit.
    pub fn after(commit: &Head) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(&commit.bytes);
        Self(hash)
    }

    /// Adds a head. A put's salt is left out: it is overwritten when the frame is dead, and its commitment binds it.
    pub fn add(&mut self, head: &Head) {
        let mut bytes = head.bytes;
        if let Kind::Put { .. } = head.kind {
            write(&mut bytes, SALT.start, &[0; 32]);
        }
        self.0.update(&bytes);
    }

    /// What a commit here states.
    pub fn finish(self) -> [u8; 32] {
        let mut chain = [0; 32];
        chain.copy_from_slice(self.0.finish().as_ref());
        chain
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chain")
    }
}

/// Copies `field` into `bytes` at `at`; says where it ends. Only called with constant places inside the head.
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
pub(super) fn write(bytes: &mut [u8], at: usize, field: &[u8]) -> usize {
    bytes[at..at + field.len()].copy_from_slice(field);
    at + field.len()
}

/// The `N` bytes at a constant place inside the head.
#[allow(clippy::indexing_slicing)]
pub(super) fn part<const N: usize>(head: &[u8; HEAD_LEN], place: Range<usize>) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&head[place]);
    part
}
