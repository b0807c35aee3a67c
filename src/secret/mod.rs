//! What a secret is: its definition, its usage, its identifiers, its XML, and the calls that reach it.
//!
//! Pure: no files, no sockets, no keys. Leans on `memory` for values, uuid for identifiers and quick-xml for the
//! document. Refuses what libvirt refuses, in libvirt's words and codes ([`error`]).

mod base64;
mod document;
mod encoding;
mod error;
mod fault;
mod keystore;
mod markup;
mod scan;
mod schema;
mod usage;
mod uuid;
mod xml;
#[cfg(test)]
mod xml_tests;

use std::sync::Arc;

pub(crate) use base64::Base64;
pub(crate) use document::{Child, Document, Element};
pub(crate) use encoding::Source;
pub use error::{Detail, Error, ErrorCode, ErrorDomain, Function};
pub use keystore::{
    DefineFlags, Event, EventKind, EventSink, Handle, Keystore, Lifecycle, ListFlags, MAX_LIST, MAX_VALUE,
    NO_FLAGS, Subscription,
};
pub use usage::{Usage, UsageType};
pub use uuid::{parse_uuid, random_uuid};

/// What a secret is, apart from its value: libvirt's `<secret>` document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Its name for ever.
    pub uuid: ::uuid::Uuid,
    /// What uses it. A secret with a usage can be looked up by it.
    pub usage: Usage,
    /// Free text, never empty.
    pub description: Option<Arc<str>>,
    /// The value is given to the hypervisor's own daemons only, never to an ordinary caller.
    pub private: bool,
    /// Neither definition nor value ever reaches a disk.
    pub ephemeral: bool,
}
