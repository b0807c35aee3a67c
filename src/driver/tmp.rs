//! TEMPORARY
use super::*;
use crate::administration::*;
impl Driver {
    pub fn repair(&self) -> Result<Repaired, Error> {
        unimplemented!()
    }
    pub fn backup(self: &Arc<Self>) -> Result<Box<dyn Backup>, Error> {
        unimplemented!()
    }
}
impl Inventory for Administrator {
    fn list(&self, _: Option<Uuid>, _: usize) -> Result<Vec<Uuid>, Error> {
        unimplemented!()
    }
    fn read(&self, _: Uuid) -> Result<Option<(Definition, Option<SecretBytes>)>, Error> {
        unimplemented!()
    }
    fn put(&self, _: &Definition, _: Option<&SecretBytes>) -> Result<Put, Error> {
        unimplemented!()
    }
    fn holds(&self, _: &Definition, _: Option<&SecretBytes>) -> Result<bool, Error> {
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
    pub fn restore(_: &Root, _: &Path, _: &Keys, _: RestoreOptions) -> Result<Restored, Error> {
        unimplemented!()
    }
    pub fn repair_root(_: &Root, _: &Keys) -> Result<Repaired, Error> {
        unimplemented!()
    }
}
pub fn verify_backup(_: &Path, _: &Keys) -> Result<Verified, Error> {
    unimplemented!()
}
