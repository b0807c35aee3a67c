//! Cells of the matrix that can't pass, each with its reason and with what shows it.
//!
//! Refuses to be longer than it must be: a line whose cells all pass fails the test.

use crate::clients::Client;
use crate::server::Kind;
use crate::transports::Transport;

/// Cells that can't pass.
#[derive(Debug)]
pub(crate) struct Exception {
    pub(crate) client: Client,
    /// None: with either server.
    pub(crate) server: Option<Kind>,
    pub(crate) transport: Transport,
    /// Part of what is seen.
    pub(crate) shows: &'static str,
    pub(crate) reason: &'static str,
}

pub(crate) const EXCEPTIONS: &[Exception] = &[];
