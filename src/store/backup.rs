//! Reading a backup: what is in it, what still opens, and by name what doesn't.
//!
//! Header and keyring stand at both ends, and either one will do. The log is read as one that has been through something:
//! every frame that proves itself counts, wherever it lies, and the table of contents says which ones there must be. A
//! frame that the table doesn't have was put there from elsewhere.
//!
//! Leans on `seal` and `log`. Refuses to believe a length before it was held against the file's own, and to call a backup
//! sound before every value in it was opened.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ::uuid::Uuid;

use super::disk::{Failing, File, open_outside};
use super::kept::Kept;
use super::log::Log;
use super::{Finding, StoreError};
use crate::administration::{Lost, RecordState, Verified};
use crate::seal::{
    BACKUP_HEADER, BLOCK_LEN, BackupHeader, BackupHeaderError, Keyring, KeyringError, Listed, LockedKeyring,
    MAX_KEYRING, Opened, Opener, SlotInfo, TableBlock,
};

/// A backup, before anything in it is proved.
pub struct BackupFile {
    file: Arc<dyn File>,
    len: u64,
    /// The headers that could be read, at most two; and the keyrings.
    headers: Vec<[u8; BACKUP_HEADER]>,
    keyrings: Vec<LockedKeyring>,
}

/// A backup whose keyring opened and whose header is proved.
pub struct OpenBackup {
    file: Arc<dyn File>,
    len: u64,
    header: BackupHeader,
    header_bytes: [u8; BACKUP_HEADER],
    keyring: Keyring,
    sound: bool,
    slot: SlotInfo,
}

/// What a backup holds.
pub struct Inspected {
    /// What opens, and what is wrong.
    pub verified: Verified,
    /// Secrets that are lost.
    pub lost: Vec<Lost>,
    /// Secrets whose value is.
    pub without_value: Vec<Lost>,
    /// Secrets that are lost without a trace of whose they were.
    pub unnamed: usize,
    pub(super) kept: Kept,
    pub(super) log: Arc<dyn File>,
    /// The highest number in its log that proves itself.
    pub(super) generation: u64,
}

