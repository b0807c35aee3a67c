//! What follows a change: dead frames are wiped, and a log that is mostly dead is written anew.
//!
//! Leans on `log`. Refuses to take a compaction that there was no room for as a failure: the log is as it was; and to
//! make readers wait for one.

use std::io;
use std::sync::PoisonError;

use super::commit::append_failed;
use super::index::Place;
use super::log::{AppendError, CompactError, Log};
use super::{Store, StoreError};
use crate::seal::Keyring;

/// A log that another one has taken the place of. It has no name any more, but its blocks keep their bytes.
pub(super) struct Left {
    log: Log,
    living: Vec<Place>,
}

impl Left {
    /// Wipes what was alive in it: what is superseded later must not be found there. Nothing hangs on it, so a failure is
    /// none.
    pub(super) fn wipe(self) {
        let mut living = self.living.into_iter();
        _ = living.try_for_each(|place| self.log.wipe(place)).and_then(|()| self.log.sync());
    }
}

impl Store {
    /// Wipes what died, and compacts the log when most of it is dead.
    pub(super) fn tidy(&self, log: &mut Log, dead: &[Place]) -> Result<(), StoreError> {
        for place in dead {
            log.wipe(*place).map_err(StoreError::write("write secrets.log"))?;
        }
        let live = self.contents().index.live();
        // A rotation kills every record once, and compacts at its end.
        let most = if self.is_rotating() { 4 } else { 2 };
        if log.end() < COMPACTED_FROM || log.end() / most < live {
            return Ok(());
        }
        match self.compact(log) {
            // As good as not tried: the log is as it was.
            Err(StoreError::NoSpace(_) | StoreError::Io(..)) => Ok(()),
            done => done,
        }
    }

    /// Writes the living frames into a new log, and reads and writes there from now on.
    pub(super) fn compact(&self, log: &mut Log) -> Result<(), StoreError> {
        self.compact_under(log, &self.keyring()).map(Left::wipe)
    }

    /// The same, with the epochs of this keyring: a frame of another one is damage.
    pub(super) fn compact_under(&self, log: &mut Log, keyring: &Keyring) -> Result<Left, StoreError> {
        let compacted = {
            let contents = self.contents();
            log.compacted(&*self.disk.etc, &contents.index, keyring)
        };
        let (new, places) = compacted.map_err(|error| match error {
            CompactError::Unchanged(AppendError::Failed(error)) => {
                StoreError::Io("compact secrets.log".into(), error)
            }
            CompactError::Unchanged(error) => append_failed(error),
            CompactError::Damaged => StoreError::Write(
                "compact secrets.log".into(),
                io::Error::new(io::ErrorKind::InvalidData, "a record in use is damaged"),
            ),
            CompactError::Unknown(error) => {
                StoreError::Write("put the compacted secrets.log in place".into(), error)
            }
        })?;
        // Nobody else changes the index while we have the log, so that only the exchange itself keeps readers out.
        let (moved, living) = self.contents().index.relocated(places);
        let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
        let before = contents.index.exchange(moved);
        contents.file = new.file();
        drop(contents);
        drop(before);
        let old = std::mem::replace(log, new);
        self.write_anchor(log, &self.keyring());
        Ok(Left { log: old, living })
    }
}

/// A smaller log isn't worth the trouble.
const COMPACTED_FROM: u64 = if cfg!(any(test, fuzzing)) { 64 << 10 } else { 4 << 20 };
