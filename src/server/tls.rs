//! The daemon's TLS: its certificates, and the handshakes of those who come, before they are clients.
//!
//! A handshake is a task of its own, with a place among so many ([`Places`]), a time in which the client must have done its
//! part, and no more in memory than a handshake may have, 128 KiB, a record, and what is behind it. What costs time in it,
//! the signature and the chain, is a step ([`Steps`]), few at once: a thousand who come together slow each other down, and
//! nobody else. Leans on `net`'s TLS for the handshake itself. Refuses without a word, as libvirt does; the log says why.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::flood::Flood;
use super::origin::Origin;
use super::places::{Loan, Place, Places, Terms};
use super::process::{Exit, StartError};
use super::settings::Settings;
use super::steps::{Steps, Unmade};
use super::stream::closed;
use crate::net::layer::{Broken, Layer, MAX_RECORD};
use crate::net::peer::Peer;
use crate::net::tls::{Acceptor, Established, Files, Handshake, Rules, TlsError};
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// What all handshakes share.
pub(super) struct Tls {
    source: Source,
    /// The certificates in use. Who has come under others goes on with those.
    acceptor: Newest<Acceptor>,
    places: Arc<Places>,
    /// What costs time.
    steps: Steps,
    refusals: Flood,
}

/// Where the certificates are read again from.
struct Source {
    files: Files,
    rules: Rules,
    allowed: Option<Vec<String>>,
}

impl Source {
    fn load(&self) -> Result<Acceptor, TlsError> {
        let acceptor = Acceptor::load(&self.files, &self.rules, self.allowed.as_deref())?;
        for warning in acceptor.warnings() {
            tracing::warn!("{warning}");
        }
        Ok(acceptor)
    }
}

impl Tls {
    /// Reads the certificates. `home`: a user's home directory; `None` for root.
    pub(super) fn load(settings: &Settings, home: Option<&Path>) -> Result<Self, StartError> {
        let named = settings
            .certificates()
            .map_err(|error| StartError::new(Exit::Usage, error.to_string()).advise(error.advice))?;
        let files = Files::server(home).with(&named);
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
        let at_once = (processors / 2).max(1);
        Ok(Self {
            source,
            acceptor: Newest::new(acceptor),
            places: handshakes(),
            steps: Steps::new(at_once, at_once),
            refusals: Flood::default(),
        })
    }

    /// Reads the certificates again. If they are of no use, those from before stay.
    pub(super) fn reload(&self) -> Result<(), Error> {
        let before = self.acceptor.now();
        let renewed = self.acceptor.renew(|| self.source.load());
        if let (Some(crl), true, false) =
            (&self.source.files.crl, before.revokes(), self.acceptor.now().revokes())
        {
            tracing::warn!(
                "the CA revocation list '{}' is gone: whoever was revoked comes in again; put it back, or set crl_file, \
                 with which the old list stays until there is another",
                crl.display()
            );
        }
        renewed.map_err(|error| {
            let detail = format!("{error}; the certificates from before stay in use");
            match error.advice() {
                "" => Error::new(ErrorCode::InternalError, ErrorDomain::Rpc, detail),
                advice => Error::new(ErrorCode::InternalError, ErrorDomain::Rpc, detail).advise(advice),
            }
        })
    }

    /// Waits for a place among the handshakes, and shakes hands: the layer behind which the client speaks, and the name
    /// that it has proved. `None`: it is refused, and the log knows.
    pub(super) async fn shake(&self, stream: &TcpStream, peer: Peer) -> Option<(Layer, Option<String>)> {
        let place = tokio::select! {
            biased;
            place = self.places.take(Origin::of(&peer)) => place.ok_or(Refused::Unheard),
            () = closed(stream) => Err(Refused::Gone),
        };
        let shaken = match place {
            Err(refused) => Err(refused),
            Ok(place) => tokio::select! {
                biased;
                () = place.taken() => Err(Refused::Crowded),
                shaken = self.try_to(&place, stream, peer) => shaken,
            },
        };
        match shaken {
            Ok(shaken) => Some(shaken),
            Err(Refused::Gone) => {
                tracing::debug!("{peer} left before its TLS handshake was over");
                None
            }
            Err(Refused::Unmade(Unmade::BrokeOff)) => {
                tracing::error!(
                    "{peer} has no connection: a step of its TLS handshake broke off, by a fault of ours"
                );
                None
            }
            Err(refused) => {
                self.refusals.warn(&format!("refused {peer}: {refused}"));
                None
            }
        }
    }

