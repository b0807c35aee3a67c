//! The admin socket: libvirt's ADMIN program for virt-admin, and ours for the keystore.
//!
//! [`libvirt`] answers what is about the whole daemon, [`servers`] what is about a server and its clients, [`own`]
//! our own program. Who may come here is checked where the socket is: the daemon's own user, and root. Leans on what
//! the other parts of the daemon keep: clients, limits, the log. Refuses unknown flags, as libvirt does; has no state
//! of its own but what [`Workers`] counts.

mod failure;
mod libvirt;
mod own;
mod servers;
mod workers;

use std::sync::Arc;

pub(super) use workers::{Pool, Workers};

use super::serve::Host;
use super::session::{Action, Call};
use crate::net::peer::Peer;
use crate::rpc::program;
use crate::secret::Error;

/// One connection to the admin socket.
pub(super) struct Calls {
    host: Arc<Host>,
    peer: Peer,
    /// Its own number among the admin server's clients.
    id: u64,
    /// The copy of the keystore that it takes.
    copying: own::Copying,
}

impl Calls {
    pub(super) fn new(host: Arc<Host>, peer: Peer, id: u64) -> Self {
        Self { host, peer, id, copying: own::Copying::default() }
    }

    pub(super) fn answer(&mut self, call: &Call<'_>) -> Result<Action, Error> {
        match call.header.program {
            program::STRONGROOM => self.own(call),
            _ => self.libvirt(call),
        }
    }
}
