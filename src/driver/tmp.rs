//! TEMPORARY
use super::*;
use crate::administration::*;
use std::ops::ControlFlow;
impl Driver {
    pub fn add_key(&self, key: &Key, label: &str) -> Result<SlotStatus, Error> {
        unimplemented!()
    }
    pub fn change_key(&self, slot: Uuid, key: &Key, label: &str) -> Result<SlotStatus, Error> {
        unimplemented!()
    }
    pub fn remove_key(&self, slot: Uuid, proof: &[Key]) -> Result<SlotStatus, Error> {
        unimplemented!()
    }
    pub fn test_key(&self, key: &Key) -> Result<SlotStatus, Error> {
        unimplemented!()
    }
    pub fn keyring(&self) -> Result<Vec<u8>, Error> {
        unimplemented!()
    }
    pub fn rekey(&self, keys: &[Key], forget: &[Uuid]) -> Result<Vec<SlotStatus>, Error> {
        unimplemented!()
    }
    pub fn rotate(&self, watch: &mut dyn FnMut(Rotation) -> ControlFlow<()>) -> Result<(), Error> {
        unimplemented!()
    }
    pub fn rotation_pending(&self) -> bool {
        false
    }
    pub fn begin_rotation(&self) -> Result<Rotation, Error> {
        unimplemented!()
    }
    pub fn repair(&self) -> Result<Repaired, Error> {
        unimplemented!()
    }
    pub fn backup(self: &Arc<Self>) -> Result<Box<dyn Backup>, Error> {
        unimplemented!()
    }
}
impl Inventory for Administrator {
    fn list(&self, after: Option<Uuid>, max: usize) -> Result<Vec<Uuid>, Error> {
        unimplemented!()
    }
    fn read(&self, uuid: Uuid) -> Result<Option<(Definition, Option<SecretBytes>)>, Error> {
        unimplemented!()
    }
    fn put(&self, definition: &Definition, value: Option<&SecretBytes>) -> Result<Put, Error> {
        unimplemented!()
    }
    fn holds(&self, definition: &Definition, value: Option<&SecretBytes>) -> Result<bool, Error> {
        unimplemented!()
    }
}

pub struct RestoreOptions {
    pub replace: bool,
    pub older: bool,
    pub partial: bool,
}
pub struct Restored {
    pub secrets: usize,
    pub aside: Vec<String>,
    pub lost: Vec<Lost>,
}
impl Driver {
    pub fn restore(root: &Root, file: &Path, keys: &Keys, how: RestoreOptions) -> Result<Restored, Error> {
        unimplemented!()
    }
    pub fn restore_keyring(
        root: &Root,
        bytes: &[u8],
        keys: &Keys,
        older: bool,
    ) -> Result<Vec<SlotStatus>, Error> {
        unimplemented!()
    }
    pub fn repair_root(root: &Root, keys: &Keys) -> Result<Repaired, Error> {
        unimplemented!()
    }
}
pub fn verify_backup(path: &Path, keys: &Keys) -> Result<Verified, Error> {
    unimplemented!()
}
pub fn read_or_make_host_key(file: &Path) -> Result<(SecretBytes, String), Error> {
    unimplemented!()
}