    async fn try_to(
        &self,
        place: &Place,
        stream: &TcpStream,
        peer: Peer,
    ) -> Result<(Layer, Option<String>), Refused> {
        let mut handshake = self.acceptor.now().accept().map_err(Refused::Tls)?;
        let mut hours = Hours(LONGEST);
        let mut left = MOST_RECORDS;
        while left > 0 {
            let mut come = hours.spend(read_record(stream)).await?;
            let taken = come.len();
            look_ahead(stream, &mut come);
            let is_small = come.len() == taken && come[0] == CHANGE_CIPHER_SPEC;
            let step = move || {
                let (mut out, mut outcome, mut used) = (Vec::new(), Ok(None), 0);
                while let (Ok(None), Some(record)) = (&outcome, whole_record(&mut come[used..]))
                    && left > 0
                {
                    used += record.len();
                    left -= 1;
                    outcome = handshake.step(record, &mut out);
                }
                (handshake, out, outcome, used, left)
            };
            place.waits_for_us();
            let (again, out, outcome, used, remain) = match is_small {
                true => step(),
                false => self.steps.make(Origin::of(&peer), step).await.map_err(Refused::Unmade)?,
            };
            (handshake, left) = (again, remain);
            match out.is_empty() {
                false => place.moved(),          // it has gone on
                true => place.has_stood_still(), // parts don't count, of records or of messages, however often they come
            }
            hours.spend(fill(stream, &mut Vec::new(), used - taken)).await?; // it has been seen already
            let sent = hours.spend(send(stream, &out)).await; // an alert, if it failed
            let Some(Established { mut layer, peer: name, verdict, excused }) =
                outcome.map_err(Refused::Tls)?
            else {
                sent?;
                continue;
            };
            verdict.map_err(Refused::Tls)?;
            let mut yes = Vec::new();
            layer.sealer.seal(&[&[1]], &mut yes).map_err(Refused::Broken)?;
            sent?;
            hours.spend(send(stream, &yes)).await?;
            if let Some(excused) = excused {
                self.refusals.warn(&format!(
                    "{peer}: {excused}; let in all the same, because tls_no_verify_certificate is set"
                ));
            }
            return Ok((layer, name));
        }
        Err(Refused::Broken(Broken::Malformed("its TLS handshake came in too many records")))
    }
}

/// The places for them. One address may have all but those that are kept for others.
fn handshakes() -> Arc<Places> {
    let longest = None; // who is in one has hours of its own
    let terms = Terms { most: MOST_HANDSHAKES, share: SHARE, waiting: MOST_WAITING, longest };
    Places::lending(terms, Loan { talk: LONGEST, reserve: RESERVE })
}

/// What is read anew now and then, while others use what was read before.
struct Newest<T> {
    now: Mutex<Arc<T>>,
    renewing: Mutex<()>,
}

impl<T> Newest<T> {
    fn new(first: T) -> Self {
        Self { now: Mutex::new(Arc::new(first)), renewing: Mutex::default() }
    }

