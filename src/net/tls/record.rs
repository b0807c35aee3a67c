//! TLS after the handshake: the two halves of a connection's layer.
//!
//! rustls shakes hands, but it would copy what each record carries into ordinary memory and leave it there. So it hands the
//! keys over, and this takes its place. Leans on `cipher` for single records, `after` for what else than data may come, and
//! on rustls for the secrets behind a KeyUpdate (those rustls keeps itself, in ordinary memory that it wipes). Refuses
//! renegotiation, and to go on after anything that isn't as it should be.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::kernel::KernelConnection;
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};
use secrecy::ExposeSecretMut;

use super::after::{Asked, Message, alert};
use super::cipher::{Cipher, HEAD, MAX_PART, Unfit, Version, kind};
use crate::memory::{SecretBytes, scrubbed};
use crate::net::layer::{Broken, Layer, MAX_RECORD, Open, Seal};

/// The layer of a connection whose handshake gave these keys. `tickets`: the other end is a server, which may send some.
pub(super) fn layer(
    version: Version,
    secrets: ExtractedSecrets,
    next: Box<dyn Next>,
    tickets: bool,
) -> Result<Layer, Unfit> {
    let opening = Cipher::new(version, secrets.rx.0, &secrets.rx.1)?;
    let sealing = Cipher::new(version, secrets.tx.0, &secrets.tx.1)?;
    let bits = sealing.bits();
    let (opener, sealer) = halves(opening, sealing, next, tickets)?;
    Ok(Layer { opener: Box::new(opener), sealer: Box::new(sealer), bits })
}

fn halves(
    opening: Cipher,
    sealing: Cipher,
    next: Box<dyn Next>,
    tickets: bool,
) -> Result<(Opener, Sealer), Unfit> {
    // TLS 1.2 has no next secrets: what they would come from need not be kept.
    let next = (opening.version() == Version::Tls13).then_some(next);
    let shared = Arc::new(Shared { owed: AtomicBool::new(false), next: Mutex::new(next) });
    let opener = Opener {
        cipher: opening,
        shared: Arc::clone(&shared),
        message: Message::new(tickets),
        fruitless: 0,
        over: None,
    };
    let records = Records { cipher: sealing, shared, sealed: 0, renew_after: RENEW_AFTER };
    Ok((opener, Sealer { records, spare: SecretBytes::zeroed(SPARE_BENCH)?, over: None }))
}

/// How long the record is that begins with `front`, if it may be as long as it says.
pub(super) fn length(front: &[u8], longest: usize) -> Result<Option<usize>, Broken> {
    let Some(&[kind, major, _, high, low]) = front.first_chunk::<HEAD>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !(20..=23).contains(&kind) || major != 3 {
        return Err(Broken::Malformed("what came is no TLS record"));
    }
    if length == 0 || HEAD + length > longest.min(MAX_RECORD) {
        return Err(Broken::Malformed("a TLS record of a length that none has"));
    }
    Ok(Some(HEAD + length))
}

/// Where a direction's next secrets come from.
pub(super) trait Next: Send {
    fn to_open(&mut self) -> Result<ConnectionTrafficSecrets, rustls::Error>;
    fn to_seal(&mut self) -> Result<ConnectionTrafficSecrets, rustls::Error>;
}

impl<Side: Send> Next for KernelConnection<Side> {
    fn to_open(&mut self) -> Result<ConnectionTrafficSecrets, rustls::Error> {
        self.update_rx_secret().map(|(_, secrets)| secrets)
    }

    fn to_seal(&mut self) -> Result<ConnectionTrafficSecrets, rustls::Error> {
        self.update_tx_secret().map(|(_, secrets)| secrets)
    }
}

/// What the halves have in common.
struct Shared {
    /// The other end has asked for our new keys.
    owed: AtomicBool,
    next: Mutex<Option<Box<dyn Next>>>,
}

