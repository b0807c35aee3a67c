//! A keystore as a daemon's is: it may come to its end, and lets nobody read private values.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use strongroom::memory::SecretBytes;
use strongroom::secret::{EventSink, Subscription};
use strongroom::{Error, EventKind, Handle, Keystore, UsageType};

use crate::house::House;

/// A keystore that comes to its end.
pub(crate) struct Daemon {
    keystore: Arc<dyn Keystore>,
    pub(crate) ended: AtomicBool,
}

impl Daemon {
    pub(crate) fn of(house: &House) -> Arc<Self> {
        Arc::new(Self { keystore: house.keystore(), ended: AtomicBool::new(false) })
    }

    fn there(&self) -> Result<&dyn Keystore, Error> {
        match self.ended.load(Ordering::Relaxed) {
            true => Err(Error::failed("client socket is closed")),
            false => Ok(&*self.keystore),
        }
    }
}

impl Keystore for Daemon {
    fn uri(&self) -> String {
        self.keystore.uri()
    }

    fn num_of_secrets(&self) -> Result<usize, Error> {
        self.there()?.num_of_secrets()
    }

    fn list_secrets(&self, max: usize) -> Result<Vec<uuid::Uuid>, Error> {
        self.there()?.list_secrets(max)
    }

    fn list_all(&self, flags: u32) -> Result<Vec<Handle>, Error> {
        self.there()?.list_all(flags)
    }

    fn lookup_by_uuid(&self, uuid: uuid::Uuid) -> Result<Handle, Error> {
        self.there()?.lookup_by_uuid(uuid)
    }

    fn lookup_by_usage(&self, kind: UsageType, id: &str) -> Result<Handle, Error> {
        self.there()?.lookup_by_usage(kind, id)
    }

    fn define_xml(&self, xml: &[u8], flags: u32) -> Result<Handle, Error> {
        self.there()?.define_xml(xml, flags)
    }

    fn xml_desc(&self, uuid: uuid::Uuid, flags: u32) -> Result<String, Error> {
        self.there()?.xml_desc(uuid, flags)
    }

    fn set_value(&self, uuid: uuid::Uuid, value: SecretBytes, flags: u32) -> Result<(), Error> {
        self.there()?.set_value(uuid, value, flags)
    }

    fn value(&self, uuid: uuid::Uuid, flags: u32) -> Result<SecretBytes, Error> {
        self.there()?.value(uuid, flags)
    }

    fn undefine(&self, uuid: uuid::Uuid) -> Result<(), Error> {
        self.there()?.undefine(uuid)
    }

    fn subscribe(
        &self,
        kind: EventKind,
        of: Option<uuid::Uuid>,
        sink: EventSink,
    ) -> Result<Subscription, Error> {
        self.there()?.subscribe(kind, of, sink)
    }

    fn elevated(&self) -> Result<Arc<dyn Keystore>, Error> {
        Err(Error::private())
    }
}
