//! The daemon's TLS: its certificates, and the handshakes of those who come, before they are clients.
//!
//! A handshake is a task of its own, with a place among so many ([`Places`]), a time in which it must be done, and never more
//! than a record in memory. What costs time in it, the signature and the chain, runs where it may block, few at once: a
//! thousand who come together slow each other down, and nobody else. Leans on `net`'s TLS for the handshake itself.
//! Refuses without a word, as libvirt does; the log says why.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::flood::Flood;
use super::places::{Place, Places};
use super::process::{Exit, StartError};
use super::settings::Settings;
use crate::net::layer::{Broken, Layer, MAX_RECORD};
use crate::net::peer::Peer;
use crate::net::tls::{Acceptor, Established, Files, Handshake, Rules, TlsError};
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// What all handshakes share.
pub(super) struct Tls {
    source: Source,
    /// The certificates in use. Who has come under others goes on with those.
    acceptor: Mutex<Arc<Acceptor>>,
    places: Arc<Places>,
    /// How many steps that cost time may run at once.
    steps: Arc<Semaphore>,
    refusals: Flood,
}

/// Where the certificates are read again from.
struct Source {
    files: Files,
    rules: Rules,
    allowed: Option<Vec<String>>,
}

impl Source {
    fn load(&self) -> Result<Arc<Acceptor>, TlsError> {
        let acceptor = Acceptor::load(&self.files, &self.rules, self.allowed.as_deref())?;
        for warning in acceptor.warnings() {
            tracing::warn!("{warning}");
        }
        Ok(Arc::new(acceptor))
    }
}

impl Tls {
    /// Reads the certificates. `home`: a user's home directory; `None` for root.
    pub(super) fn load(settings: &Settings, home: Option<&Path>) -> Result<Self, StartError> {
        let named = settings
            .certificates()
            .map_err(|error| StartError::new(Exit::Usage, error.to_string()).advise(error.advice))?;
        let mut files = Files::server(home);
        if let Some((ca, own)) = named.own {
            files = Files { ca, crl: None, own };
        }
        files.crl = named.crl.or(files.crl);
        let network = &settings.network;
        let rules = Rules {
            sanity: network.sane_certificate,
            verify: network.verify_certificate,
            priority: network.tls_priority.clone(),
        };
        let source = Source { files, rules, allowed: network.tls_allowed_dn_list.clone() };
        let acceptor = source.load().map_err(|error| {
            let plain = StartError::new(Exit::Network, format!("TLS can't be served: {error}"));
            let advice = match error.advice() {
                "" => "strongroom pki-check looks at all of them",
                advice => advice,
            };
            plain.advise(format!("{advice}; or serve no TLS (listen_tls = 0, or no --listen)"))
        })?;
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self {
            source,
            acceptor: Mutex::new(acceptor),
            places: Places::new(MOST_HANDSHAKES, SHARE),
            steps: Arc::new(Semaphore::new((processors / 2).max(1))),
            refusals: Flood::new(MOST_LINES, LINES_PERIOD),
        })
    }

    /// Reads the certificates again. If they are of no use, those from before stay.
    pub(super) fn reload(&self) -> Result<(), Error> {
        let fresh = self.source.load().map_err(|error| {
            let detail = format!("{error}; the certificates from before stay in use");
            match error.advice() {
                "" => Error::new(ErrorCode::InternalError, ErrorDomain::Rpc, detail),
                advice => Error::new(ErrorCode::InternalError, ErrorDomain::Rpc, detail).advise(advice),
            }
        })?;
        *self.acceptor.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Waits for a place among the handshakes, and shakes hands: the layer behind which the client speaks, and the name
    /// that it has proved. `None`: it is refused, and the log knows.
    pub(super) async fn shake(&self, stream: &TcpStream, peer: Peer) -> Option<(Layer, Option<String>)> {
        let address = peer.address()?.ip();
        let shaken = match self.places.take(address).await {
            None => Err(Refused::Unheard),
            Some(place) => tokio::select! {
                biased;
                () = place.taken() => Err(Refused::Crowded),
                shaken = timeout(LONGEST, self.try_to(&place, stream)) => shaken.unwrap_or(Err(Refused::Slow)),
            },
        };
        match shaken {
            Ok(shaken) => Some(shaken),
            Err(Refused::Gone) => {
                tracing::debug!("{peer} left amid the TLS handshake");
                None
            }
            Err(refused) => {
                self.refusals.warn(&format!("refused {peer}: {refused}"));
                None
            }
        }
    }

    async fn try_to(&self, place: &Place, stream: &TcpStream) -> Result<(Layer, Option<String>), Refused> {
        let acceptor = Arc::clone(&self.acceptor.lock().unwrap_or_else(PoisonError::into_inner));
        let mut handshake = acceptor.accept().map_err(Refused::Tls)?;
        loop {
            let mut record = read_record(stream).await?;
            place.waits_for_us();
            let permit = Arc::clone(&self.steps).acquire_owned().await.map_err(|_| Refused::Gone)?;
            let step = tokio::task::spawn_blocking(move || {
                let mut out = Vec::new();
                let outcome = handshake.step(&mut record, &mut out);
                drop(permit);
                (handshake, out, outcome)
            });
            let (again, out, outcome) = step.await.map_err(|_| Refused::Gone)?;
            handshake = again;
            place.moved(); // a step further; a part of a record doesn't count, however often one comes
            let sent = send(stream, &out).await; // an alert, if it failed
            let Some(Established { mut layer, peer, verdict }) = outcome.map_err(Refused::Tls)? else {
                sent?;
                continue;
            };
            verdict.map_err(Refused::Tls)?;
            let mut yes = Vec::new();
            layer.sealer.seal(&[&[1]], &mut yes).map_err(Refused::Broken)?;
            sent?;
            send(stream, &yes).await?;
            return Ok((layer, peer));
        }
    }
}