impl BackupFile {
    /// Opens the file at `path`, for reading only.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = open_outside(path).map_err(StoreError::io("open the backup"))?;
        Self::read(Arc::new(Failing::new(file)))
    }

    /// Reads a backup's ends: their shape only.
    pub fn read(file: Arc<dyn File>) -> Result<Self, StoreError> {
        let len = file.size().map_err(reading)?;
        let ends = [Some(0), len.checked_sub(BACKUP_HEADER as u64)];
        let (mut headers, mut newer) = (Vec::new(), None);
        for at in ends.into_iter().flatten() {
            let mut bytes = [0; BACKUP_HEADER];
            if len < BACKUP_HEADER as u64 {
                break;
            }
            file.read_at(&mut bytes, at).map_err(reading)?;
            match BackupHeader::decode(&bytes) {
                Ok(_) if headers.contains(&bytes) => {}
                Ok(_) => headers.push(bytes),
                Err(BackupHeaderError::Newer(version)) => _ = newer.get_or_insert(version),
                Err(BackupHeaderError::NoHeader) => {}
            }
        }
        match (headers.is_empty(), newer) {
            (true, Some(version)) => return Err(StoreError::BackupNewer(version)),
            (true, None) => return Err(StoreError::NoBackup("it doesn't begin or end like one")),
            _ => {}
        }
        let mut backup = Self { file, len, headers, keyrings: Vec::new() };
        backup.read_keyrings()?;
        Ok(backup)
    }

    /// The slots that it says open it.
    pub fn slots(&self) -> impl Iterator<Item = &SlotInfo> {
        self.keyrings.first().into_iter().flat_map(LockedKeyring::slots)
    }

    /// Opens it.
    pub fn unlock(self, openers: &[Opener]) -> Result<OpenBackup, StoreError> {
        let (mut opened, mut failed) = (None, None);
        for keyring in &self.keyrings {
            match keyring.unlock(openers) {
                Ok(better) if better.sound || opened.is_none() => opened = Some(better),
                Ok(_) => {}
                Err(error @ KeyringError::Locked(_)) => failed = Some(error),
                Err(error) => _ = failed.get_or_insert(error),
            }
            if opened.as_ref().is_some_and(|opened| opened.sound) {
                break;
            }
        }
        let Some(opened) = opened else {
            return Err(
                failed.map_or(StoreError::NoBackup("its keyring is damaged, at both ends"), Into::into)
            );
        };
        let proved = self.headers.into_iter().find_map(|bytes| {
            let header = BackupHeader::decode(&bytes).ok()?;
            let proved = opened.keyring.cipher(header.epoch)?.proves_backup(&bytes);
            (proved && header.store == opened.keyring.store()).then_some((header, bytes))
        });
        let (header, header_bytes) =
            proved.ok_or(StoreError::NoBackup("its header is damaged, at both ends"))?;
        let (file, len) = (self.file, self.len);
        let Opened { keyring, sound, slot } = opened;
        Ok(OpenBackup { file, len, header, header_bytes, keyring, sound, slot })
    }

    /// Looks for the keyring at both ends, by every length that is stated.
    fn read_keyrings(&mut self) -> Result<(), StoreError> {
        let stated = self.headers.iter().filter_map(|bytes| BackupHeader::decode(bytes).ok());
        let mut lens: Vec<u64> = stated.map(|header| header.keyring_len as u64).collect();
        let front = BACKUP_HEADER as u64;
        // It says its own length too.
        let mut own = [0; 4];
        if self.file.read_at(&mut own, front + 12).is_ok() {
            lens.push(u64::from(u32::from_le_bytes(own)).min(MAX_KEYRING as u64));
        }
        let mut newer = None;
        for back in [false, true] {
            for len in &lens {
                let at = if back { self.len.checked_sub(front + len) } else { Some(front) };
                let Some(at) = at.filter(|at| at + len <= self.len) else { continue };
                let mut bytes = vec![0; usize::try_from(*len).unwrap_or(0)];
                self.file.read_at(&mut bytes, at).map_err(reading)?;
                match LockedKeyring::parse(&bytes) {
                    Ok(keyring) => {
                        self.keyrings.push(keyring);
                        break;
                    }
                    Err(KeyringError::Newer(version)) => newer = Some(version),
                    Err(_) => {}
                }
            }
        }
        match (self.keyrings.is_empty(), newer) {
            (true, Some(version)) => Err(KeyringError::Newer(version).into()),
            (true, None) => Err(StoreError::NoBackup("its keyring is damaged, at both ends")),
            _ => Ok(()),
        }
    }
}

impl OpenBackup {
    /// What it says of itself.
    pub fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// Its keyring.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// The slot that opened it.
    pub fn slot(&self) -> &SlotInfo {
        &self.slot
    }

    /// Opens every record in it, and holds them against its table of contents.
    pub fn inspect(&self) -> Result<Inspected, StoreError> {
        let mut findings = self.inspect_ends()?;
        let (listed, whole) = self.read_table(&mut findings)?;
        let log_at = self.header.log_at();
        let there = self.len.saturating_sub(log_at).min(self.header.log_len);
        let log: Arc<dyn File> = Arc::new(Part { file: Arc::clone(&self.file), from: log_at, len: there });
        let is_cut = there < self.header.log_len;
        let salvaged = Log::salvage(&*log, &self.keyring, None)?;
        for damage in &salvaged.damage {
            if !(is_cut && damage.bytes.end == there) {
                let (from, to) = (log_at + damage.bytes.start, log_at + damage.bytes.end);
                findings.push(damaged(format!("its log, between bytes {from} and {to}")));
            }
        }
        if salvaged.damage.is_empty() && !is_cut && salvaged.last_commit != self.header.last_commit {
            findings.push(damaged("the end of its log"));
        }
        let mut taken = Vec::new();
        for (uuid, entry) in salvaged.index.entries() {
            match listed.get(&uuid) {
                Some(listed) if listed.generation == entry.place.generation => taken.push((uuid, entry)),
                None if !whole => taken.push((uuid, entry)),
                Some(_) => {}
                None => findings.push(Finding::BackupRecordStray { uuid }),
            }
        }
        let is_taken: std::collections::HashSet<Uuid> = taken.iter().map(|(uuid, _)| *uuid).collect();
        let kept = Kept::among(&*log, &self.keyring, taken.into_iter())?;
        let mut lost: Vec<Lost> = kept.those(RecordState::DefinitionDamaged);
        for lost in &mut lost {
            lost.usage = listed.get(&lost.uuid).and_then(|listed| listed.usage.clone());
        }
        let gone = listed.into_values().filter(|listed| !is_taken.contains(&listed.uuid));
        lost.extend(gone.map(|listed| Lost { uuid: listed.uuid, usage: listed.usage }));
        lost.sort_unstable_by_key(|lost| lost.uuid);
        findings.extend(
            lost.iter()
                .map(|Lost { uuid, usage }| Finding::BackupRecordLost { uuid: *uuid, usage: usage.clone() }),
        );
        let without_value = kept.those(RecordState::ValueDamaged);
        findings.extend(without_value.iter().map(|lost| Finding::ValueDamaged { uuid: lost.uuid }));
        let named = (kept.sound() + without_value.len() + lost.len()) as u64;
        let unnamed = self.header.records.saturating_sub(named);
        if unnamed > 0 {
            findings.push(Finding::BackupRecordsUnnamed { count: unnamed });
        }
        let verified = Verified { sound: kept.sound(), secrets: kept.checked.clone(), findings };
        let unnamed = usize::try_from(unnamed).unwrap_or(usize::MAX);
        Ok(Inspected { verified, lost, without_value, unnamed, kept, log, generation: salvaged.generation })
    }

