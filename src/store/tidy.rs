//! What follows a change: dead frames are wiped, and a log that is mostly dead is written anew.
//!
//! Leans on `log`. Refuses to take a compaction that there was no room for as a failure: the log is as it was.

use std::sync::PoisonError;

use super::commit::append_failed;
use super::index::Place;
use super::log::{AppendError, CompactError, Log};
use super::{Store, StoreError};

impl Store {
    /// Wipes what died, and compacts the log when most of it is dead.
    pub(super) fn tidy(&self, log: &mut Log, dead: &[Place]) -> Result<(), StoreError> {
        for place in dead {
            log.wipe(*place).map_err(StoreError::write("write secrets.log"))?;
        }
        let live = self.contents().index.live();
        if log.end() < COMPACTED_FROM || log.end() / 2 < live {
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
        let keyring = self.keyring();
        let compacted = {
            let contents = self.contents();
            log.compacted(&*self.disk.etc, &contents.index, &keyring)
        };
        let (new, places) = compacted.map_err(|error| match error {
            CompactError::Unchanged(AppendError::Failed(error)) => {
                StoreError::Io("compact secrets.log".into(), error)
            }
            CompactError::Unchanged(error) => append_failed(error),
            CompactError::Damaged => StoreError::Write(
                "compact secrets.log".into(),
                std::io::Error::new(std::io::ErrorKind::InvalidData, "a record in use is damaged"),
            ),
            CompactError::Unknown(error) => {
                StoreError::Write("put the compacted secrets.log in place".into(), error)
            }
        })?;
        let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
        let mut left = Vec::with_capacity(places.len());
        for (uuid, at) in places {
            left.extend(contents.index.relocate(uuid, at));
        }
        contents.file = new.file();
        drop(contents);
        let old = std::mem::replace(log, new);
        self.write_anchor(log, &keyring);
        // The old file has no name any more, but its blocks keep their bytes: what is superseded later must not be found
        // in them. Nothing hangs on it, so a failure is not one.
        _ = left.into_iter().try_for_each(|place| old.wipe(place)).and_then(|()| old.sync());
        Ok(())
    }
}

/// A smaller log isn't worth the trouble.
const COMPACTED_FROM: u64 = if cfg!(any(test, fuzzing)) { 64 << 10 } else { 4 << 20 };