/// Why there is no handshake.
enum Refused {
    Tls(TlsError),
    Broken(Broken),
    /// It took its time.
    Slow,
    /// Too many wait for a place.
    Unheard,
    /// Others waited for the place on which it stood still.
    Crowded,
    /// It went by itself.
    Gone,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tls(error) => error.fmt(f),
            Self::Broken(broken) => broken.fmt(f),
            Self::Slow => write!(f, "its TLS handshake took longer than {} s", LONGEST.as_secs()),
            Self::Unheard => f.write_str("too many wait for a TLS handshake"),
            Self::Crowded => f.write_str("its TLS handshake stood still, and others waited for the place"),
            Self::Gone => f.write_str("it is gone"),
        }
    }
}

/// One record, and not a byte of what comes behind it: that may be for the connection.
async fn read_record(stream: &TcpStream) -> Result<Vec<u8>, Refused> {
    let mut record = Vec::new();
    loop {
        let length = match Handshake::record(&record).map_err(Refused::Broken)? {
            Some(length) if length > MAX_RECORD => {
                return Err(Refused::Broken(Broken::Malformed("it sent a record that is too long")));
            }
            Some(length) if length <= record.len() => return Ok(record),
            Some(length) => length,
            None => (record.len() + 1).max(RECORD_HEAD),
        };
        let have = record.len();
        stream.readable().await.map_err(|_| Refused::Gone)?;
        record.resize(length, 0);
        let read = stream
            .try_io(Interest::READABLE, || Ok(recv(stream, &mut record[have..], RecvFlags::empty())?.0));
        match read {
            Ok(0) => return Err(Refused::Gone),
            Ok(count) => record.truncate(have + count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => record.truncate(have),
            Err(_) => return Err(Refused::Gone),
        }
    }
}

async fn send(stream: &TcpStream, mut bytes: &[u8]) -> Result<(), Refused> {
    while !bytes.is_empty() {
        stream.writable().await.map_err(|_| Refused::Gone)?;
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Refused::Gone),
        }
    }
    Ok(())
}

/// A record's type, version and length.
const RECORD_HEAD: usize = 5;

/// Handshakes at once. Not among the clients that have yet to authenticate: they aren't clients.
const MOST_HANDSHAKES: usize = 256;

/// And of one address.
const SHARE: usize = 64;

/// How long one may take.
const LONGEST: Duration = Duration::from_secs(10);

/// Refusals that the log gets one by one, in a period.
const MOST_LINES: u32 = 20;

const LINES_PERIOD: Duration = Duration::from_secs(10);
