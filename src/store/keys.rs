//! Changing the keyring of an open store.
//!
//! Leans on `seal` for the keyring and on `open` for its file. Refuses to let a change be in force before it is durable.

use std::sync::{Arc, PoisonError};

use super::commit::append_failed;
use super::open::write_keyring;
use super::{Store, StoreError};
use crate::seal::{Keyring, KeyringError};

impl Store {
    /// Changes the keyring: `change` works on a copy, which is durable and in force when this returns.
    pub fn change_keyring<T>(
        &self,
        change: impl FnOnce(&mut Keyring) -> Result<T, KeyringError>,
    ) -> Result<T, StoreError> {
        self.exclusively(|store, log| {
            let mut keyring = store.keyring().try_clone()?;
            let result = change(&mut keyring)?;
            let bytes = keyring.encode()?;
            write_keyring(&store.disk, &bytes)?;
            let keyring = Arc::new(keyring);
            *store.keyring.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&keyring);
            // The log states the serial, so that an older keyring is recognised from now on.
            log.append(&[], keyring.current(), keyring.serial()).map_err(|error| {
                match append_failed(error) {
                    // The keyring is changed already: this is no failure that changed nothing.
                    StoreError::NoSpace(error) => StoreError::Write("write secrets.log".into(), error),
                    other => other,
                }
            })?;
            store.write_anchor(log, &keyring);
            Ok(result)
        })
    }
}
