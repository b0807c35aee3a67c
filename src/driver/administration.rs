//! [`Administration`] and the parts of the driver that do it.
//!
//! Leans on all of them. Refuses nothing itself.

use std::ops::ControlFlow;
use std::sync::Arc;

use ::uuid::Uuid;

use super::Driver;
use crate::administration::{
    Administration, Backup, Inventory, Key, Put, Repaired, Rotation, SlotStatus, Status, Verified,
};
use crate::memory::SecretBytes;
use crate::secret::{Definition, Error};

/// A driver as the one who runs it sees it.
#[derive(Debug, Clone)]
pub struct Administrator(pub Arc<Driver>);

impl Administration for Administrator {
    fn status(&self) -> Result<Status, Error> {
        Ok(self.0.status())
    }

    fn add_key(&self, key: &Key, label: &str) -> Result<SlotStatus, Error> {
        self.0.add_key(key, label)
    }

    fn change_key(&self, slot: Uuid, key: &Key, label: &str) -> Result<SlotStatus, Error> {
        self.0.change_key(slot, key, label)
    }

    fn remove_key(&self, slot: Uuid, proof: &[Key]) -> Result<SlotStatus, Error> {
        self.0.remove_key(slot, proof)
    }

    fn test_key(&self, key: &Key) -> Result<SlotStatus, Error> {
        self.0.test_key(key)
    }

    fn keyring(&self) -> Result<Vec<u8>, Error> {
        self.0.keyring()
    }

    fn rekey(&self, keys: &[Key], forget: &[Uuid]) -> Result<Vec<SlotStatus>, Error> {
        self.0.rekey(keys, forget)
    }

    fn rotate(&self, watch: &mut dyn FnMut(Rotation) -> ControlFlow<()>) -> Result<(), Error> {
        self.0.rotate(watch)
    }

    fn verify(&self) -> Result<Verified, Error> {
        self.0.verify()
    }

    fn repair(&self) -> Result<Repaired, Error> {
        self.0.repair()
    }

    fn backup(&self) -> Result<Box<dyn Backup>, Error> {
        self.0.backup()
    }
}

impl Inventory for Administrator {
    fn list(&self, after: Option<Uuid>, max: usize) -> Result<Vec<Uuid>, Error> {
        self.0.list(after, max)
    }

    fn read(&self, uuid: Uuid) -> Result<Option<(Definition, Option<SecretBytes>)>, Error> {
        self.0.read(uuid)
    }

    fn put(&self, definition: &Definition, value: Option<&SecretBytes>) -> Result<Put, Error> {
        self.0.put(definition, value)
    }

    fn holds(&self, definition: &Definition, value: Option<&SecretBytes>) -> Result<bool, Error> {
        self.0.holds(definition, value)
    }
}
