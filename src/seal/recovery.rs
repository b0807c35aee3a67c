//! The recovery key: 160 random bits as a person writes them down.
//!
//! Shown once, as 36 characters in groups of six: 32 of key and 4 of checksum, so that a typing error is told apart
//! from a wrong key. Crockford's base32: no I, L, O or U; case, blanks and dashes don't matter. Leans on `memory`
//! (the text is as secret as the key) and ring's SHA-256.

use ring::digest::{Context, SHA256};
use secrecy::{ExposeSecret, ExposeSecretMut};

use super::SealError;
use super::key::random_secret;
use crate::memory::{Exhausted, SecretBytes, scrubbed};

/// A recovery key.
#[derive(Debug)]
pub struct RecoveryKey(SecretBytes);

/// Why a typed recovery key can't be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryKeyError {
    /// A character that no recovery key has.
    #[error("character {0} can't be part of a recovery key")]
    Character(usize),
    /// Too few or too many characters.
    #[error("a recovery key has 36 letters and digits; these are {0}")]
    Length(usize),
    /// The checksum says that there is a typing error.
    #[error("there is a typing error in this recovery key (its checksum doesn't fit)")]
    Checksum,
    /// No room in secret memory.
    #[error("secret memory is exhausted")]
    Exhausted,
}

const KEY_BYTES: usize = 20;
const KEY_CHARACTERS: usize = 32;
const CHARACTERS: usize = 36;
const GROUP: usize = 6;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl RecoveryKey {
    /// A new one.
    pub fn random() -> Result<Self, SealError> {
        random_secret(KEY_BYTES).map(Self)
    }

    /// The key that was written down as `text`.
    pub fn parse(text: &SecretBytes) -> Result<Self, RecoveryKeyError> {
        let mut digits = SecretBytes::zeroed(CHARACTERS)?;
        let mut count = 0;
        for (at, &byte) in text.expose_secret().iter().enumerate() {
            if matches!(byte, b'-' | b' ' | b'\t' | b'\r' | b'\n') {
                continue;
            }
            let digit = digit(byte).ok_or(RecoveryKeyError::Character(at + 1))?;
            if let Some(place) = digits.expose_secret_mut().get_mut(count) {
                *place = digit;
            }
            count += 1;
        }
        if count != CHARACTERS {
            return Err(RecoveryKeyError::Length(count));
        }
        let mut key = SecretBytes::zeroed(KEY_BYTES)?;
        for (eight, five) in digits.expose_secret().chunks(8).zip(key.expose_secret_mut().chunks_mut(5)) {
            let bits = eight.iter().fold(0_u64, |bits, &digit| bits << 5 | u64::from(digit));
            five.copy_from_slice(&bits.to_be_bytes()[3..]);
        }
        let key = Self(key);
        if digits.expose_secret()[KEY_CHARACTERS..] != key.checksum() {
            return Err(RecoveryKeyError::Checksum);
        }
        Ok(key)
    }

    /// The text to show, once: six groups of six.
    pub fn text(&self) -> Result<SecretBytes, Exhausted> {
        let mut text = SecretBytes::zeroed(CHARACTERS + CHARACTERS / GROUP - 1)?;
        let checksum = self.checksum();
        let digits = self.0.expose_secret().chunks(5).flat_map(|five| {
            let bits = five.iter().fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
            (0..8).rev().map(move |place| (bits >> (5 * place) & 31) as u8)
        });
        let written = text.expose_secret_mut();
        written.fill(b'-');
        for (at, digit) in digits.chain(checksum).enumerate() {
            written[at + at / GROUP] = ALPHABET[usize::from(digit)];
        }
        Ok(text)
    }

    pub(super) fn bytes(&self) -> &SecretBytes {
        &self.0
    }

    /// 20 bits of SHA-256, as four digits. They tell nothing of the 160 that matter.
    fn checksum(&self) -> [u8; 4] {
        scrubbed(|| {
            let mut hash = Context::new(&SHA256);
            hash.update(b"strongroom recovery key v1");
            hash.update(self.0.expose_secret());
            let hash = hash.finish();
            let bits = hash.as_ref().iter().take(3).fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte));
            [19, 14, 9, 4].map(|shift| (bits >> shift & 31) as u8)
        })
    }
}

/// The digit that a character stands for; `O` is read as 0, `I` and `L` as 1.
fn digit(byte: u8) -> Option<u8> {
    let byte = match byte.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        other => other,
    };
    ALPHABET.iter().position(|&known| known == byte).and_then(|at| u8::try_from(at).ok())
}

impl From<Exhausted> for RecoveryKeyError {
    fn from(_: Exhausted) -> Self {
        Self::Exhausted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &[u8]) -> Result<RecoveryKey, RecoveryKeyError> {
        RecoveryKey::parse(&SecretBytes::copy_of(text).unwrap())
    }

    #[test]
    fn what_is_shown_can_be_typed() {
        let key = RecoveryKey::random().unwrap();
        let text = key.text().unwrap();
        let shown = String::from_utf8(text.expose_secret().to_vec()).unwrap();
        assert_eq!((shown.len(), shown.matches('-').count()), (41, 5));
        let sloppy = shown.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
        assert_eq!(typed(sloppy.as_bytes()).unwrap().0.expose_secret(), key.0.expose_secret());
    }

    #[test]
    fn the_text_is_frozen() {
        let key = RecoveryKey(SecretBytes::copy_of(&[0xA7; 20]).unwrap());
        assert_eq!(key.text().unwrap().expose_secret(), b"MYKTF9-X7MYKT-F9X7MY-KTF9X7-MYKTF9-X7E03N");
    }

    #[test]
    fn a_typing_error_is_told_apart() {
        let text = RecoveryKey(SecretBytes::copy_of(&[3; 20]).unwrap()).text().unwrap();
        let mut wrong = text.expose_secret().to_vec();
        wrong[3] = if wrong[3] == b'7' { b'8' } else { b'7' };
        assert_eq!(typed(&wrong).unwrap_err(), RecoveryKeyError::Checksum);
        assert_eq!(typed(&wrong[..20]).unwrap_err(), RecoveryKeyError::Length(18));
        wrong[4] = b'!';
        assert_eq!(typed(&wrong).unwrap_err(), RecoveryKeyError::Character(5));
    }
}
