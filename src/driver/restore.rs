//! Restoring a backup into a root that nobody has open.
//!
//! Leans on `store`. Refuses to touch the root before the backup has opened and every record in it was tried.

use std::path::Path;

use super::backup::open_backup;
use super::{Driver, Keys, Root, failure};
use crate::administration::{Restored, SlotStatus};
use crate::seal::Opened;
use crate::secret::Error;
use crate::store::{Placed, RestoreOptions, Store, restore};

impl Driver {
    /// Puts a backup into a root: an empty one, or, as `how` says, in the place of the keystore that is there, which is
    /// kept aside. The backup opens with what is given, or with the host key in its place. Durable when this returns; a
    /// crash leaves what was there, or the whole backup.
    pub fn restore(root: &Root, file: &Path, keys: &Keys, how: RestoreOptions) -> Result<Restored, Error> {
        let of_backup = |error| failure::explain_backup(error, file);
        let backup = open_backup(file, keys)?;
        let inspected = backup.inspect().map_err(of_backup)?;
        inspected.check(&backup, how).map_err(of_backup)?; // first: a refusal leaves no directories behind
        let (disk, _lock) = root.acquire()?;
        let verified = &inspected.verified;
        let mut restored = Restored {
            store: backup.keyring().store().to_string(),
            made_at: backup.header().made_at,
            restored: verified.sound,
            without_value: inspected.without_value.clone(),
            lost: inspected.lost.clone(),
            unnamed: inspected.unnamed,
            aside: Vec::new(),
            slots: backup.keyring().slots().map(SlotStatus::of).collect(),
            findings: verified.findings.clone(),
        };
        let of_root = |error| failure::explain(error, root);
        let Placed { keyring, aside } = restore(&disk, &backup, inspected, how).map_err(of_root)?;
        restored.aside = aside;
        // Opened once: whoever looks next finds its `.xml` copies.
        drop(
            Store::open(disk, Opened { keyring, sound: true, slot: backup.slot().clone() })
                .map_err(of_root)?,
        );
        Ok(restored)
    }
}
