//! What the daemon itself has to say no to, in libvirt's words; and what of it goes to the log.
//!
//! Leans on `secret` for the shape of errors. Refuses to tell a client more than libvirt tells it.

use crate::net::peer::Peer;
use crate::rpc::Header;
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// An error about the wire.
fn rpc(detail: impl Into<String>) -> Error {
    Error::new(ErrorCode::Rpc, ErrorDomain::Rpc, detail)
}

/// An internal error of no domain.
pub(super) fn internal(detail: impl Into<String>) -> Error {
    Error::new(ErrorCode::InternalError, ErrorDomain::None, detail)
}

/// An internal error about the connection.
fn about_connection(detail: impl Into<String>) -> Error {
    Error::new(ErrorCode::InternalError, ErrorDomain::Rpc, detail)
}

pub(super) fn undecodable() -> Error {
    rpc("Unable to decode message payload")
}

/// The result is longer than a packet, or than a string in it.
pub(super) fn unencodable() -> Error {
    rpc("Unable to encode message payload")
}

pub(super) fn no_program(header: &Header) -> Error {
    // libvirt prints both as signed numbers.
    let (program, version) = (header.program.cast_signed(), header.version.cast_signed());
    rpc(format!("Cannot find program {program} version {version}"))
}

pub(super) fn bad_status(header: &Header) -> Error {
    rpc(format!("Unexpected message status {}", header.status.number()))
}

/// Clients look for this text: they take it for "not supported".
pub(super) fn no_procedure(header: &Header) -> Error {
    rpc(format!("unknown procedure: {}", header.procedure))
}

pub(super) fn not_authenticated() -> Error {
    rpc("authentication required")
}

pub(super) fn list_too_long() -> Error {
    rpc("maxuuids > REMOTE_SECRET_LIST_MAX")
}

pub(super) fn list_negative() -> Error {
    rpc("maxuuids must be non-negative")
}

/// For calls on the connection.
pub(super) fn hypervisor_not_open() -> Error {
    about_connection("hypervisor connection not open")
}

/// For calls on secrets.
pub(super) fn not_open() -> Error {
    about_connection("connection not open")
}

pub(super) fn already_open() -> Error {
    about_connection("connection already open")
}

pub(super) fn no_such_event(number: i32) -> Error {
    about_connection(format!("unsupported secret event ID {number}"))
}

/// libvirt's text has the name of another driver in it; scripts know it so.
pub(super) fn no_such_callback(number: i32) -> Error {
    about_connection(format!("node device event callback {number} not registered"))
}

pub(super) fn too_many_callbacks(most: usize) -> Error {
    about_connection(format!("a connection can have {most} event callbacks: deregister some first"))
}

/// AUTH_POLKIT on a socket that doesn't ask polkit.
pub(super) fn unexpected_authentication() -> Error {
    about_connection("polkit authentication isn't asked for on this socket")
}

/// SASL on a socket without it.
pub(super) fn no_sasl() -> Error {
    Error::new(ErrorCode::AuthFailed, ErrorDomain::Rpc, "authentication failed")
}

/// A call that no secret driver has, by its name in libvirt's library.
pub(super) fn unsupported(api: &str, domain: ErrorDomain) -> Error {
    Error::new(ErrorCode::NoSupport, domain, api)
}

/// The error as a client shall hear it: of a locked keystore, with the command that helps, because advice doesn't travel.
pub(super) fn spelt_out(error: Error) -> Error {
    const WAY: &str = "strongroom unlock";
    let is_locked = error.code() == ErrorCode::OperationInvalid && error.detail().contains("is locked");
    if !is_locked || error.detail().contains(WAY) {
        return error;
    }
    Error::new(error.code(), error.domain(), format!("{} (run: {WAY})", error.detail()))
}

/// Tells the log. What clients get wrong every day is for whoever debugs; what hurts the keystore is for everyone.
pub(super) fn log(error: &Error, call: &Header, peer: &Peer) {
    let procedure = call.procedure;
    match error.code() {
        ErrorCode::SystemError | ErrorCode::OperationFailed => {
            tracing::error!("{error} (procedure {procedure}, {peer})");
        }
        ErrorCode::InvalidSecret
        | ErrorCode::OperationDenied
        | ErrorCode::AuthFailed
        | ErrorCode::AccessDenied => {
            tracing::info!("{error} (procedure {procedure}, {peer})");
        }
        _ => tracing::debug!("{error} (procedure {procedure}, {peer})"),
    }
}
