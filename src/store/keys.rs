//! Changing the keyring of an open store.
//!
//! Leans on `seal` for the keyring and on `open` for its file. Refuses to write a keyring that wasn't opened from its own
//! bytes, to put it in the place of one that it wasn't made from, and to let it be in force before it is durable.

use std::sync::{Arc, PoisonError};

use super::commit::append_failed;
use super::log::Log;
use super::open::{KEYRING, write_keyring};
use super::{Store, StoreError};
use crate::seal::{Keyring, KeyringError, Proved};

impl Store {
    /// Puts a keyring in the place of the one that it was made from. Durable and in force when this returns; refused if
    /// another change came first.
    pub fn replace_keyring(&self, before: &Arc<Keyring>, proved: Proved) -> Result<(), StoreError> {
        self.exclusively(|store, log| {
            if !Arc::ptr_eq(before, &store.keyring()) {
                return Err(KeyringError::Outdated.into());
            }
            store.put_keyring(log, proved)
        })
    }

    /// Changes a copy of the keyring, proves it, and puts it in force.
    pub(super) fn change_keyring<T>(
        &self,
        log: &mut Log,
        change: impl FnOnce(&mut Keyring) -> Result<T, KeyringError>,
    ) -> Result<T, StoreError> {
        let mut keyring = self.keyring().try_clone()?;
        let result = change(&mut keyring)?;
        self.put_keyring(log, keyring.prove(&[])?)?;
        Ok(result)
    }

    fn put_keyring(&self, log: &mut Log, proved: Proved) -> Result<(), StoreError> {
        let (keyring, bytes) = proved.into_parts();
        let old = self.disk.etc.open(KEYRING);
        write_keyring(&self.disk, &bytes)?;
        let keyring = Arc::new(keyring);
        *self.keyring.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&keyring);
        // The log states the serial, so that an older keyring is recognised from now on.
        log.append(&[], keyring.current(), keyring.serial()).map_err(|error| {
            match append_failed(error) {
                // The keyring is changed already: this is no failure that changed nothing.
                StoreError::NoSpace(error) => StoreError::Write("write secrets.log".into(), error),
                other => other,
            }
        })?;
        self.write_anchor(log, &keyring);
        // The old file has no name any more, but its blocks keep the keys that were let go. Nothing hangs on it; unless
        // somebody gave it a second name, to keep it.
        _ = old.and_then(|old| {
            if old.is_named()? {
                return Ok(());
            }
            let len = usize::try_from(old.size()?).unwrap_or(0);
            old.write_at(&vec![0; len], 0)?;
            old.sync()
        });
        Ok(())
    }
}
