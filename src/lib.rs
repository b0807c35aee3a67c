//! Strongroom keeps the secrets of virtualization hosts encrypted at rest, and speaks libvirt.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod memory;
pub mod secret;
pub mod seal;
pub mod store;
pub mod driver;
pub mod client;
mod connection;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;

pub use connection::{Connection, Embedded, Events, OpenOptions, Secret};
pub use secret::{
    DefineFlags, Error, ErrorCode, ErrorDomain, Event, EventKind, Handle, Keystore, Lifecycle, ListFlags,
    Usage, UsageType,
};