    /// Whether what stands at both ends is as it was written.
    fn inspect_ends(&self) -> Result<Vec<Finding>, StoreError> {
        let mut findings = Vec::new();
        let expected = self.header.file_len().unwrap_or(u64::MAX);
        if self.len < expected {
            findings.push(Finding::BackupCut { expected, len: self.len });
        }
        if self.len > expected {
            findings.push(damaged("what follows its end"));
        }
        if !self.sound {
            findings.push(damaged("its keyring, at both ends"));
        }
        let keyring = self.keyring.encode()?;
        let (header_len, keyring_len) = (BACKUP_HEADER as u64, keyring.len() as u64);
        let parts: [(&str, &[u8], u64); 4] = [
            ("its first header", &self.header_bytes, 0),
            ("its first keyring", &keyring, header_len),
            ("its second keyring", &keyring, expected.saturating_sub(header_len + keyring_len)),
            ("its second header", &self.header_bytes, expected.saturating_sub(header_len)),
        ];
        for (part, right, at) in parts {
            let mut bytes = vec![0; right.len()];
            if at.saturating_add(right.len() as u64) > self.len {
                continue; // cut, and named so
            }
            self.file.read_at(&mut bytes, at).map_err(reading)?;
            if bytes != right && (self.sound || !part.ends_with("keyring")) {
                findings.push(damaged(part));
            }
        }
        Ok(findings)
    }

    /// The table of contents, and whether it is whole.
    fn read_table(&self, findings: &mut Vec<Finding>) -> Result<(HashMap<Uuid, Listed>, bool), StoreError> {
        let cipher = self.keyring.cipher(self.header.epoch).ok_or(StoreError::Damaged("header"))?;
        let (mut listed, mut whole) = (HashMap::new(), true);
        for number in 0..self.header.blocks {
            let at = self.header.table_at() + u64::from(number) * BLOCK_LEN as u64;
            let mut sealed = [0; BLOCK_LEN];
            if at + BLOCK_LEN as u64 > self.len {
                whole = false; // cut, and named so
                break;
            }
            self.file.read_at(&mut sealed, at).map_err(reading)?;
            match TableBlock::open(cipher, &self.header_bytes, number, &mut sealed) {
                Ok(lines) => listed.extend(lines.into_iter().map(|line| (line.uuid, line))),
                Err(_) => {
                    whole = false;
                    findings.push(damaged(format!("block {number} of its table of contents")));
                }
            }
        }
        Ok((listed, whole))
    }
}

/// A part of a file, as a file.
struct Part {
    file: Arc<dyn File>,
    from: u64,
    len: u64,
}

impl File for Part {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        match at.checked_add(bytes.len() as u64) {
            Some(end) if end <= self.len => self.file.read_at(bytes, self.from + at),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn reading(error: io::Error) -> StoreError {
    StoreError::Io("read the backup".into(), error)
}

fn damaged(part: impl Into<String>) -> Finding {
    Finding::BackupDamaged { part: part.into() }
}
