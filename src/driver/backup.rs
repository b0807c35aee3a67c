//! Backups: a sealed copy on its way out of an open keystore, and the check of one that lies in a file.
//!
//! Leans on `store` for both. Refuses to go on when the keystore is locked meanwhile: then its keys are gone, and half a
//! copy is none. Never keeps it open, nor its calls waiting for more than a piece.

use std::path::Path;
use std::sync::{Arc, Weak};

use super::locking::State;
use super::{Driver, Keys, failure, now, unlock};
use crate::administration::{Backup, Verified};
use crate::seal::KeyringError;
use crate::secret::Error;
use crate::store::{BackupFile, OpenBackup, Snapshot, Store, StoreError};

impl Driver {
    /// A sealed copy of this moment, while changes go on. It ends with an error if the keystore is locked meanwhile.
    pub fn backup(self: &Arc<Self>) -> Result<Box<dyn Backup>, Error> {
        let state = self.state();
        let store = match &*state {
            State::Open(open) => &open.store,
            State::Locked(locked) => return Err(locked.why.clone()),
        };
        let snapshot = store.snapshot(now()).map_err(|error| failure::explain(error, &self.root))?;
        Ok(Box::new(Copy { driver: Arc::clone(self), of: Arc::downgrade(store), snapshot }))
    }
}

/// A copy under way.
struct Copy {
    driver: Arc<Driver>,
    /// What it is a copy of: no longer the same when it was locked and opened again.
    of: Weak<Store>,
    snapshot: Snapshot,
}

impl Backup for Copy {
    fn total(&self) -> u64 {
        self.snapshot.total()
    }

    fn next_piece(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let state = self.driver.state();
        let is_same = matches!(&*state, State::Open(open) if Arc::as_ptr(&open.store) == self.of.as_ptr());
        let piece = if is_same { self.snapshot.next_piece() } else { Err(StoreError::CopyEnded) };
        piece.map_err(|error| failure::explain(error, &self.driver.root))
    }
}

/// Checks every record of a backup. It opens with what is given, or with the host key in its place.
pub fn verify_backup(file: &Path, keys: &Keys) -> Result<Verified, Error> {
    let inspected = open_backup(file, keys)?.inspect();
    Ok(inspected.map_err(|error| failure::explain_backup(error, file))?.verified)
}

/// Opens a backup with what there is.
pub(super) fn open_backup(file: &Path, keys: &Keys) -> Result<OpenBackup, Error> {
    let failed = |error| failure::explain_backup(error, file);
    let backup = BackupFile::open(file).map_err(failed)?;
    let at_hand = unlock::at_hand(&unlock::places(keys), keys)?;
    let slots: Vec<_> = backup.slots().cloned().collect();
    backup.unlock(&at_hand.openers).map_err(|error| match error {
        StoreError::Keyring(KeyringError::Locked(tried)) => {
            let why = at_hand.refused(&tried, slots.iter());
            let detail = why.detail();
            let detail = detail.strip_prefix("the keystore is locked: ").unwrap_or(detail);
            let plain = Error::not_now(format!("the backup in '{}' doesn't open: {detail}", file.display()));
            match why.advice() {
                Some(advice) => plain.advise(advice),
                None => plain,
            }
        }
        other => failed(other),
    })
}
