//! What administration says no to, in libvirt's words.
//!
//! libvirt says that there is no such server in two ways, one for calls that its generator wrote and one for those written
//! by hand; so do we, because tests tell them apart. Leans on `secret` for the shape of errors. Refuses nothing itself.

use crate::secret::{Error, ErrorCode, ErrorDomain};

pub(super) fn no_server(name: &str) -> Error {
    Error::new(ErrorCode::NoServer, ErrorDomain::Rpc, format!("No server named '{name}'"))
}

/// In the calls written by hand: the SETs of parameters, and CLIENT_GET_INFO.
pub(super) fn no_matching_server(name: &str) -> Error {
    let detail = format!("no server with matching name '{name}' found");
    Error::new(ErrorCode::NoServer, ErrorDomain::Admin, detail)
}

pub(super) fn no_client(id: u64) -> Error {
    Error::new(ErrorCode::NoClient, ErrorDomain::Rpc, format!("No client with matching ID '{id}'"))
}

/// In CLIENT_GET_INFO.
pub(super) fn no_matching_client(id: u64) -> Error {
    let detail = format!("no client with matching id '{id}' found");
    Error::new(ErrorCode::NoClient, ErrorDomain::Admin, detail)
}

pub(super) fn too_many_clients(count: usize, limit: usize) -> Error {
    let detail = format!("Too many clients '{count}' for limit '{limit}'");
    Error::new(ErrorCode::InternalError, ErrorDomain::Rpc, detail)
}

pub(super) fn fewer_workers_than_kept() -> Error {
    invalid("minWorkers cannot be larger than maxWorkers")
}

/// libvirt's daemons work without threads from the start or never.
pub(super) fn no_workers() -> Error {
    invalid("maxWorkers must not be switched from zero to non-zero and vice versa")
}

/// libvirt 11.3's words. They mean the limit of clients that wait for authentication, not how many do.
pub(super) fn fewer_clients_than_anonymous() -> Error {
    let detail = "The overall maximum number of clients must not be less than the number of clients \
                  waiting for authentication";
    Error::new(ErrorCode::InvalidArg, ErrorDomain::Rpc, detail)
}

pub(super) fn no_tls() -> Error {
    let detail = "no tls service found, unable to update tls files";
    Error::new(ErrorCode::InternalError, ErrorDomain::Rpc, detail)
}

pub(super) fn invalid(detail: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidArg, ErrorDomain::None, detail)
}
