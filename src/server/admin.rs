//! The admin socket: libvirt's ADMIN program, and ours for locking and unlocking.

use std::sync::Arc;

use super::failure;
use super::serve::Host;
use super::session::{Action, Call};
use crate::secret::Error;

/// One connection to the admin socket.
pub(super) struct Calls {
    host: Arc<Host>,
}

/// How many threads a server has for calls that may block, as administration sees them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workers {
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) priority: u32,
}

impl Calls {
    pub(super) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }

    pub(super) fn answer(&mut self, call: &Call<'_>) -> Result<Action, Error> {
        _ = &self.host;
        Err(failure::no_procedure(&call.header))
    }
}
