//! Connecting to a Unix socket of this host, and what to say when that fails.
//!
//! Leans on std. Refuses to show a secret to whoever listens where another user could have made the socket; to connect,
//! nothing.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
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

/// Refuses to show a secret of the host's daemons to whoever listens where another user could have made the socket.
pub(super) fn check_owner(path: &Path) -> Result<(), Error> {
    let us = rustix::process::geteuid().as_raw();
    let owner = std::fs::metadata(path).map(|about| about.uid());
    if owner.is_ok_and(|owner| owner == 0 || owner == us) {
        return Ok(());
    }
    Err(Error::failed(format!("the socket '{}' is neither root's nor yours", path.display()))
        .advise("the host's system token is shown to its own daemons alone: connect to one of them"))
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
