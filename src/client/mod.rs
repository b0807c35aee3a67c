//! How keystores are named: URIs. The transports that reach remote ones will stand here too.
//!
//! Leans on `secret` for errors.

mod uri;

pub use uri::{BadUri, Uri};