    fn now(&self) -> Arc<T> {
        Arc::clone(&self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads it anew: one after the other, so that what was read later stays.
    fn renew<E>(&self, load: impl FnOnce() -> Result<T, E>) -> Result<(), E> {
        let _turn = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Arc::new(load()?);
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

/// What a client has left of its time. It doesn't pass while the client waits for us.
struct Hours(Duration);

impl Hours {
    async fn spend<T>(&mut self, part: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
        let since = Instant::now();
        let done = timeout(self.0, part).await;
        self.0 = self.0.saturating_sub(since.elapsed());
        done.unwrap_or(Err(Refused::Slow))
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
    Unmade(Unmade),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tls(error) if error.advice().is_empty() => error.fmt(f),
            Self::Tls(error) => write!(f, "{error}; {}", error.advice()),
            Self::Broken(broken) => broken.fmt(f),
            Self::Slow => write!(f, "its TLS handshake took longer than {} s", LONGEST.as_secs()),
            Self::Unheard => f.write_str("too many wait for a TLS handshake"),
            Self::Crowded => f.write_str("its TLS handshake stood still, and others waited for the place"),
            Self::Gone => f.write_str("it is gone"),
            Self::Unmade(unmade) => write!(f, "in its TLS handshake {unmade}"),
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
        read(stream, &mut record, length).await?;
    }
}

/// Appends what else has come, and leaves it where it is: what a client says in one go is for one step, as far as it
/// belongs to the handshake.
fn look_ahead(stream: &TcpStream, come: &mut Vec<u8>) {
    let have = come.len();
    come.resize(have + AHEAD, 0);
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let count = recv(stream, &mut come[have..], flags).map_or(0, |(count, _)| count);
    come.truncate(have + count);
}

/// The first record of this, if all of it is there.
fn whole_record(come: &mut [u8]) -> Option<&mut [u8]> {
    let length = Handshake::record(come).ok().flatten()?;
    come.get_mut(..length)
}

/// Reads until it is so long.
async fn fill(stream: &TcpStream, bytes: &mut Vec<u8>, length: usize) -> Result<(), Refused> {
    while bytes.len() < length {
        read(stream, bytes, length).await?;
    }
    Ok(())
}

/// Reads some of what is missing.
async fn read(stream: &TcpStream, bytes: &mut Vec<u8>, length: usize) -> Result<(), Refused> {
    let have = bytes.len();
    stream.readable().await.map_err(|_| Refused::Gone)?;
    bytes.resize(length, 0);
    let read =
        stream.try_io(Interest::READABLE, || Ok(recv(stream, &mut bytes[have..], RecvFlags::empty())?.0));
    bytes.truncate(have + read.as_ref().map_or(0, |count| *count));
    match read {
        Ok(1..) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Ok(0) | Err(_) => Err(Refused::Gone),
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

/// The type of a record in which there is nothing to compute.
const CHANGE_CIPHER_SPEC: u8 = 20;

/// So far ahead is looked: a client's certificates and its proof are shorter.
const AHEAD: usize = 8192;

/// Handshakes at once. Not among the clients that have yet to authenticate: they aren't clients.
const MOST_HANDSHAKES: usize = 320;

/// And of one address, when others want to come.
const SHARE: usize = 64;

/// Those of them that are for addresses with less than their share.
const RESERVE: usize = 64;

/// Those who may wait for a place among the handshakes.
const MOST_WAITING: usize = 4096;

/// Records that a client's part may come in. Chains of certificates cut into pieces of 512 bytes have room.
const MOST_RECORDS: usize = 100;

/// How long a client may take for its part in one.
const LONGEST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn of_two_reloads_that_cross_the_later_one_stays() {
        let newest = Arc::new(Newest::new("first"));
        let (begins, begun) = mpsc::channel();
        let (crosses, crossed) = mpsc::channel();
        let earlier = thread::spawn({
            let newest = Arc::clone(&newest);
            move || {
                let load = || {
                    begins.send(()).unwrap();
                    // What it has read is old now; the other one may or may not come between.
                    _ = crossed.recv_timeout(Duration::from_millis(200));
                    Ok::<_, ()>("earlier")
                };
                newest.renew(load)
            }
        });
        begun.recv().unwrap();
        assert_eq!(newest.now().as_ref(), &"first", "nobody waits for a reload");
        assert_eq!(newest.renew(|| Ok::<_, ()>("later")), Ok(()));
        _ = crosses.send(());
        assert_eq!(earlier.join().unwrap(), Ok(()));
        assert_eq!(newest.now().as_ref(), &"later");
        assert_eq!(newest.renew(|| Err(7)), Err(7));
        assert_eq!(newest.now().as_ref(), &"later");
    }

    #[test]
    fn a_clients_time_passes_only_while_we_wait_for_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut hours = Hours(Duration::from_millis(300));
            thread::sleep(Duration::from_millis(310)); // we are busy
            assert!(hours.spend(async { Ok(()) }).await.is_ok());
            let since = Instant::now();
            assert!(matches!(hours.spend(std::future::pending::<Result<(), _>>()).await, Err(Refused::Slow)));
            assert!(since.elapsed() >= Duration::from_millis(250));
            let again = hours.spend(std::future::pending::<Result<(), _>>()).await;
            assert!(matches!(again, Err(Refused::Slow)) && since.elapsed() < Duration::from_millis(550));
        });
    }

    #[test]
    fn the_log_says_what_to_do_about_a_refusal() {
        let files = Files { ca: "/no/such/ca.pem".into(), ..Files::server(None) };
        let error = Acceptor::load(&files, &Rules::default(), None).unwrap_err();
        let line = Refused::Tls(error).to_string();
        assert!(
            line.contains("'/no/such/ca.pem'")
                && line.ends_with("; put it there, or name another place for it"),
            "{line}"
        );
    }
}
