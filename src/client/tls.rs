//! Connecting to a host by TLS.
//!
//! The context first, so that a missing certificate is told of before anything is connected; then the handshake, record by
//! record; then the one byte by which a libvirt server says that it has taken our certificate. Leans on `net`'s TLS, which has no
//! sockets. Refuses a server whose certificate doesn't prove its host, unless it is told not to look.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

use super::ip;
use super::patience::Patience;
use super::socket::Socket;
use super::stream::{Stop, Stream};
use crate::net::layer::Broken;
use crate::net::tls::{Connector, Established, Files, Handshake, Rules, TlsError};
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// Where to go, and what to insist on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) host: String,
    pub(super) port: u16,
    /// The directory of all certificates, if not the usual ones.
    pub(super) pkipath: Option<PathBuf>,
    /// Whether our own certificates are looked at.
    pub(super) sanity: bool,
    /// Whether the server's is.
    pub(super) verify: bool,
    /// Which ciphers may be used, in GnuTLS' words.
    pub(super) priority: Option<String>,
}

impl Tls {
    pub(super) fn connect(&self, limit: Duration) -> Result<(Stream, Patience), Error> {
        let is_root = rustix::process::geteuid().is_root();
        let home = env::var_os("HOME").filter(|it| !it.is_empty() && !is_root).map(PathBuf::from);
        let files = Files::client(self.pkipath.as_deref(), home.as_deref());
        let rules = Rules { sanity: self.sanity, verify: self.verify, priority: self.priority.clone() };
        let connector = Connector::load(&files, &rules).map_err(|error| unfit(&error))?;
        for warning in connector.warnings() {
            tracing::warn!("{warning}");
        }
        let addresses = ip::resolve(&self.host, self.port)?;
        let patience = Patience::new("TLS", &self.host, self.port, limit);
        let socket = Socket::new(ip::connect(&self.host, self.port, &addresses, patience.end, NOBODY)?);
        let handshake = connector.connect(&self.host).map_err(|error| unfit(&error))?;
        let established = shake_hands(&socket, handshake, &patience)?;
        let mut stream = Stream::in_layer(socket, established.layer);
        confirmed(&mut stream, &patience)?;
        Ok((stream, patience))
    }
}

fn shake_hands(socket: &Socket, mut handshake: Handshake, patience: &Patience) -> Result<Established, Error> {
    let mut record = Vec::new();
    let mut out = Vec::new();
    loop {
        let stepped = handshake.step(&mut record, &mut out);
        // Be it an alert that says why we go no further.
        socket.send(&out).or_else(|error| if stepped.is_err() { Ok(()) } else { Err(interrupted(error)) })?;
        out.clear();
        match stepped {
            Ok(Some(established)) => return Ok(established),
            Ok(None) => receive(socket, &mut record, patience)?,
            Err(error) => return Err(advised(failed(&error), &error)),
        }
    }
}

/// The next record, whole.
fn receive(socket: &Socket, record: &mut Vec<u8>, patience: &Patience) -> Result<(), Error> {
    record.clear();
    loop {
        let want = match Handshake::record(record) {
            Ok(Some(length)) if length <= record.len() => return Ok(()),
            Ok(Some(length)) => length,
            Ok(None) => record.len() + 1,
            Err(broken) => return Err(failed(format!("TLS handshake failed: {broken}")).advise(NO_TLS)),
        };
        let have = record.len();
        record.resize(want.max(HEAD), 0);
        let read = socket.read_until(&mut record[have..], patience.end).map_err(|errno| match errno {
            Errno::AGAIN => patience.over(),
            errno => interrupted(errno),
        })?;
        record.truncate(have + read);
        if read == 0 {
            return Err(failed("TLS handshake failed: the server has ended the connection").advise(NO_TLS));
        }
    }
}

/// Waits for the byte by which the server says that it has taken our certificate.
fn confirmed(stream: &mut Stream, patience: &Patience) -> Result<(), Error> {
    let mut byte = [0];
    stream.inflow.end = Some(patience.end);
    let read = stream.inflow.read(&mut byte);
    stream.inflow.end = None;
    let errno = match read {
        Ok(1) if byte == [TAKEN] => return Ok(()),
        // Another byte; or it ends TLS in due form, which libvirt's client takes for one.
        Ok(1) | Err(Stop::Layer(Broken::Closed)) => {
            let detail = "server verification (of our certificate or IP address) failed";
            return Err(Error::new(ErrorCode::Rpc, ErrorDomain::Rpc, detail).advise(NOT_TAKEN));
        }
        Ok(_) => Errno::IO,
        Err(Stop::System(Errno::AGAIN)) => return Err(patience.over()),
        Err(Stop::System(errno)) => errno,
        Err(Stop::Layer(Broken::Malformed(what))) => {
            return Err(failed(format!("Unable to read TLS confirmation: {what}")));
        }
        Err(Stop::NoMemory(exhausted)) => return Err(exhausted.into()),
    };
    let error = std::io::Error::from_raw_os_error(errno.raw_os_error());
    Err(Error::system("Unable to read TLS confirmation", &error)
        .in_domain(ErrorDomain::Rpc)
        .advise(NOT_TAKEN))
}

fn interrupted(errno: Errno) -> Error {
    let error = std::io::Error::from_raw_os_error(errno.raw_os_error());
    let cause = Error::system("TLS handshake failed", &error);
    failed(cause.detail()).advise(NO_TLS)
}

/// Something is wrong with our own files.
fn unfit(error: &TlsError) -> Error {
    advised(Error::new(ErrorCode::SystemError, ErrorDomain::Rpc, error.to_string()), error)
}

/// With its advice, if it has any: an empty hint helps nobody.
fn advised(told: Error, error: &TlsError) -> Error {
    if error.advice().is_empty() { told } else { told.advise(error.advice()) }
}

/// The handshake, or the server's certificate, has failed.
fn failed(error: impl std::fmt::Display) -> Error {
    let text = error.to_string();
    let text = text.strip_prefix("authentication failed: ").unwrap_or(&text);
    Error::new(ErrorCode::AuthFailed, ErrorDomain::Rpc, text)
}

/// The byte.
const TAKEN: u8 = 1;

/// What the length of a record can be told from.
const HEAD: usize = 5;

/// What to do if nobody listens for TLS.
const NOBODY: &str =
    "nobody listens there: the daemon needs --listen (or strongroomd-tls.socket) and listen_tls";

const NO_TLS: &str = "is that the daemon's TLS port? see the daemon's log";
const NOT_TAKEN: &str = "the server doesn't take our certificate, or wants one and we have none: its log says why; see ours with: \
                         strongroom pki-check";
