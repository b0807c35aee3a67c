//! `strongroom key restore`: a kept copy of the keyring, put in the place of one that is damaged, lost, or newer.
//!
//! Leans on `store` for the judging and the writing, on `unlock` for what opens the copy. Refuses a root that
//! somebody has open, and to make one where there is none.

use super::{Driver, Keys, Root, failure, unlock};
use crate::administration::SlotStatus;
use crate::seal::{KeyringError, LockedKeyring};
use crate::secret::Error;
use crate::store::{StoreError, put_back_keyring};

/// What came of putting a keyring back.
#[derive(Debug)]
pub struct KeyringRestored {
    /// The slot that opened it.
    pub slot: SlotStatus,
    /// The serial that was in use, if the copy is older than that: slots that were removed since open the keystore again.
    pub older_than: Option<u64>,
    /// The file in `etc/secrets` that keeps the keyring that was there.
    pub kept_as: Option<String>,
}

impl Driver {
    /// Puts a copy of the keyring back into a root that nobody has open. It has to be this keystore's, to open with one of
    /// these keys (or the host key, if none is given), and to have a key for everything in the log. An older copy than what
    /// was in use is refused, unless `older`: it is the newest from now on then.
    pub fn restore_keyring(
        root: &Root,
        copy: &[u8],
        keys: &Keys,
        older: bool,
    ) -> Result<KeyringRestored, Error> {
        let failed = |error| failure::explain(error, root);
        let locked = LockedKeyring::parse(copy).map_err(|error| failure::no_copy(&error))?;
        if !root.has_keystore()? {
            return Err(failure::nothing_there(root)); // and leaves no directories behind
        }
        let at_hand = unlock::at_hand(&unlock::places(keys), keys)?;
        let (disk, _lock) = root.acquire()?;
        match put_back_keyring(&disk, copy, &at_hand.openers, older) {
            Ok(done) => {
                let slot = SlotStatus::of(&done.slot);
                Ok(KeyringRestored { slot, older_than: done.older_than, kept_as: done.kept_as })
            }
            Err(StoreError::Keyring(KeyringError::Locked(tried))) => {
                Err(at_hand.refused_by_copy(&tried, &locked))
            }
            Err(error) => Err(failed(error)),
        }
    }
}
