//! What a packet is worth keeping of that is large, or comes in pieces, and where.
//!
//! Leans on `rpc` for which call it is. Refuses to keep more than the call can have use for, and anything that may be a value
//! outside secret memory.

use super::inbound::PAGE_SIZE;
use crate::rpc::remote::procedure;
use crate::rpc::xdr::Chars;
use crate::rpc::{Header, Text, program, strongroom};
use crate::secret::MAX_VALUE;

/// How much of such a packet to keep, and where.
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// The longest arguments that this call has.
    pub(super) bytes: usize,
    /// They may hold a value.
    pub(super) secret: bool,
}

impl Room {
    /// For whom nothing is kept.
    pub(super) const NONE: Self = Self { bytes: 0, secret: false };

    /// For what a stranger says where SASL is spoken, in a packet of this length. What a page would hold may be a password; what
    /// is longer is a Kerberos ticket, which is sealed, and strangers don't get that much of secret memory.
    pub(super) fn sasl(length: usize) -> Self {
        Self { bytes: 4 * Chars::MAX + PAGE_SIZE, secret: length <= PAGE_SIZE }
    }

    /// For an authenticated client's call. What no call has use for may be a value that went astray: it is not kept, or in
    /// secret memory.
    pub(super) fn of(header: &Header) -> Self {
        match (header.program, header.procedure) {
            (program::REMOTE, procedure::SECRET_SET_VALUE | procedure::CONNECT_SET_IDENTITY) => {
                Self { bytes: 3 * MAX_VALUE, secret: true }
            }
            (program::STRONGROOM, strongroom::procedure::PUT | strongroom::procedure::HOLDS) => {
                Self { bytes: 3 * MAX_VALUE, secret: true }
            }
            (
                program::REMOTE,
                procedure::CONNECT_OPEN
                | procedure::SECRET_LOOKUP_BY_USAGE
                | procedure::SECRET_DEFINE_XML
                | procedure::SECRET_GET_XML_DESC
                | procedure::SECRET_GET_VALUE
                | procedure::SECRET_UNDEFINE
                | procedure::CONNECT_SECRET_EVENT_REGISTER_ANY,
            ) => Self { bytes: Text::MAX + PAGE_SIZE, secret: false },
            _ => Self { bytes: PAGE_SIZE, secret: true },
        }
    }
}

/// Whether it is what a stranger may say at length where SASL is spoken.
pub(super) fn is_sasl(header: &Header) -> bool {
    let procedures = [procedure::AUTH_SASL_START, procedure::AUTH_SASL_STEP];
    header.program == program::REMOTE && procedures.contains(&header.procedure)
}
