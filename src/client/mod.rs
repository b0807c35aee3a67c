//! How keystores are named: URIs. The transports that reach remote ones will stand here too.
//!
//! `admin` speaks to a daemon's admin socket. Leans on `rpc` for its messages, on `secret` for errors.

#[cfg(feature = "cli")]
mod admin;
mod uri;

#[cfg(feature = "cli")]
pub(crate) use admin::Admin;
pub use uri::{BadUri, Uri};