impl Shared {
    /// The cipher under a direction's next secrets.
    fn renewed(
        &self,
        secrets: fn(&mut dyn Next) -> Result<ConnectionTrafficSecrets, rustls::Error>,
    ) -> Result<Cipher, Broken> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let next = next.as_mut().ok_or(Broken::Malformed("a KeyUpdate where TLS has none"))?;
        let cipher = scrubbed(|| {
            let secrets = secrets(next.as_mut()).map_err(|_| Unfit::Suite)?;
            Cipher::new(Version::Tls13, 0, &secrets)
        });
        cipher.map_err(|unfit| match unfit {
            Unfit::Suite => Broken::Malformed("the next TLS keys could not be made"),
            Unfit::Memory(_) => Broken::Malformed("there is no secret memory for the next TLS keys"),
        })
    }
}

/// The half for what comes.
struct Opener {
    cipher: Cipher,
    shared: Arc<Shared>,
    message: Message,
    /// Records in a row that brought no data.
    fruitless: u32,
    over: Option<Broken>,
}

impl Open for Opener {
    fn record(&self, front: &[u8]) -> Result<Option<usize>, Broken> {
        length(front, self.cipher.longest())
    }

    fn open(&mut self, record: &mut [u8], take: &mut dyn FnMut(&[u8])) -> Result<(), Broken> {
        if let Some(over) = self.over {
            return Err(over);
        }
        let opened = self.open_one(record, take);
        self.over = opened.err();
        opened
    }
}

impl Opener {
    fn open_one(&mut self, record: &mut [u8], take: &mut dyn FnMut(&[u8])) -> Result<(), Broken> {
        if self.record(record)? != Some(record.len()) {
            return Err(Broken::Malformed("a TLS record of another length than it says"));
        }
        let (what, content) = self.cipher.open(record)?;
        let content = &record[content];
        if what != kind::HANDSHAKE && self.message.has_begun() {
            return Err(Broken::Malformed("a TLS record amid a handshake message"));
        }
        match what {
            kind::DATA if !content.is_empty() => {
                self.fruitless = 0;
                take(content);
                return Ok(());
            }
            kind::DATA => {}
            kind::ALERT => alert(content)?,
            kind::HANDSHAKE if self.cipher.version() == Version::Tls13 => self.handshake(content)?,
            kind::HANDSHAKE => return Err(Broken::Malformed("the other end wants another handshake")),
            _ => return Err(Broken::Malformed("a TLS record of no known kind")),
        }
        self.fruitless += 1;
        if self.fruitless > MAX_FRUITLESS {
            return Err(Broken::Malformed("too many TLS records without data"));
        }
        Ok(())
    }

    fn handshake(&mut self, content: &[u8]) -> Result<(), Broken> {
        if let Some(asked) = self.message.read(content)? {
            self.cipher = self.shared.renewed(|next| next.to_open())?;
            if asked == Asked::ForOurs {
                self.shared.owed.store(true, Ordering::Release);
            }
        }
        Ok(())
    }
}

/// The half for what goes.
struct Sealer {
    records: Records,
    /// The bench that is always there: what little is to be said can be said, even that there is no memory for more.
    spare: SecretBytes,
    over: Option<Broken>,
}

impl Seal for Sealer {
    fn seal(&mut self, plain: &[&[u8]], sealed: &mut Vec<u8>) -> Result<(), Broken> {
        if let Some(over) = self.over {
            return Err(over);
        }
        let total = plain.iter().map(|part| part.len()).sum();
        let mut larger = larger_bench(total);
        let bench = larger.as_mut().unwrap_or(&mut self.spare).expose_secret_mut();
        let result = self.records.seal_all(plain, total, bench, sealed);
        self.over = result.err();
        result
    }

    fn close(&mut self, sealed: &mut Vec<u8>) {
        if self.over.is_none() {
            // Where it fails there is nothing left to say.
            _ = self.records.seal_one(kind::ALERT, &[&CLOSE_NOTIFY], &mut [0; SMALL_BENCH], sealed);
            self.over = Some(Broken::Closed);
        }
    }
}

