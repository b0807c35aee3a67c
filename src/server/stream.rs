//! A client's socket: in the file system or on the network, and no difference for whoever reads and writes.
//!
//! Leans on tokio for both. Refuses to buffer: what is read stays in the kernel until a packet is whole, and what is sent
//! lies where it was made.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::sockopt;
use tokio::io::{Interest, Ready};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::listen::Listener;
use crate::net::peer::Peer;

/// Where clients come in.
pub(super) enum Door {
    Unix(UnixListener),
    Ip(TcpListener),
}

impl Door {
    pub(super) fn new(listener: Listener) -> io::Result<Self> {
        match listener {
            Listener::Unix(listener) => UnixListener::from_std(listener).map(Self::Unix),
            Listener::Ip(listener) => TcpListener::from_std(listener).map(Self::Ip),
        }
    }

    /// The next who comes. `None`: it was gone before it could be asked who it is.
    pub(super) async fn accept(&self) -> io::Result<Option<(Stream, Peer)>> {
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let credentials = stream.peer_cred();
                Ok(credentials.ok().map(|peer| {
                    let peer = Peer::new(peer.pid(), peer.uid(), peer.gid());
                    (Stream::Unix(stream), peer)
                }))
            }
            Self::Ip(listener) => {
                let (stream, address) = listener.accept().await?;
                // A reply is one write: nothing is won by waiting for more. And who has lost its power says no goodbye.
                let ready =
                    stream.set_nodelay(true).is_ok() && sockopt::set_socket_keepalive(&stream, true).is_ok();
                Ok(ready.then_some((Stream::Ip(stream), Peer::Remote(address))))
            }
        }
    }
}

/// A client's end of the wire.
pub(super) enum Stream {
    Unix(UnixStream),
    Ip(TcpStream),
}

impl Stream {
    /// Whether file descriptors may come along.
    pub(super) fn carries_descriptors(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Our end's address, on the network.
    #[cfg(feature = "sasl")]
    pub(super) fn local_address(&self) -> Option<std::net::SocketAddr> {
        match self {
            Self::Unix(_) => None,
            Self::Ip(stream) => stream.local_addr().ok(),
        }
    }

    /// Tries it if the reactor takes the socket for ready, and tells the reactor if it isn't.
    pub(super) fn try_io<T>(
        &self,
        interest: Interest,
        attempt: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        match self {
            Self::Unix(stream) => stream.try_io(interest, attempt),
            Self::Ip(stream) => stream.try_io(interest, attempt),
        }
    }

    /// Waits until there is something to read, or room to write.
    pub(super) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Unix(stream) => stream.ready(interest).await,
            Self::Ip(stream) => stream.ready(interest).await,
        }
    }

    /// Waits until the other end says no more, whatever has come and wasn't read.
    pub(super) async fn closed(&self) {
        match self {
            Self::Unix(stream) => _ = stream.ready(END).await,
            Self::Ip(stream) => closed(stream).await,
        }
    }

    /// Sends what the socket takes at once.
    pub(super) fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.try_write_vectored(parts),
            Self::Ip(stream) => stream.try_write_vectored(parts),
        }
    }
}

/// The same, of a socket that is nobody's stream yet.
pub(super) async fn closed(stream: &TcpStream) {
    _ = stream.ready(END).await;
}

/// Urgent data isn't watched for: what is left of it is the end.
const END: Interest = Interest::PRIORITY;

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Ip(stream) => stream.as_fd(),
        }
    }
}
