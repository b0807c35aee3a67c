//! A backup's header, and its sealed table of contents.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `SRBACKUP` |
//! | 8 | 2 | version, 1 |
//! | 10 | 1 | suite, 1: HKDF-SHA256, AES-256-GCM |
//! | 11 | 1 | zero |
//! | 12 | 4 | length of the keyring |
//! | 16 | 16 | store id |
//! | 32 | 8 | generation of the store's last commit when the backup was made |
//! | 40 | 8 | generation of the last commit in the backup's log |
//! | 48 | 8 | made at, Unix seconds |
//! | 56 | 8 | records |
//! | 64 | 8 | length of the log |
//! | 72 | 4 | blocks of the table of contents |
//! | 76 | 4 | the epoch whose key seals header and table |
//! | 80 | 32 | salt, random |
//! | 112 | 32 | commitment: bytes 0..112 under the epoch's key |
//!
//! The table is sealed in blocks of one size, each under a key of its own that the whole header and the block's number go
//! into: a block of another backup, or one that was moved, doesn't open, and a damaged one takes no other with it.
//!
//! Leans on `frame`'s epoch key and on ring. Refuses lengths that make no file, before anything is read or allocated
//! by them.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use ::uuid::Uuid;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use subtle::ConstantTimeEq;

use super::SealError;
use super::fields::Fields;
use super::frame::EpochCipher;
use super::kdf::expand;
use super::key::{StoreId, random};
use super::keyring::MAX_KEYRING;
use crate::memory::scrubbed;

/// A backup header's length.
pub const BACKUP_HEADER: usize = 144;
/// A sealed block's length.
pub const BLOCK_LEN: usize = BLOCK + TAG;

const MAGIC: &[u8; 8] = b"SRBACKUP";
const VERSION: u16 = 1;
const SUITE: u8 = 1;
/// What of the header its commitment covers.
const COMMITTED: usize = 112;
/// A block's plain length.
const BLOCK: usize = 4096;
const TAG: usize = 16;
/// Of a usage, so many bytes are kept: enough to know it by.
const MAX_USAGE: usize = 1024;
/// An entry without its usage.
const ENTRY: usize = 1 + 16 + 8 + 2;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupHeader {
    /// How long its keyring is, in bytes.
    pub keyring_len: usize,
    /// The store that it is of.
    pub store: StoreId,
    /// The last commit of the store when it was made.
    pub generation: u64,
    /// The last commit of its log.
    pub last_commit: u64,
    /// When it was made, in Unix seconds.
    pub made_at: u64,
    /// How many records it has.
    pub records: u64,
    /// How long its log is, in bytes.
    pub log_len: u64,
    /// How many blocks its table of contents has.
    pub blocks: u32,
    /// The epoch whose key seals header and table.
    pub epoch: u32,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackupHeaderError {
    /// Not a backup, or its header is damaged.
    #[error("it doesn't begin like one")]
    NoHeader,
    /// Written by a later version.
    #[error("it was written by a newer version of Strongroom (backup format {0})")]
    Newer(u16),
}

/// One line of a table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which secret.
    pub uuid: Uuid,
    /// Its record's generation.
    pub generation: u64,
    /// What it is for, in words. `None`: its definition didn't open when the backup was made.
    pub usage: Option<String>,
}

impl BackupHeader {
    /// The header's bytes, with a fresh salt.
    pub fn encode(&self, cipher: &EpochCipher) -> Result<[u8; BACKUP_HEADER], SealError> {
        let mut bytes = Vec::with_capacity(BACKUP_HEADER);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([SUITE, 0]);
        bytes.extend(u32::try_from(self.keyring_len).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(self.store.0);
        for number in [self.generation, self.last_commit, self.made_at, self.records, self.log_len] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.blocks.to_le_bytes());
        bytes.extend(cipher.epoch().to_le_bytes());
        bytes.extend(random::<32>()?);
        let commitment = cipher.backup_commitment(&bytes);
        bytes.extend(commitment);
        bytes.try_into().map_err(|_| SealError::Damaged)
    }

    /// Reads a header: its shape only. Its lengths are within bounds afterwards, and make a file.
    pub fn decode(bytes: &[u8; BACKUP_HEADER]) -> Result<Self, BackupHeaderError> {
        let mut fields = Fields(bytes);
        if &fields.take::<8>() != MAGIC {
            return Err(BackupHeaderError::NoHeader);
        }
        let version = fields.u16();
        if version > VERSION {
            return Err(BackupHeaderError::Newer(version));
        }
        let [suite, zero] = fields.take();
        let keyring_len = fields.u32() as usize;
        let store = StoreId(fields.take());
        let [generation, last_commit, made_at, records, log_len] = std::array::from_fn(|_| fields.u64());
        let (blocks, epoch) = (fields.u32(), fields.u32());
        let header =
            Self { keyring_len, store, generation, last_commit, made_at, records, log_len, blocks, epoch };
        let right = version == VERSION && suite == SUITE && zero == 0 && keyring_len <= MAX_KEYRING;
        if right && header.file_len().is_some() { Ok(header) } else { Err(BackupHeaderError::NoHeader) }
    }

