//! Base64 as GLib reads it, which is how libvirt reads its value files; in pieces, into secret memory.
//!
//! Leans on `memory`. Refuses nothing but what is too long.

use std::io::Read;

use ::base64::Engine as _;
use ::base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, ExposeSecretMut};

use super::Unfit;
use crate::memory::{SecretBytes, scrubbed};
use crate::secret::Base64;

/// What the text that is read from `from` stands for, if that is no more than `limit` bytes, and whether the text is
/// strictly base64. `len`: how long the text is.
pub(super) fn decode(from: &mut impl Read, len: u64, limit: usize) -> Result<(SecretBytes, bool), Unfit> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let mut piece = SecretBytes::zeroed(PIECE.min(len.saturating_add(1)))?;
    let bytes = SecretBytes::zeroed((len / 4).saturating_mul(3).min(limit))?;
    let (mut reader, mut decoded) = (Base64::default(), Growing { bytes, len: 0 });
    let mut form = Strict::default();
    loop {
        let read = match from.read(piece.expose_secret_mut()) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Unfit::Io(error)),
        };
        let text = piece.expose_secret().get(..read).unwrap_or_default();
        scrubbed(|| text.iter().for_each(|byte| form.take(*byte)));
        scrubbed(|| text.iter().flat_map(|byte| reader.take(*byte)).try_for_each(|byte| decoded.push(byte)))?;
    }
    decoded.bytes.truncate(decoded.len);
    Ok((decoded.bytes, form.holds()))
}

/// The text of these bytes, without a newline.
pub(super) fn encode(bytes: &SecretBytes) -> Result<SecretBytes, Unfit> {
    let mut text = SecretBytes::zeroed(bytes.len().div_ceil(3) * 4)?;
    let encoded = scrubbed(|| STANDARD.encode_slice(bytes.expose_secret(), text.expose_secret_mut()));
    encoded.map_err(|_| Unfit::TooLong)?;
    Ok(text)
}

/// Whether a text is base64 without a doubt: the alphabet, whole groups, the padding at the end, no bit set that stands for
/// nothing, and behind that newlines at most.
#[derive(Default)]
struct Strict {
    digits: usize,
    pads: usize,
    newlines: usize,
    last: u8,
    broken: bool,
}

impl Strict {
    fn take(&mut self, byte: u8) {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => {
                self.broken |= self.pads + self.newlines > 0;
                self.digits += 1;
                self.last = byte;
            }
            b'=' => {
                self.broken |= self.newlines > 0;
                self.pads += 1;
            }
            b'\n' => self.newlines += 1,
            _ => self.broken = true,
        }
    }

    fn holds(&self) -> bool {
        let ends = match self.pads {
            0 => true,
            1 => b"AEIMQUYcgkosw048".contains(&self.last),
            2 => b"AQgw".contains(&self.last),
            _ => false,
        };
        !self.broken && ends && (self.digits + self.pads).is_multiple_of(4)
    }
}

/// Bytes that come in one by one.
struct Growing {
    bytes: SecretBytes,
    len: usize,
}

impl Growing {
    fn push(&mut self, byte: u8) -> Result<(), Unfit> {
        // There is room for all that the text can hold, up to the limit.
        *self.bytes.expose_secret_mut().get_mut(self.len).ok_or(Unfit::TooLong)? = byte;
        self.len += 1;
        Ok(())
    }
}

/// Read at once, in bytes.
const PIECE: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &[u8], limit: usize) -> Result<Vec<u8>, Unfit> {
        decode(&mut &*text, text.len() as u64, limit).map(|(bytes, _)| bytes.expose_secret().to_vec())
    }

    #[test]
    fn what_libvirt_would_not_have_written_is_told_from_what_it_would() {
        let strict = |text: &[u8]| decode(&mut &*text, text.len() as u64, 100).unwrap().1;
        for text in [&b"czNjcmV0"[..], b"czNjcmV0\n\n", b"AA==", b"AAA=", b"//+/"] {
            assert!(strict(text), "{}", text.escape_ascii());
        }
        for text in [
            &b"!!!notbase64%%"[..],
            b"czNj\ncmV0",
            b"czNjcmV",
            b"AA=",
            b"AA==AAAA",
            b"====",
            b"A===",
            b"AB==",
            b"AAB=",
            b"AA=\n=",
            b"czNjcmV0\r\n",
            b" czNjcmV0",
            b"cz-_",
        ] {
            assert!(!strict(text), "{}", text.escape_ascii());
        }
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
