//! Base64 as GLib reads it, which is how libvirt reads its value files; in pieces, into secret memory.
//!
//! Leans on `memory`. Refuses nothing but what is too long.

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, ExposeSecretMut};

use super::Unfit;
use crate::memory::{SecretBytes, scrubbed};

/// What the text that is read from `from` stands for, if that is no more than `limit` bytes. `len`: how long the text is.
pub(super) fn decode(from: &mut impl Read, len: u64, limit: usize) -> Result<SecretBytes, Unfit> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let mut piece = SecretBytes::zeroed(PIECE.min(len.saturating_add(1)))?;
    let mut decoder = Decoder {
        bytes: SecretBytes::zeroed((len / 4).saturating_mul(3).min(limit))?,
        len: 0,
        group: 0,
        digits: 0,
        last: 0,
    };
    loop {
        let read = match from.read(piece.expose_secret_mut()) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Unfit::Io(error)),
        };
        let text = piece.expose_secret().get(..read).unwrap_or_default();
        scrubbed(|| text.iter().try_for_each(|character| decoder.take(*character)))?;
    }
    decoder.group = 0;
    decoder.bytes.truncate(decoder.len);
    Ok(decoder.bytes)
}

/// The text of these bytes, without a newline.
pub(super) fn encode(bytes: &SecretBytes) -> Result<SecretBytes, Unfit> {
    let mut text = SecretBytes::zeroed(bytes.len().div_ceil(3) * 4)?;
    let encoded = scrubbed(|| STANDARD.encode_slice(bytes.expose_secret(), text.expose_secret_mut()));
    encoded.map_err(|_| Unfit::TooLong)?;
    Ok(text)
}

/// Characters outside the alphabet are passed over, `=` counts as a digit of value 0 wherever it stands, every fourth
/// digit ends a group, an incomplete last group is dropped, and of a group's three bytes only those are kept that its last
/// two characters don't cancel by being `=`.
struct Decoder {
    bytes: SecretBytes,
    len: usize,
    group: u32,
    digits: u32,
    last: u8,
}

impl Decoder {
    fn take(&mut self, character: u8) -> Result<(), Unfit> {
        let Some(digit) = digit(character) else { return Ok(()) };
        let before_last = std::mem::replace(&mut self.last, character);
        self.group = self.group << 6 | u32::from(digit);
        self.digits += 1;
        if self.digits < 4 {
            return Ok(());
        }
        let [_, first, second, third] = self.group.to_be_bytes();
        (self.group, self.digits) = (0, 0);
        for (byte, keep) in [(first, true), (second, before_last != b'='), (third, character != b'=')] {
            if keep {
                // There is room for all that the text can hold, up to the limit.
                *self.bytes.expose_secret_mut().get_mut(self.len).ok_or(Unfit::TooLong)? = byte;
                self.len += 1;
            }
        }
        Ok(())
    }
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        b'=' => Some(0),
        _ => None,
    }
}

/// Read at once, in bytes.
const PIECE: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &[u8], limit: usize) -> Result<Vec<u8>, Unfit> {
        decode(&mut &*text, text.len() as u64, limit).map(|bytes| bytes.expose_secret().to_vec())
    }

    #[test]
    fn odd_base64_is_read_as_libvirt_loads_it() {
        for (text, expected) in [
            (&b"czNjcmV0"[..], &b"s3cret"[..]),
            (b"czNj\ncmV0\n", b"s3cret"),
            (b"*c z-N_j.cmV0", b"s3cret"),
            (b"AA==", b"\0"),
            (b"QQ==Qg==", b"AB"),
            (b"czNjcmV", b"s3c"),
            (b"====", b"\0"),
            (b"\n\n", b""),
            (b"", b""),
        ] {
            assert_eq!(decoded(text, 100).unwrap(), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_text_of_any_length_goes_round_and_the_limit_is_exact() {
        for len in [0, 1, 2, 3, 4, PIECE - 1, PIECE, PIECE + 1, 65_536] {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
            let text = encode(&SecretBytes::copy_of(&bytes).unwrap()).unwrap();
            assert_eq!(decoded(text.expose_secret(), len).unwrap(), bytes);
            if len > 0 {
                assert!(matches!(decoded(text.expose_secret(), len - 1), Err(Unfit::TooLong)));
            }
        }
    }
}
