//! One direction's keys, and what they make of a record: TLS 1.3's (RFC 8446, 5.2 and 5.3), TLS 1.2's with AES-GCM
//! (RFC 5288) and with ChaCha20-Poly1305 (RFC 7905).
//!
//! Key and nonce lie in secret memory, 64 bytes for a direction, however many connections there are; ring's own key is built
//! for each record and scrubbed behind it. Leans on ring and `memory`. Refuses a number of records that would use a nonce
//! twice, and to say more of a record than that it doesn't open.

use std::ops::Range;

use ring::aead::{self, AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce};
use rustls::ConnectionTrafficSecrets as Secrets;
use secrecy::ExposeSecret;

use crate::memory::{Exhausted, SecretBytes, scrubbed};
use crate::net::layer::Broken;

/// The protocol's version, as far as records differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// What a record carries.
pub(super) mod kind {
    pub(in super::super) const ALERT: u8 = 21;
    pub(in super::super) const HANDSHAKE: u8 = 22;
    pub(in super::super) const DATA: u8 = 23;
}

/// The keys of one direction.
pub(super) struct Cipher {
    version: Version,
    algorithm: &'static aead::Algorithm,
    /// The key, and behind it the initialization vector.
    secret: SecretBytes,
    /// The number of the next record.
    sequence: u64,
}

