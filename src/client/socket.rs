//! Connecting to a Unix socket, and what to say when that fails.
//!
//! Leans on std. Refuses nothing: whoever listens is whoever the path belongs to.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;

use super::autostart::Daemon;
use crate::secret::{Error, ErrorDomain};

/// Connects; starts the daemon that should listen there, if it may be.
pub(super) fn connect(path: &Path, daemon: Option<Daemon>) -> Result<UnixStream, Error> {
    match (stream(path), daemon) {
        (Ok(stream), _) => Ok(stream),
        (Err(error), Some(daemon)) if is_nobody_there(&error) => daemon.start(path),
        (Err(error), _) => Err(failed(path, &error)),
    }
}

/// A stream to this path. One that begins with `@` names no file (libvirt's way to write an abstract socket).
pub(super) fn stream(path: &Path) -> io::Result<UnixStream> {
    match path.as_os_str().as_encoded_bytes() {
        [b'@', name @ ..] => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
        _ => UnixStream::connect(path),
    }
}

/// Whether nobody listens, as opposed to somebody who won't have us.
pub(super) fn is_nobody_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// The error of a connection that didn't come about.
pub(super) fn failed(path: &Path, error: &io::Error) -> Error {
    let plain = Error::system(format!("Failed to connect socket to '{}'", path.display()), error)
        .in_domain(ErrorDomain::Rpc);
    match error.kind() {
        _ if is_nobody_there(error) => plain.advise(
            "is the daemon running? start strongroomd, virtsecretd or libvirtd; a keystore in a directory needs none: \
             secret:///embed?root=DIR",
        ),
        io::ErrorKind::PermissionDenied => plain.advise(
            "the socket is not for this user: join its group (often libvirt), try --readonly, or run as root",
        ),
        _ => plain,
    }
}
