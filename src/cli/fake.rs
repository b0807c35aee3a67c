//! A keystore for this room's tests: two secrets in memory, and only the calls that the tests make.
//!
//! Refuses everything else by panicking, so that a test never leans on what isn't here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ::uuid::{Uuid, uuid};

use crate::Connection;
use crate::memory::SecretBytes;
use crate::secret::{Error, EventKind, EventSink, Handle, Keystore, Subscription, Usage, UsageType};

pub(super) const FIRST: Uuid = uuid!("11111111-1111-4111-8111-111111111111");
pub(super) const SECOND: Uuid = uuid!("22222222-2222-4222-8222-222222222222");

/// A connection to a new fake.
pub(super) fn connection() -> Connection {
    Connection::over(Arc::new(Fake::default()))
}

/// The handle of one of the two.
pub(super) fn handle(uuid: Uuid) -> Handle {
    let ceph = Usage { kind: UsageType::Ceph, id: Arc::from("one") };
    Handle { uuid, usage: if uuid == FIRST { ceph } else { Usage::none() } }
}

#[derive(Default)]
struct Fake {
    values: Mutex<BTreeMap<Uuid, SecretBytes>>,
}

impl Keystore for Fake {
    fn uri(&self) -> String {
        "fake:///".to_owned()
    }

    fn num_of_secrets(&self) -> Result<usize, Error> {
        Ok(2)
    }

    fn list_secrets(&self, _max: usize) -> Result<Vec<Uuid>, Error> {
        Ok(vec![SECOND, FIRST])
    }

    fn list_all(&self, _flags: u32) -> Result<Vec<Handle>, Error> {
        Ok(vec![handle(SECOND), handle(FIRST)])
    }

    fn lookup_by_uuid(&self, uuid: Uuid) -> Result<Handle, Error> {
        if uuid == FIRST || uuid == SECOND { Ok(handle(uuid)) } else { Err(Error::no_such_uuid(uuid)) }
    }

    fn lookup_by_usage(&self, _kind: UsageType, _id: &str) -> Result<Handle, Error> {
        unimplemented!()
    }

    fn define_xml(&self, _xml: &[u8], _flags: u32) -> Result<Handle, Error> {
        unimplemented!()
    }

    fn xml_desc(&self, _uuid: Uuid, _flags: u32) -> Result<String, Error> {
        unimplemented!()
    }

    fn set_value(&self, uuid: Uuid, value: SecretBytes, _flags: u32) -> Result<(), Error> {
        self.values.lock().unwrap().insert(uuid, value);
        Ok(())
    }

    fn value(&self, uuid: Uuid, _flags: u32) -> Result<SecretBytes, Error> {
        match self.values.lock().unwrap().get(&uuid) {
            Some(value) => Ok(value.try_clone()?),
            None => Err(Error::no_value(uuid)),
        }
    }

    fn undefine(&self, _uuid: Uuid) -> Result<(), Error> {
        unimplemented!()
    }

    fn subscribe(&self, _: EventKind, _: Option<Uuid>, _: EventSink) -> Result<Subscription, Error> {
        unimplemented!()
    }

    fn elevated(&self) -> Result<Arc<dyn Keystore>, Error> {
        unimplemented!()
    }
}
