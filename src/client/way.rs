//! The ways to a server, and going them: every transport ends in a [`Stream`].
//!
//! Leans on a file for each transport. Refuses those that this build doesn't have, by name.

use std::os::unix::net::UnixStream;
#[cfg(feature = "cli")]
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use super::ask::Ask;
use super::autostart::Daemon;
use super::patience::Patience;
use super::program::Program;
use super::socket::Socket;
use super::ssh::Ssh;
use super::stream::Stream;
use super::{ip, libssh, local, tls};
use crate::net::around::Around;
use crate::secret::Error;

/// How to get to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    Unix(Unix),
    Tcp {
        host: String,
        port: u16,
        /// It is meant that nothing may encrypt what goes.
        cleartext: bool,
    },
    Tls(tls::Tls),
    Ssh(Ssh),
    /// A program of the user's choice.
    Ext(Program),
    Libssh(libssh::Libssh),
}

/// A socket of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unix {
    /// The socket.
    pub(super) socket: PathBuf,
    /// Who listens there, and may be started.
    pub(super) daemon: Option<Daemon>,
    /// The host's system token.
    pub(super) token: PathBuf,
}

impl Unix {
    /// Its path.
    #[cfg(feature = "cli")]
    pub(crate) fn path(&self) -> &Path {
        &self.socket
    }

    /// Connects to it; starts the daemon that should listen there, if it may be.
    pub(crate) fn connect(&self) -> Result<UnixStream, Error> {
        local::connect(&self.socket, self.daemon)
    }
}

impl Way {
    /// Goes it. `ask`: who can be asked for a password, or whether a host is the right one. `limit`: how long a server on the
    /// network may take; what is left of it goes on, unless a program of the user's is in between, or a socket in whose queue one
    /// may wait.
    pub(super) fn go(
        &self,
        ask: Option<&dyn Ask>,
        limit: Duration,
    ) -> Result<(Stream, Option<Patience>), Error> {
        match self {
            Self::Unix(unix) => Ok((unix.connect()?.into(), None)),
            Self::Tcp { host, port, .. } => {
                let addresses = ip::resolve(host, *port)?;
                let patience = Patience::new("TCP", host, *port, limit);
                let socket = ip::connect(host, *port, &addresses, patience.end, NO_TCP)?;
                let stream = Stream::plain(Socket::new(socket));
                Ok((stream, Some(patience)))
            }
            Self::Tls(tls) => {
                let (stream, patience) = tls.connect(limit)?;
                Ok((stream, Some(patience)))
            }
            Self::Ssh(ssh) => Ok((Stream::plain(ssh.program().start()?), None)),
            Self::Ext(program) => Ok((Stream::plain(program.start()?), None)),
            Self::Libssh(ssh) => Ok((Stream::plain(ssh.connect(ask, limit)?), None)),
        }
    }

    /// What protects what is said, before SASL may. `bits`: how strong a layer that is there already is.
    pub(super) fn around(&self, bits: u32) -> Around {
        match self {
            Self::Tls(_) => Around::Tls { bits },
            // Nobody on the way can read along: it is this host's kernel, or ssh.
            Self::Unix(_) | Self::Ssh(_) | Self::Libssh(_) => Around::Unix,
            Self::Tcp { .. } | Self::Ext(_) => Around::TCP,
        }
    }
}

/// What to do if nobody listens for TCP.
const NO_TCP: &str =
    "nobody listens there: the daemon needs --listen (or strongroomd-tcp.socket) and listen_tcp";