    /// Where the table of contents begins. The keyring lies before it, behind the header.
    #[allow(clippy::arithmetic_side_effects)] // bounded by `decode`
    pub fn table_at(&self) -> u64 {
        (BACKUP_HEADER + self.keyring_len) as u64
    }

    /// Where the log begins.
    #[allow(clippy::arithmetic_side_effects)] // bounded by `decode`
    pub fn log_at(&self) -> u64 {
        self.table_at() + u64::from(self.blocks) * BLOCK_LEN as u64
    }

    /// How long the whole file is: behind the log, keyring and header stand a second time.
    pub fn file_len(&self) -> Option<u64> {
        let (ends, table) =
            (u64::try_from(BACKUP_HEADER.checked_add(self.keyring_len)?).ok()?, u64::from(self.blocks));
        let table = table.checked_mul(BLOCK_LEN as u64)?;
        ends.checked_mul(2)?.checked_add(table)?.checked_add(self.log_len)
    }
}

/// What goes into a table of contents, block by block.
#[derive(Debug, Default)]
pub struct TableBlock(Vec<u8>);

impl TableBlock {
    /// Puts a line in, if there is room for it.
    pub fn push(&mut self, line: &Listed) -> bool {
        let usage = line.usage.as_deref().map_or("", shortened);
        if self.0.len().saturating_add(entry_len(line.usage.as_deref())) > BLOCK {
            return false;
        }
        self.0.push(if line.usage.is_some() { 1 } else { 2 });
        self.0.extend(line.uuid.as_bytes());
        self.0.extend(line.generation.to_le_bytes());
        self.0.extend(u16::try_from(usage.len()).unwrap_or(0).to_le_bytes());
        self.0.extend(usage.as_bytes());
        true
    }

    /// How many blocks lines with these usages take.
    pub fn count<'a>(usages: impl Iterator<Item = Option<&'a str>>) -> u32 {
        let (mut blocks, mut room) = (0_u32, 0_usize);
        for usage in usages {
            let len = entry_len(usage);
            room = match room.checked_sub(len) {
                Some(left) => left,
                None => {
                    blocks = blocks.saturating_add(1);
                    BLOCK.saturating_sub(len)
                }
            };
        }
        blocks
    }

    /// The block as it lies in the file.
    pub fn seal(
        mut self,
        cipher: &EpochCipher,
        header: &[u8; BACKUP_HEADER],
        number: u32,
    ) -> Result<Vec<u8>, SealError> {
        self.0.resize(BLOCK, 0);
        let sealed = scrubbed(|| {
            let key = cipher.block_key(header, number)?;
            key.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut self.0)
        });
        self.0.extend(sealed.map_err(|_| SealError::Damaged)?.as_ref());
        Ok(self.0)
    }

    /// The lines of a block.
    pub fn open(
        cipher: &EpochCipher,
        header: &[u8; BACKUP_HEADER],
        number: u32,
        sealed: &mut [u8],
    ) -> Result<Vec<Listed>, SealError> {
        let opened =
            scrubbed(|| cipher.block_key(header, number)?.open_in_place(nonce(), Aad::empty(), sealed));
        lines(opened.map_err(|_| SealError::Damaged)?).ok_or(SealError::Damaged)
    }
}

impl EpochCipher {
    /// Whether a backup's header was made under this epoch's key, and is as it was made.
    pub fn proves_backup(&self, header: &[u8; BACKUP_HEADER]) -> bool {
        let (committed, stated) = header.split_at(COMMITTED);
        scrubbed(|| self.backup_commitment(committed)).ct_eq(stated).into()
    }

    fn backup_commitment(&self, header: &[u8]) -> [u8; 32] {
        scrubbed(|| expand(self.prk(), &[b"strongroom backup header v1", header]))
    }

    /// The key of one block. The caller scrubs the stack.
    fn block_key(
        &self,
        header: &[u8; BACKUP_HEADER],
        number: u32,
    ) -> Result<LessSafeKey, ring::error::Unspecified> {
        let info: [&[u8]; 3] = [b"strongroom backup contents v1", header, &number.to_le_bytes()];
        let okm = self.prk().expand(&info, &AES_256_GCM)?;
        Ok(LessSafeKey::new(UnboundKey::from(okm)))
    }
}

