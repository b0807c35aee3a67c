//! A sealed copy of one moment, on its way out while changes go on.
//!
//! ```text
//! header · keyring · table of contents · log · keyring · header
//! ```
//!
//! The log is what compaction would write: the living frames as they are. The table says which records there are and what
//! each is for, so that what is damaged later can be named; it comes first, so that a copy that was cut has it whole.
//! Header and keyring stand at both ends: without them nothing opens, and a bad sector at one end must not cost that.
//!
//! Leans on `log` to hold the frames, and on `seal` for header and table. Refuses to go on when the store is closed: then
//! the keys are gone. Memory: about 50 bytes a secret, and a batch.

use std::sync::Arc;

use ::uuid::Uuid;

use super::disk::File;
use super::index::Place;
use super::log::{AppendError, CompactError, Copying, Hold, OnDamage};
use super::{Store, StoreError};
use crate::administration::usage_in_words;
use crate::seal::{BACKUP_HEADER, BackupHeader, Keyring, Listed, TableBlock};
use crate::secret::Definition;

/// No piece is longer.
const PIECE: usize = 1 << 20;

/// A copy under way. The frames that it has still to read are kept until this is dropped.
pub struct Snapshot {
    hold: Hold,
    file: Arc<dyn File>,
    header: [u8; BACKUP_HEADER],
    keyring: Vec<u8>,
    total: u64,
    /// Numbers up to this were given to frames.
    generation: u64,
    stage: Stage,
    /// What is made, and not yet taken; from here on.
    made: Vec<u8>,
    taken: usize,
}

/// What comes next.
enum Stage {
    Front(Vec<Living>),
    Table { living: Vec<Living>, next: usize, block: u32 },
    Log(Box<Copying>),
    Done,
}

/// A record of that moment.
struct Living {
    place: Place,
    uuid: Uuid,
    definition: Option<Arc<Definition>>,
}

impl Living {
    fn usage(&self) -> Option<String> {
        self.definition.as_ref().map(|definition| usage_in_words(&definition.usage))
    }
}

impl Store {
    /// Begins a copy of this moment. Changes wait until it is begun, and then go on. `now`: Unix seconds.
    pub fn snapshot(&self, now: u64) -> Result<Snapshot, StoreError> {
        let (hold, file, keyring, mut living, log) = self.while_quiet(|log| {
            let keyring = self.keyring();
            let contents = self.contents();
            let living = contents.index.entries().map(|(uuid, entry)| {
                let definition = entry.definition.clone();
                Living { place: entry.place, uuid, definition }
            });
            let standing = (log.last_commit().0, log.generation());
            Ok((log.hold(Arc::clone(&keyring)), log.file(), keyring, living.collect::<Vec<_>>(), standing))
        })?;
        living.sort_unstable_by_key(|living| living.place.at);
        let (last_commit, given) = log;
        let newest = living.iter().map(|living| living.place.generation).max().unwrap_or(0);
        let generation = newest.max(last_commit).max(given);
        let (log_len, commits) = Copying::measure(living.iter().map(|living| living.place));
        let usages: Vec<Option<String>> = living.iter().map(Living::usage).collect();
        let keyring_bytes = keyring.encode()?;
        let header = BackupHeader {
            keyring_len: keyring_bytes.len(),
            store: keyring.store(),
            generation: newest.max(last_commit),
            last_commit: generation + commits + 1,
            made_at: now,
            records: living.len() as u64,
            log_len: log_len + END_LEN,
            blocks: TableBlock::count(usages.iter().map(Option::as_deref)),
            epoch: keyring.current().epoch(),
        };
        let total = header.file_len().ok_or(StoreError::NoBackup("it would be too long"))?;
        Ok(Snapshot {
            hold,
            file,
            header: header.encode(keyring.current())?,
            keyring: keyring_bytes,
            total,
            generation,
            stage: Stage::Front(living),
            made: Vec::new(),
            taken: 0,
        })
    }
}

impl Snapshot {
    /// How long the whole is, in bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The next piece, at most 1 MiB; `None` behind the last. After an error the copy is of no use.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        if self.taken == self.made.len() {
            self.taken = 0;
            self.made.clear();
            if let Err(error) = self.make() {
                self.stage = Stage::Done;
                return Err(error);
            }
        }
        let piece = &self.made[self.taken..];
        let piece = &piece[..piece.len().min(PIECE)];
        self.taken += piece.len();
        Ok(Some(piece.to_vec()).filter(|piece| !piece.is_empty()))
    }

    /// Makes what comes next.
    fn make(&mut self) -> Result<(), StoreError> {
        if matches!(self.stage, Stage::Done) {
            return Ok(());
        }
        // While this holds, what was read before was not wiped.
        let keyring = self.hold.keyring().ok_or(StoreError::CopyEnded)?;
        self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Front(living) => {
                self.made.extend(self.header);
                self.made.extend(&self.keyring);
                Stage::Table { living, next: 0, block: 0 }
            }
            Stage::Table { living, next, block } if next < living.len() => {
                let (next, block) = self.make_blocks(&living, next, block, &keyring)?;
                Stage::Table { living, next, block }
            }
            Stage::Table { living, .. } => {
                let living = living.into_iter().map(|living| (living.place, living.uuid)).collect();
                let copying = Copying::new(living, &keyring, self.generation, OnDamage::Copy);
                self.make_batch(Box::new(copying), &keyring)?
            }
            Stage::Log(copying) => self.make_batch(copying, &keyring)?,
            Stage::Done => Stage::Done,
        };
        Ok(())
    }

    /// Blocks of the table, about a piece of them. Gives the next record and the next block's number.
    fn make_blocks(
        &mut self,
        living: &[Living],
        mut next: usize,
        mut number: u32,
        keyring: &Keyring,
    ) -> Result<(usize, u32), StoreError> {
        let cipher = keyring.current();
        let mut block = TableBlock::default();
        while let Some(record) = living.get(next) {
            let listed =
                Listed { uuid: record.uuid, generation: record.place.generation, usage: record.usage() };
            if block.push(&listed) {
                next += 1;
                continue;
            }
            self.made.extend(std::mem::take(&mut block).seal(cipher, &self.header, number)?);
            number += 1;
            if self.made.len() >= PIECE / 4 {
                return Ok((next, number));
            }
        }
        self.made.extend(block.seal(cipher, &self.header, number)?);
        Ok((next, number + 1))
    }

    /// A batch of the log, or what stands behind the last.
    fn make_batch(&mut self, mut copying: Box<Copying>, keyring: &Keyring) -> Result<Stage, StoreError> {
        let batch = copying.next(&*self.file, keyring).map_err(|error| match error {
            CompactError::Unchanged(AppendError::Seal(error)) => error.into(),
            CompactError::Unchanged(AppendError::Failed(error) | AppendError::NoSpace(error))
            | CompactError::Unknown(error) => StoreError::Io("read secrets.log".into(), error),
            CompactError::Damaged => StoreError::Damaged("record"),
        })?;
        if let Some(batch) = batch {
            self.made = batch.bytes;
            return Ok(Stage::Log(copying));
        }
        self.made = copying.seal_end(keyring)?;
        self.made.extend(&self.keyring);
        self.made.extend(self.header);
        Ok(Stage::Done)
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("total", &self.total).finish_non_exhaustive()
    }
}

/// The commit of nothing at the log's end.
const END_LEN: u64 = crate::seal::HEAD_LEN as u64;
