//! Compaction: the living frames, copied as they are into a new log that takes the old one's place.
//!
//! Frames are self-contained, so nothing is opened or sealed but the new log's commits. Their generations are behind
//! the old log's last one, which is how an anchor tells a compacted log from an older one. Leans on `log`'s and
//! `disk`'s ways. Refuses to lose: until the rename the old log is untouched, and behind it both the new log and its
//! name are made durable before anything is written to it.

use std::io;

use ::uuid::Uuid;

use super::super::disk::Directory;
use super::super::index::{Index, Place};
use super::{AppendError, LOG, LOG_NEW, Log};
use crate::seal::{Chain, EpochCipher, HEAD_LEN, Head, Keyring};

/// A commit stands behind so many bytes of frames: recovery holds one batch in memory.
const BATCH: usize = 1 << 20;

/// Why there is no new log.
pub(in crate::store) enum CompactError {
    /// The old log stands as before.
    Unchanged(AppendError),
    /// A record in use doesn't prove itself any more; the old log stands as before.
    Damaged,
    /// Which of the two a power cut would leave is unknown.
    Unknown(io::Error),
}

impl From<AppendError> for CompactError {
    fn from(error: AppendError) -> Self {
        Self::Unchanged(error)
    }
}

impl Log {
    /// Writes a new log of the frames in `index`, and puts it in this one's place. Gives the new log and each frame's
    /// new place.
    pub(in crate::store) fn compacted(
        &self,
        etc: &dyn Directory,
        index: &Index,
        keyring: &Keyring,
    ) -> Result<(Self, Vec<(Uuid, u64)>), CompactError> {
        let (log, places) = self.copy(etc, index, keyring).inspect_err(|_| {
            // What was written is of no use. If it can't be removed now, the next open does it.
            _ = etc.remove(LOG_NEW);
        })?;
        etc.rename(LOG_NEW, LOG).map_err(CompactError::Unknown)?;
        etc.sync().map_err(CompactError::Unknown)?;
        Ok((log, places))
    }

    fn copy(
        &self,
        etc: &dyn Directory,
        index: &Index,
        keyring: &Keyring,
    ) -> Result<(Self, Vec<(Uuid, u64)>), CompactError> {
        let (cipher, serial) = (keyring.current(), keyring.serial());
        let mut living: Vec<(Place, Uuid)> =
            index.entries().map(|(uuid, entry)| (entry.place, uuid)).collect();
        living.sort_unstable_by_key(|(place, _)| place.at);
        let mut new = self.successor(etc, cipher)?;
        let mut places = Vec::with_capacity(living.len());
        let (mut batch, mut count) = (Vec::with_capacity(BATCH + HEAD_LEN), 0_u32);
        let mut rest = living.into_iter().peekable();
        while let Some((place, uuid)) = rest.next() {
            places.push((uuid, new.end + batch.len() as u64));
            let from = batch.len();
            batch.resize(from + place.frame_len as usize, 0);
            self.file.read_at(&mut batch[from..], place.at).map_err(AppendError::Failed)?;
            // A head that rotted since it was read must not get a new chain over it that says it is right.
            let head = batch[from..].first_chunk().and_then(|head| Head::decode(head).ok());
            let is_right = |head: &Head| {
                let proved = keyring.cipher(head.epoch).is_some_and(|cipher| cipher.proves(head));
                head.uuid == uuid && Place::of(head, place.at) == place && proved
            };
            new.chain.add(&head.filter(is_right).ok_or(CompactError::Damaged)?);
            count += 1;
            if batch.len() >= BATCH || rest.peek().is_none() {
                new.finish_batch(&mut batch, count, cipher, serial)?;
                count = 0;
            }
        }
        if places.is_empty() {
            new.finish_batch(&mut batch, 0, cipher, serial)?;
        }
        new.file.sync().map_err(AppendError::Failed)?;
        Ok((new, places))
    }

    /// An empty log beside this one.
    fn successor(&self, etc: &dyn Directory, cipher: &EpochCipher) -> Result<Self, AppendError> {
        let file = etc.create(LOG_NEW).map_err(AppendError::Failed)?;
        Ok(Self {
            file,
            end: 0,
            chain: Chain::begin(cipher.store()),
            last_chain: [0; 32],
            generation: self.generation,
            last_commit: 0,
            closed: false,
        })
    }

    fn finish_batch(
        &mut self,
        batch: &mut Vec<u8>,
        count: u32,
        cipher: &EpochCipher,
        keyring: u64,
    ) -> Result<(), AppendError> {
        let commit = cipher.commit(self.next_generation(), count, keyring, self.chain.clone(), false)?;
        batch.extend(&commit.bytes);
        self.file.write_at(batch, self.end).map_err(AppendError::Failed)?;
        self.end += batch.len() as u64;
        self.advance(&commit.head, false);
        batch.clear();
        Ok(())
    }
}