fn lines(plain: &[u8]) -> Option<Vec<Listed>> {
    let (mut fields, mut lines) = (Fields(plain), Vec::new());
    while let Some([kind]) = fields.try_take() {
        if kind == 0 {
            break;
        }
        let (uuid, generation) = (Uuid::from_bytes(fields.try_take()?), fields.u64());
        let (usage, rest) = {
            let len = usize::from(u16::from_le_bytes(fields.try_take()?));
            fields.0.split_at_checked(len)?
        };
        fields.0 = rest;
        let usage = if kind == 1 { Some(std::str::from_utf8(usage).ok()?.to_owned()) } else { None };
        lines.push(Listed { uuid, generation, usage });
    }
    Some(lines)
}

fn entry_len(usage: Option<&str>) -> usize {
    ENTRY.saturating_add(usage.map_or("", shortened).len())
}

/// As much of a usage as an entry holds.
fn shortened(usage: &str) -> &str {
    (0..=MAX_USAGE.min(usage.len())).rev().find_map(|len| usage.get(..len)).unwrap_or_default()
}

/// Each key is used once.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::SecretBytes;
    use crate::seal::key::EpochKey;

    fn cipher(key: u8) -> EpochCipher {
        let key = EpochKey(SecretBytes::copy_of(&[key; 32]).unwrap());
        EpochCipher::new(1, StoreId([0x11; 16]), &key).unwrap()
    }

    fn header() -> BackupHeader {
        BackupHeader {
            keyring_len: 448,
            store: StoreId([0x11; 16]),
            generation: 7,
            last_commit: 9,
            made_at: 1_700_000_000,
            records: 3,
            log_len: 960,
            blocks: 1,
            epoch: 1,
        }
    }

    fn line(number: u8, usage: Option<&str>) -> Listed {
        let usage = usage.map(str::to_owned);
        Listed { uuid: Uuid::from_bytes([number; 16]), generation: u64::from(number), usage }
    }

    #[test]
    fn a_header_comes_back_and_no_byte_of_it_can_change() {
        let bytes = header().encode(&cipher(1)).unwrap();
        assert_eq!(BackupHeader::decode(&bytes), Ok(header()));
        assert!(cipher(1).proves_backup(&bytes) && !cipher(2).proves_backup(&bytes));
        for at in 0..BACKUP_HEADER {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert!(!cipher(1).proves_backup(&changed), "byte {at}");
        }
        let mut newer = bytes;
        newer[8] = 2;
        assert_eq!(BackupHeader::decode(&newer), Err(BackupHeaderError::Newer(2)));
    }

    #[test]
    fn lengths_that_make_no_file_are_refused() {
        for spoil in [
            |header: &mut BackupHeader| header.log_len = u64::MAX,
            |header: &mut BackupHeader| header.keyring_len = MAX_KEYRING + 1,
        ] {
            let mut header = header();
            spoil(&mut header);
            let bytes = header.encode(&cipher(1)).unwrap();
            assert_eq!(BackupHeader::decode(&bytes), Err(BackupHeaderError::NoHeader));
        }
    }

    #[test]
    fn a_block_opens_in_its_own_place_only() {
        let (one, two) = (header().encode(&cipher(1)).unwrap(), header().encode(&cipher(1)).unwrap());
        let listed = [line(1, Some("volume /a")), line(2, None), line(3, Some(""))];
        let mut block = TableBlock::default();
        assert!(listed.iter().all(|line| block.push(line)));
        let sealed = block.seal(&cipher(1), &one, 4).unwrap();
        assert_eq!(sealed.len(), BLOCK_LEN);
        let open = |key, header, number| TableBlock::open(&cipher(key), header, number, &mut sealed.clone());
        assert_eq!(open(1, &one, 4).unwrap(), listed);
        assert!(open(1, &one, 5).is_err() && open(1, &two, 4).is_err() && open(2, &one, 4).is_err());
    }

    #[test]
    fn blocks_are_counted_as_they_are_filled() {
        let long = "é".repeat(3000);
        let usages: Vec<_> =
            (0..500).map(|at| [Some("ceph client.one"), None, Some(&*long)][at % 3]).collect();
        let (mut blocks, mut block) = (0, TableBlock::default());
        for usage in &usages {
            if !block.push(&line(1, *usage)) {
                blocks += 1;
                block = TableBlock::default();
                assert!(block.push(&line(1, *usage)));
            }
        }
        assert_eq!(TableBlock::count(usages.iter().copied()), blocks + 1);
        assert_eq!(TableBlock::count(std::iter::empty()), 0);
    }
}
