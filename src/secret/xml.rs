//! The `<secret>` document, in and out, as libvirt reads and writes it.
use super::{Definition, Error};

impl Definition {
    /// Reads a document. `validate`: check it against the schema first.
    pub fn from_xml(_xml: &[u8], _validate: bool) -> Result<Self, Error> {
        unimplemented!()
    }

    /// The document as libvirt writes it: two-space indent, single quotes, a newline at the end.
    pub fn to_xml(&self) -> String {
        unimplemented!()
    }
}
