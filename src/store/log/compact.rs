//! Copying the living frames, as they are, into a new log: for compaction, for backups, and for what comes of them.
//!
//! Frames are self-contained, so nothing is opened or sealed but the new log's commits. Their generations are behind
//! the old log's last one, which is how an anchor tells a compacted log from an older one. Leans on `log`'s and
//! `disk`'s ways. Refuses to lose: until the rename the old log is untouched, and behind it both the new log and its
//! name are made durable before anything is written to it.

use std::io;
use std::iter::Peekable;
use std::sync::Arc;
use std::vec::IntoIter;

use ::uuid::Uuid;

use super::super::disk::{Directory, File, create_anew};
use super::super::index::{Index, Place};
use super::{AppendError, Holds, LOG, LOG_NEW, Log};
use crate::seal::{Chain, HEAD_LEN, Head, Keyring, SealError};

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

impl From<SealError> for CompactError {
    fn from(error: SealError) -> Self {
        Self::Unchanged(error.into())
    }
}

/// What to do about a frame that doesn't prove itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum OnDamage {
    /// Give up: a new chain over it would say that it is right.
    Refuse,
    /// Copy its bytes, and leave it out of the chain: whoever reads the copy sees what is wrong with it.
    Copy,
}

/// A copy under way.
pub(in crate::store) struct Copying {
    living: Peekable<IntoIter<(Place, Uuid)>>,
    on_damage: OnDamage,
    chain: Chain,
    generation: u64,
    /// Where the next batch begins.
    end: u64,
    begun: bool,
}

/// A batch of a copy.
pub(in crate::store) struct CopiedBatch {
    /// Its frames and its commit.
    pub(in crate::store) bytes: Vec<u8>,
    /// Where each frame begins now.
    places: Vec<(Uuid, u64)>,
    commit: Head,
}

impl Copying {
    /// Begins a copy of these frames. Its commits get the generations behind `generation`.
    pub(in crate::store) fn new(
        mut living: Vec<(Place, Uuid)>,
        keyring: &Keyring,
        generation: u64,
        on_damage: OnDamage,
    ) -> Self {
        living.sort_unstable_by_key(|(place, _)| place.at);
        let chain = Chain::begin(keyring.store());
        Self { living: living.into_iter().peekable(), on_damage, chain, generation, end: 0, begun: false }
    }

    /// How long the copy is, and how many commits it has.
    pub(in crate::store) fn measure(living: impl Iterator<Item = Place>) -> (u64, u64) {
        let (mut batch, mut len, mut commits) = (0, 0, 0);
        for place in living {
            batch += place.frame_len as usize;
            len += u64::from(place.frame_len);
            if batch >= BATCH {
                (batch, commits) = (0, commits + 1);
            }
        }
        if batch > 0 || commits == 0 {
            commits += 1;
        }
        (len + commits * HEAD_LEN as u64, commits)
    }

    /// The next batch. A copy of nothing has one too.
    pub(in crate::store) fn next(
        &mut self,
        from: &dyn File,
        keyring: &Keyring,
    ) -> Result<Option<CopiedBatch>, CompactError> {
        if self.begun && self.living.peek().is_none() {
            return Ok(None);
        }
        self.begun = true;
        let (mut bytes, mut places, mut count) = (Vec::new(), Vec::new(), 0);
        for (place, uuid) in self.living.by_ref() {
            places.push((uuid, self.end + bytes.len() as u64));
            let at = bytes.len();
            bytes.resize(at + place.frame_len as usize, 0);
            from.read_at(&mut bytes[at..], place.at).map_err(AppendError::Failed)?;
            // A head that rotted since it was read must not get a new chain over it that says it is right.
            let head = bytes[at..].first_chunk().and_then(|head| Head::decode(head).ok());
            let is_right = |head: &Head| {
                let proved = keyring.cipher(head.epoch).is_some_and(|cipher| cipher.proves(head));
                head.uuid == uuid && Place::of(head, place.at) == place && proved
            };
            match head.filter(is_right) {
                Some(head) => self.chain.add(&head),
                None if self.on_damage == OnDamage::Copy => {}
                None => return Err(CompactError::Damaged),
            }
            count += 1;
            if bytes.len() >= BATCH {
                break;
            }
        }
        let commit = self.commit(count, keyring)?;
        bytes.extend(commit.bytes());
        self.end += bytes.len() as u64;
        Ok(Some(CopiedBatch { bytes, places, commit }))
    }

    /// A commit of nothing, behind the last batch: damage to that one is told apart from an end that is missing.
    pub(in crate::store) fn seal_end(&mut self, keyring: &Keyring) -> Result<Vec<u8>, SealError> {
        Ok(self.commit(0, keyring)?.bytes().to_vec())
    }

    fn commit(&mut self, count: u32, keyring: &Keyring) -> Result<Head, SealError> {
        self.generation += 1;
        let (cipher, serial) = (keyring.current(), keyring.serial());
        let commit = cipher.commit(self.generation, count, serial, self.chain.clone(), false)?.head;
        self.chain = Chain::after(&commit);
        Ok(commit)
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
        let living = index.entries().map(|(uuid, entry)| (entry.place, uuid)).collect();
        let copying = Copying::new(living, keyring, self.generation, OnDamage::Refuse);
        let (mut log, places) = Self::copied(etc, LOG_NEW, copying, &*self.file, keyring)?;
        log.holds = Arc::clone(&self.holds);
        etc.rename(LOG_NEW, LOG).map_err(CompactError::Unknown)?;
        etc.sync().map_err(CompactError::Unknown)?;
        Ok((log, places))
    }

    /// Writes a copy into a new file of this name, durable when this returns. Gives the log that it is, and each frame's
    /// place in it.
    pub(in crate::store) fn copied(
        etc: &dyn Directory,
        name: &str,
        mut copying: Copying,
        from: &dyn File,
        keyring: &Keyring,
    ) -> Result<(Self, Vec<(Uuid, u64)>), CompactError> {
        let file = create_anew(etc, name).map_err(AppendError::Failed)?;
        let mut write = || -> Result<_, CompactError> {
            let (mut at, mut places, mut last) = (0, Vec::new(), None);
            while let Some(batch) = copying.next(from, keyring)? {
                file.write_at(&batch.bytes, at).map_err(AppendError::Failed)?;
                at += batch.bytes.len() as u64;
                places.extend(batch.places);
                last = Some(batch.commit);
            }
            file.sync().map_err(AppendError::Failed)?;
            Ok((last, places))
        };
        let (last, places) = write().inspect_err(|_| {
            // What was written is of no use. If it can't be removed now, the next open does it.
            _ = etc.remove(name);
        })?;
        let Some(last) = last else { unreachable!("a copy has a batch at least") };
        let mut log = Self {
            file: Arc::clone(&file),
            end: copying.end,
            chain: copying.chain,
            last_chain: [0; 32],
            generation: copying.generation,
            last_commit: 0,
            closed: false,
            holds: Arc::<Holds>::default(),
        };
        log.advance(&last, false);
        Ok((log, places))
    }
}
