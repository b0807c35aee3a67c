//! The calls and events of libvirt's secret API as one trait.
//!
//! The hinge of the house: `driver` implements it in this process, `client` over a wire; everything above speaks only
//! to it. Leans on `memory` for values. Refuses to know who the caller is: an implementation is made for one caller.

use std::sync::Arc;

use ::uuid::Uuid;

use super::{Error, Usage, UsageType};
use crate::memory::SecretBytes;

/// The largest value, in bytes (libvirt's VIR_SECRET_VALUE limit on the wire).
pub const MAX_VALUE: usize = 65_536;

/// The most secrets that one list call may return (libvirt's REMOTE_SECRET_LIST_MAX).
pub const MAX_LIST: usize = 16_384;

/// For calls that take flags but define none.
pub const NO_FLAGS: u32 = 0;

/// A keystore as one caller sees it: libvirt's secret API, call for call.
///
/// Flags are raw words, because unknown bits are an error that only the implementation can word. Errors are libvirt's
/// ([`Error`]); the order of checks is libvirt's too. All calls may block; all may be made from any thread.
pub trait Keystore: Send + Sync {
    /// The URI that this connection was opened with.
    fn uri(&self) -> String;

    /// Why the keystore is locked, if it is: what it lists then is not proved, and values and changes are refused.
    fn locked(&self) -> Option<Error> {
        None
    }

    /// How many secrets there are.
    fn num_of_secrets(&self) -> Result<usize, Error>;

    /// The UUIDs of at most `max` secrets, in no order.
    fn list_secrets(&self, max: usize) -> Result<Vec<Uuid>, Error>;

    /// The secrets that `flags` selects ([`ListFlags`]), in no order.
    fn list_all(&self, flags: u32) -> Result<Vec<Handle>, Error>;

    /// The secret of this UUID.
    fn lookup_by_uuid(&self, uuid: Uuid) -> Result<Handle, Error>;

    /// The secret of this usage. The type `none` never matches.
    fn lookup_by_usage(&self, kind: UsageType, id: &str) -> Result<Handle, Error>;

    /// Defines a secret, or redefines the one with the document's UUID. `flags`: [`DefineFlags`].
    fn define_xml(&self, xml: &[u8], flags: u32) -> Result<Handle, Error>;

    /// The `<secret>` document. `flags`: none are defined.
    fn xml_desc(&self, uuid: Uuid, flags: u32) -> Result<String, Error>;

    /// Sets the value: 1 to [`MAX_VALUE`] bytes, of any content. `flags`: none are defined.
    fn set_value(&self, uuid: Uuid, value: SecretBytes, flags: u32) -> Result<(), Error>;

    /// The value. Refused for a private secret unless this caller is elevated. `flags`: none are defined.
    fn value(&self, uuid: Uuid, flags: u32) -> Result<SecretBytes, Error>;

    /// Removes a secret, definition and value.
    fn undefine(&self, uuid: Uuid) -> Result<(), Error>;

    /// Calls `sink` for each event of this kind, of all secrets or of one (which need not exist yet), until the
    /// subscription is dropped. The sink must be quick and must not call the keystore.
    fn subscribe(&self, kind: EventKind, only: Option<Uuid>, sink: EventSink) -> Result<Subscription, Error>;

    /// The same keystore for a caller who may read private values, if this caller may become one.
    fn elevated(&self) -> Result<Arc<dyn Keystore>, Error>;
}

/// A secret as calls return it: enough to name it. It holds nothing open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its usage at the time of the call.
    pub usage: Usage,
}

/// Flags of [`Keystore::define_xml`].
#[derive(Debug)]
pub struct DefineFlags;

impl DefineFlags {
    /// Check the document against the schema first.
    pub const VALIDATE: u32 = 1;
}

/// Flags of [`Keystore::list_all`]. Neither or both bits of a pair: no filtering by it.
#[derive(Debug)]
pub struct ListFlags;

impl ListFlags {
    /// Ephemeral secrets.
    pub const EPHEMERAL: u32 = 1;
    /// Persistent secrets.
    pub const NO_EPHEMERAL: u32 = 2;
    /// Private secrets.
    pub const PRIVATE: u32 = 4;
    /// Secrets whose value every caller may read.
    pub const NO_PRIVATE: u32 = 8;
}

/// The kinds of event one can subscribe to. The numbers are libvirt's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// A secret was defined, redefined or undefined.
    Lifecycle = 0,
    /// A value was set, be it to the same bytes.
    ValueChanged = 1,
}

/// What happened to a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// It was defined, or redefined.
    Defined,
    /// It was undefined.
    Undefined,
}

/// Something that happened, after it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// See [`EventKind::Lifecycle`].
    Lifecycle(Handle, Lifecycle),
    /// See [`EventKind::ValueChanged`].
    ValueChanged(Handle),
}

impl Event {
    /// Its kind.
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Lifecycle(..) => EventKind::Lifecycle,
            Self::ValueChanged(_) => EventKind::ValueChanged,
        }
    }

    /// The secret it is about.
    pub fn secret(&self) -> &Handle {
        match self {
            Self::Lifecycle(secret, _) | Self::ValueChanged(secret) => secret,
        }
    }
}

/// Receives events. Called on the thread of the call that caused them, or on the one that reads from a daemon. Dropped when
/// no more can come.
pub type EventSink = Box<dyn Fn(&Event) + Send + Sync>;

/// A registration for events: drop it to end it.
pub struct Subscription {
    id: i32,
    end: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Subscription {
    /// A registration of this id (libvirt's callback id, never negative), ended by `end`.
    pub fn new(id: i32, end: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { id, end: Some(Box::new(end)) }
    }

    /// Its id, unique in its keystore.
    pub fn id(&self) -> i32 {
        self.id
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).finish_non_exhaustive()
    }
}