/// Makes the records, one behind the other.
struct Records {
    cipher: Cipher,
    shared: Arc<Shared>,
    /// Bytes of records under this key.
    sealed: u64,
    renew_after: u64,
}

impl Records {
    /// Seals `total` bytes in records as long as the `bench` allows.
    fn seal_all(
        &mut self,
        plain: &[&[u8]],
        total: usize,
        bench: &mut [u8],
        sealed: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        let most = bench.len() - 1;
        sealed.reserve(total + total.div_ceil(most) * MOST_AROUND);
        // A record takes from as many parts as it has room for.
        let mut record: Vec<&[u8]> = Vec::with_capacity(plain.len());
        let mut room = most;
        for mut part in plain.iter().copied().filter(|part| !part.is_empty()) {
            while part.len() > room {
                let (now, later) = part.split_at(room);
                record.push(now);
                self.seal_data(&record, bench, sealed)?;
                record.clear();
                (part, room) = (later, most);
            }
            record.push(part);
            room -= part.len();
        }
        if record.is_empty() { Ok(()) } else { self.seal_data(&record, bench, sealed) }
    }

    fn seal_data(&mut self, parts: &[&[u8]], bench: &mut [u8], sealed: &mut Vec<u8>) -> Result<(), Broken> {
        let worn = self.cipher.wears_out() && self.sealed >= self.renew_after;
        match self.cipher.version() {
            Version::Tls12 if worn => {
                return Err(Broken::Malformed("as much was sent as TLS 1.2 allows under one key"));
            }
            Version::Tls13 if self.shared.owed.swap(false, Ordering::Acquire) || worn => {
                self.seal_one(kind::HANDSHAKE, &[&KEY_UPDATE], &mut [0; SMALL_BENCH], sealed)?;
                self.cipher = self.shared.renewed(|next| next.to_seal())?;
                self.sealed = 0;
            }
            _ => {}
        }
        self.seal_one(kind::DATA, parts, bench, sealed)
    }

    fn seal_one(
        &mut self,
        kind: u8,
        parts: &[&[u8]],
        bench: &mut [u8],
        sealed: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        let (length, before) = (parts.iter().map(|part| part.len()).sum(), sealed.len());
        self.cipher.seal(kind, length, parts.iter().copied(), bench, sealed)?;
        self.sealed += (sealed.len() - before) as u64;
        Ok(())
    }
}

/// Secret memory in which records are sealed that carry so many bytes in all, if they are more than the spare bench takes and
/// there is some. Where it is scarce, shorter records do.
fn larger_bench(total: usize) -> Option<SecretBytes> {
    let mut longest = total.min(MAX_PART);
    while longest >= SPARE_BENCH {
        match SecretBytes::zeroed(longest + 1) {
            Ok(bench) => return Some(bench),
            Err(_) => longest /= 2,
        }
    }
    None
}

/// For what is no secret: alerts and KeyUpdates.
const SMALL_BENCH: usize = 8;
/// The least bench for secrets. Each connection has one for as long as it lasts: a thousand of them take 128 KiB, a 32nd of
/// the secret memory there is.
const SPARE_BENCH: usize = 128;

/// A KeyUpdate that asks for none (RFC 8446, 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
/// The alert that says that nothing more will come.
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
/// Head, explicit nonce, type and tag: the most that stands around a record's content.
const MOST_AROUND: usize = HEAD + 8 + 1 + 16;
/// After so many bytes under one key of AES-GCM comes the next: 2^24 of the longest records, where RFC 8446 (5.5) allows
/// 2^24.5. What wears out is blocks, and each record's head and tag count as much as its own two do. ChaCha20-Poly1305 has
/// no such end before its numbers have theirs.
const RENEW_AFTER: u64 = 1 << 38;
/// As many records without data as come in a row at most: tickets, KeyUpdates, empty ones.
const MAX_FRUITLESS: u32 = 32;

#[cfg(test)]
#[path = "tests/records.rs"]
mod tests;