impl Cipher {
    /// Takes the keys over. The originals wipe themselves when they are dropped; the caller scrubs the stack.
    pub(super) fn new(version: Version, sequence: u64, secrets: &Secrets) -> Result<Self, Unfit> {
        let (algorithm, key, iv) = match secrets {
            Secrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            Secrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            Secrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Unfit::Suite),
        };
        let (key, iv) = (key.as_ref(), iv.as_ref());
        if key.len() != algorithm.key_len() || iv.len() != NONCE_LEN {
            return Err(Unfit::Suite);
        }
        let mut secret = SecretBytes::zeroed(key.len() + NONCE_LEN)?;
        secret.overwrite(0, key);
        secret.overwrite(key.len(), iv);
        Ok(Self { version, algorithm, secret, sequence })
    }

    /// The version whose records these are.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Whether its keys wear out before its numbers do: AES-GCM's (RFC 8446, 5.5).
    pub(super) fn wears_out(&self) -> bool {
        self.algorithm != &CHACHA20_POLY1305
    }

    /// How strong the key is.
    pub(super) fn bits(&self) -> u32 {
        if self.algorithm.key_len() == 16 { 128 } else { 256 }
    }

    /// The longest record of this version, its head included.
    pub(super) fn longest(&self) -> usize {
        let expansion = if self.version == Version::Tls13 { 256 } else { 2048 };
        HEAD + MAX_PART + expansion
    }

    /// Opens a whole record where it lies: what it carries, and where that is now.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(u8, Range<usize>), Broken> {
        let Some((&mut head, body)) = record.split_first_chunk_mut::<HEAD>() else { return Err(SHORT) };
        let before = HEAD + self.explicit();
        let length = body.len().checked_sub(self.explicit() + aead::MAX_TAG_LEN).ok_or(SHORT)?;
        let mut nonce = self.nonce()?;
        let number = self.sequence;
        self.sequence = number.checked_add(1).ok_or(WORN)?;
        let (explicit, sealed) = body.split_at_mut(self.explicit());
        if !explicit.is_empty() {
            nonce[NONCE_LEN - explicit.len()..].copy_from_slice(explicit);
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = scrubbed(|| match self.version {
            Version::Tls13 => self.key()?.open_in_place(nonce, Aad::from(head), sealed).map(|_| ()),
            Version::Tls12 => {
                let aad = Aad::from(authenticated(number, head[0], length));
                self.key()?.open_in_place(nonce, aad, sealed).map(|_| ())
            }
        });
        opened.map_err(|_| {
            Broken::Malformed("a TLS record does not open: it was changed on its way, or is not the next")
        })?;
        let content = before..before + length;
        match self.version {
            Version::Tls12 if length > MAX_PART => Err(LONG),
            Version::Tls12 => Ok((head[0], content)),
            Version::Tls13 if head[0] != kind::DATA => {
                Err(Broken::Malformed("a TLS record that is not encrypted"))
            }
            Version::Tls13 if length > MAX_PART + 1 => Err(LONG),
            // Behind the content stands what it is, behind that zeros: padding.
            Version::Tls13 => {
                let inner = &record[content.clone()];
                let at = inner.iter().rposition(|&byte| byte != 0);
                let at = at.ok_or(Broken::Malformed("a TLS record without content"))?;
                Ok((inner[at], content.start..content.start + at))
            }
        }
    }

    /// Appends a record that carries what `from` has, `length` bytes, at most [`MAX_PART`]. They are encrypted on the `bench`,
    /// which must have room for one more: not for a moment are they where the records are.
    pub(super) fn seal<'a>(
        &mut self,
        kind: u8,
        length: usize,
        from: impl Iterator<Item = &'a [u8]>,
        bench: &mut [u8],
        sealed: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        let typed = usize::from(self.version == Version::Tls13);
        let plain = bench.get_mut(..length + typed).ok_or(LONG)?;
        let nonce = self.nonce()?;
        let number = self.sequence;
        self.sequence = number.checked_add(1).ok_or(WORN)?;
        let whole = self.explicit() + length + typed + aead::MAX_TAG_LEN;
        sealed.reserve(HEAD + whole);
        let shown = if self.version == Version::Tls13 { kind::DATA } else { kind };
        let [high, low] = u16::try_from(whole).map_err(|_| LONG)?.to_be_bytes();
        let head = [shown, 3, 3, high, low];
        sealed.extend_from_slice(&head);
        sealed.extend_from_slice(&nonce[NONCE_LEN - self.explicit()..]);
        let tag = scrubbed(|| {
            let mut at = 0;
            for part in from {
                plain[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
            let nonce = Nonce::assume_unique_for_key(nonce);
            match self.version {
                Version::Tls13 => {
                    plain[at] = kind;
                    self.key()?.seal_in_place_separate_tag(nonce, Aad::from(head), plain)
                }
                Version::Tls12 => {
                    let aad = Aad::from(authenticated(number, kind, length));
                    self.key()?.seal_in_place_separate_tag(nonce, aad, plain)
                }
            }
        });
        let Ok(tag) = tag else { return Err(Broken::Malformed("a TLS record could not be sealed")) };
        sealed.extend_from_slice(plain);
        sealed.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// The bytes of the nonce that stand in front of a record: TLS 1.2 with AES-GCM has them.
    fn explicit(&self) -> usize {
        if self.version == Version::Tls12 && self.algorithm != &CHACHA20_POLY1305 { 8 } else { 0 }
    }

    /// The next record's nonce. An opener of records with an explicit part puts that in.
    fn nonce(&self) -> Result<[u8; NONCE_LEN], Broken> {
        let (_, iv) = self.secret.expose_secret().split_at(self.algorithm.key_len());
        let mut nonce: [u8; NONCE_LEN] = iv.try_into().map_err(|_| SHORT)?;
        let number = self.sequence.to_be_bytes();
        nonce[4..].iter_mut().zip(number).for_each(|(byte, number)| *byte ^= number);
        Ok(nonce)
    }

    fn key(&self) -> Result<LessSafeKey, ring::error::Unspecified> {
        let key = &self.secret.expose_secret()[..self.algorithm.key_len()];
        aead::UnboundKey::new(self.algorithm, key).map(LessSafeKey::new)
    }
}

/// What TLS 1.2 authenticates beside a record's content.
fn authenticated(number: u64, kind: u8, length: usize) -> [u8; 13] {
    let mut all = [0; 13];
    all[..8].copy_from_slice(&number.to_be_bytes());
    all[8..11].copy_from_slice(&[kind, 3, 3]);
    // A record's length fits: whoever calls has held it against `longest`.
    all[11..].copy_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    all
}

/// Why keys can't be taken over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unfit {
    /// They are for a cipher that isn't ours.
    Suite,
    /// There is no secret memory for them.
    Memory(Exhausted),
}

impl From<Exhausted> for Unfit {
    fn from(exhausted: Exhausted) -> Self {
        Self::Memory(exhausted)
    }
}

/// The length of a record's head: type, version, length.
pub(super) const HEAD: usize = 5;
/// The most that one record carries.
pub(super) const MAX_PART: usize = 1 << 14;

const SHORT: Broken = Broken::Malformed("a TLS record that is too short");
const LONG: Broken = Broken::Malformed("a TLS record that carries too much");
const WORN: Broken = Broken::Malformed("a TLS key has sealed all records that it may");

#[cfg(test)]
impl Cipher {
    /// rustls lets nobody else make keys of 128 bits: the same with the first half of 256.
    pub(super) fn shorten(&mut self) {
        let all = self.secret.expose_secret();
        let half = [&all[..16], &all[32..]].concat();
        self.secret = SecretBytes::copy_of(&half).unwrap();
        self.algorithm = &AES_128_GCM;
    }
}
