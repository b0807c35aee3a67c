//! The socket of a connection, whatever it leads to: a Unix or TCP socket, or one end of a pair that a program carries on.
//!
//! Leans on rustix, for one kind of descriptor whatever was connected. Refuses to die of SIGPIPE, and to leave out what a
//! carrier said when the connection ends: it alone knows why.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{SendFlags, Shutdown};

use crate::secret::{Error, ErrorDomain};

/// A connected socket.
pub(super) struct Socket {
    fd: OwnedFd,
    carrier: Option<Box<dyn Carrier>>,
}

/// Who takes the bytes of a socket on to another host.
pub(super) trait Carrier: Send + Sync {
    /// What went wrong, in its own words; empty if it said nothing.
    fn complaint(&self) -> String;

    /// What a person can do about it.
    fn advice(&self) -> String;

    /// Makes room for what it may have to say. Called every now and then.
    fn listen(&self) {}

    /// Ends it, and waits until it is gone.
    fn end(&self);
}

impl Socket {
    pub(super) fn new(fd: impl Into<OwnedFd>) -> Self {
        Self { fd: fd.into(), carrier: None }
    }

    pub(super) fn carried(fd: impl Into<OwnedFd>, carrier: Box<dyn Carrier>) -> Self {
        Self { fd: fd.into(), carrier: Some(carrier) }
    }

    /// From now on a read that gets nothing for so long ends with EAGAIN.
    pub(super) fn set_patience(&self, time: Duration) -> io::Result<()> {
        Ok(set_socket_timeout(&self.fd, Timeout::Recv, Some(time))?)
    }

    /// Reads what there is. 0: the end.
    pub(super) fn read(&self, into: &mut [u8]) -> rustix::io::Result<usize> {
        retry_on_intr(|| rustix::io::read(&self.fd, &mut *into))
    }

    /// The same, but no later than this: then it ends with EAGAIN.
    pub(super) fn read_until(&self, into: &mut [u8], end: Instant) -> rustix::io::Result<usize> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Errno::AGAIN);
        }
        set_socket_timeout(&self.fd, Timeout::Recv, Some(left))?;
        self.read(into)
    }

    /// Sends all of it. Not by `Write`: a program that doesn't ignore SIGPIPE must not die of a server's end.
    pub(super) fn send(&self, mut bytes: &[u8]) -> rustix::io::Result<()> {
        while !bytes.is_empty() {
            let sent = retry_on_intr(|| rustix::net::send(&self.fd, bytes, SendFlags::NOSIGNAL))?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// Sends as much as there is room for right now.
    pub(super) fn send_now(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        retry_on_intr(|| rustix::net::send(&self.fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT))
    }

    /// Ends the connection, both ways. Whoever reads finds the end.
    pub(super) fn shut(&self) {
        _ = rustix::net::shutdown(&self.fd, Shutdown::Both);
    }

    /// Gives the carrier, if there is one, a moment of attention.
    pub(super) fn listen(&self) {
        if let Some(carrier) = &self.carrier {
            carrier.listen();
        }
    }

    /// Ends the carrier, if there is one.
    pub(super) fn end(&self) {
        self.shut();
        if let Some(carrier) = &self.carrier {
            carrier.end();
        }
    }

    /// The addresses of both ends, where they are addresses of hosts.
    pub(super) fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let local = rustix::net::getsockname(&self.fd).ok();
        let remote = rustix::net::getpeername(&self.fd).ok().flatten();
        (local.and_then(|it| it.try_into().ok()), remote.and_then(|it| it.try_into().ok()))
    }

    /// The error of a connection that its other end has ended.
    pub(super) fn end_of_file(&self) -> Error {
        self.failed("End of file while reading data", Errno::IO, ENDED)
    }

    /// The error of a read that failed.
    pub(super) fn lost(&self, errno: Errno) -> Error {
        let advice = if errno == Errno::CONNRESET { ENDED } else { "" };
        self.failed("Cannot recv data", errno, advice)
    }

    fn failed(&self, what: &str, errno: Errno, advice: &str) -> Error {
        let error = io::Error::from_raw_os_error(errno.raw_os_error());
        let (said, advice) = match &self.carrier {
            Some(carrier) => (carrier.complaint(), carrier.advice()),
            None => (String::new(), advice.to_owned()),
        };
        let what = if said.is_empty() { what.to_owned() } else { format!("{what}: {said}") };
        let error = Error::system(what, &error).in_domain(ErrorDomain::Rpc);
        if advice.is_empty() { error } else { error.advise(advice) }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.end();
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const ENDED: &str = "the server has ended the connection: see its log, and connect again";
