//! TEMPORARY
use super::*;
use crate::administration::*;
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
