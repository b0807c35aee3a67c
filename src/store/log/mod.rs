//! The log: one file of frames in batches, each batch ended by a commit.
//!
//! Appending is one write and one sync a batch. `recover` reads a log from its first byte, `compact` writes the living
//! frames anew. Leans on `seal` for the frames' bytes and on `disk`. Refuses to write behind a failure: after a failed
//! write or sync what lies on disk is unknown, and only the next open finds out.

mod compact;
mod epochs;
mod hold;
mod recover;
mod seen;

use std::io;
use std::sync::Arc;

use super::disk::File;
use super::index::Place;
use crate::seal::{Chain, EpochCipher, Frame, HEAD_LEN, Head, Keyring, SALT, SealError};

pub(super) use compact::{CompactError, Copying, OnDamage};
pub(super) use epochs::lacking;
pub(super) use hold::{Hold, Holds};
pub(super) use recover::{AnchorSeen, Recovered, Salvaged, Tail, Unreadable};
pub(super) use seen::Seen;

/// The log's name in `etc/secrets`.
pub const LOG: &str = "secrets.log";
/// A log that is being written, to take its place.
pub(super) const LOG_NEW: &str = "secrets.log.new";

/// An open log, at its end.
pub(super) struct Log {
    file: Arc<dyn File>,
    end: u64,
    chain: Chain,
    last_chain: [u8; 32],
    generation: u64,
    last_commit: u64,
    closed: bool,
    /// The copies that are being made of it.
    holds: Arc<Holds>,
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppendError {
    /// No space; nothing was written, and the log is as it was.
    #[error("no space: {0}")]
    NoSpace(io::Error),
    /// Writing or syncing failed: what lies on disk is unknown.
    #[error("{0}")]
    Failed(io::Error),
    /// A frame couldn't be sealed; nothing was written.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl Log {
    /// The bytes of a new store's log: one commit of nothing.
    pub(super) fn first_bytes(cipher: &EpochCipher, keyring: u64) -> Result<Vec<u8>, SealError> {
        Ok(cipher.commit(1, 0, keyring, Chain::begin(cipher.store()), true)?.bytes)
    }

    /// The number for the next frame.
    pub(super) fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// The highest number that was given.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Appends a batch and its commit; it is durable when this returns. Gives each frame's place.
    ///
    /// The frames must have been sealed with the latest [generations](Self::next_generation).
    pub(super) fn append(
        &mut self,
        frames: &[Frame],
        cipher: &EpochCipher,
        keyring: u64,
    ) -> Result<Vec<Place>, AppendError> {
        let places = self.write(frames, cipher, keyring, false)?;
        self.file.sync().map_err(AppendError::Failed)?;
        Ok(places)
    }

    /// Appends a commit that says the log was closed in order. Not synced: if it is lost, the next open takes longer.
    pub(super) fn close(&mut self, cipher: &EpochCipher, keyring: u64) -> Result<(), AppendError> {
        if !self.closed {
            self.write(&[], cipher, keyring, true)?;
        }
        Ok(())
    }

    fn write(
        &mut self,
        frames: &[Frame],
        cipher: &EpochCipher,
        keyring: u64,
        closed: bool,
    ) -> Result<Vec<Place>, AppendError> {
        let mut chain = self.chain.clone();
        let mut bytes =
            Vec::with_capacity(frames.iter().map(|frame| frame.bytes.len()).sum::<usize>() + HEAD_LEN);
        let mut places = Vec::with_capacity(frames.len());
        for frame in frames {
            places.push(Place::of(&frame.head, self.end + bytes.len() as u64));
            chain.add(&frame.head);
            bytes.extend(&frame.bytes);
        }
        let count = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        let commit = cipher.commit(self.next_generation(), count, keyring, chain, closed)?;
        bytes.extend(&commit.bytes);
        self.file.write_at(&bytes, self.end).map_err(|error| self.take_back(error))?;
        self.end += bytes.len() as u64;
        self.advance(&commit.head, closed);
        Ok(places)
    }

    /// Takes back a write that the disk had no room for: nothing of it was synced, so the end is where it was.
    fn take_back(&self, error: io::Error) -> AppendError {
        let no_room = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        if no_room && self.file.set_len(self.end).is_ok() {
            AppendError::NoSpace(error)
        } else {
            AppendError::Failed(error)
        }
    }

    fn advance(&mut self, commit: &Head, closed: bool) {
        self.chain = Chain::after(commit);
        self.last_chain = commit.chain();
        self.last_commit = commit.generation;
        self.closed = closed;
    }

    /// Cuts off what lies behind the last commit, and never gives its frames' numbers again.
    pub(super) fn cut_tail(&mut self, tail: &Tail) -> io::Result<()> {
        let last = tail.frames.iter().map(|(_, _, place)| place.generation).max();
        // The commit that the torn batch may have had took the number behind its frames.
        self.generation = self.generation.max(last.map_or(0, |last| last + 1));
        self.file.set_len(self.end)?;
        self.file.sync()
    }

    /// Overwrites the salt of a dead frame: nothing opens it any more. The rest stays, because the chain covers it. While a
    /// copy is made in which it is alive, this is put off.
    pub(super) fn wipe(&self, dead: Place) -> io::Result<()> {
        match self.holds.put_off(&self.file, dead.at) {
            true => Ok(()),
            false => wipe(&*self.file, dead.at),
        }
    }

    /// Keeps every frame that is alive now as it is, for a copy.
    pub(super) fn hold(&self, keyring: Arc<Keyring>) -> Hold {
        Hold::new(&self.holds, keyring)
    }

    /// Ends all copies that are under way, and wipes what they kept.
    pub(super) fn end_holds(&self) {
        self.holds.end();
    }

    /// Makes what was wiped durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    /// The file, for reading.
    pub(super) fn file(&self) -> Arc<dyn File> {
        Arc::clone(&self.file)
    }

    /// Where the next batch goes.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The last commit: its generation and its chain.
    pub(super) fn last_commit(&self) -> (u64, [u8; 32]) {
        (self.last_commit, self.last_chain)
    }

    /// Whether nothing was written since the log was closed in order.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

fn wipe(file: &dyn File, frame: u64) -> io::Result<()> {
    file.write_at(&[0; SALT.end - SALT.start], frame + SALT.start as u64)
}
