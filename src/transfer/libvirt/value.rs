//! A value file of libvirt's, in and out: base64 of the value, or of the encrypted value.
//!
//! Leans on `base64` and `cipher`. Refuses values that libvirt couldn't give to anybody, for being empty or too long.

use std::io::Read;

use super::{LibvirtKey, Unfit, base64, cipher};
use crate::memory::SecretBytes;
use crate::secret::MAX_VALUE;

/// How a value lies in its file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form<'a> {
    /// `.base64`: anybody who reads the file has the value.
    Plain,
    /// `.aes256cbc`.
    Encrypted(&'a LibvirtKey),
}

/// Reads a value file of `len` bytes; also says whether its text is strictly base64, as libvirt writes it. An empty one says
/// that there is no value.
pub(crate) fn read_value(
    from: &mut impl Read,
    len: u64,
    form: Form<'_>,
) -> Result<(Option<SecretBytes>, bool), Unfit> {
    if len == 0 {
        return Ok((None, true));
    }
    let limit = if matches!(form, Form::Plain) { MAX_VALUE } else { MAX_SEALED };
    let (mut bytes, strict) = base64::decode(from, len, limit)?;
    let value = match form {
        Form::Plain => bytes,
        Form::Encrypted(key) => cipher::open(key, &mut bytes)?,
    };
    match value.len() {
        0 => Err(Unfit::Nothing),
        1..=MAX_VALUE => Ok((Some(value), strict)),
        _ => Err(Unfit::TooLong),
    }
}

/// The text of a value file.
pub(crate) fn write_value(value: &SecretBytes, form: Form<'_>) -> Result<SecretBytes, Unfit> {
    match form {
        Form::Plain => base64::encode(value),
        Form::Encrypted(key) => base64::encode(&cipher::seal(key, value)?),
    }
}

/// The longest value with its padding, behind the IV.
const MAX_SEALED: usize = cipher::BLOCK + MAX_VALUE + cipher::BLOCK;

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn key() -> LibvirtKey {
        let bytes: Vec<u8> = (0..32).collect();
        LibvirtKey::from_bytes(SecretBytes::copy_of(&bytes).unwrap()).unwrap()
    }

    fn read(text: &[u8], form: Form<'_>) -> Result<Option<Vec<u8>>, Unfit> {
        let (value, _) = read_value(&mut &*text, text.len() as u64, form)?;
        Ok(value.map(|value| value.expose_secret().to_vec()))
    }

    #[test]
    fn a_file_of_libvirts_own_form_opens() {
        let text = b"paWlpaWlpaWlpaWlpaWlpVAjFqjs/Xx/LL6DKYaPkYg=";
        assert_eq!(read(text, Form::Encrypted(&key())).unwrap().unwrap(), b"s3cret");
        assert_eq!(read(b"czNjcmV0", Form::Plain).unwrap().unwrap(), b"s3cret");
    }

    #[test]
    fn the_largest_value_fits_and_one_more_byte_does_not() {
        let key = key();
        for form in [Form::Plain, Form::Encrypted(&key)] {
            let largest = SecretBytes::copy_of(&[0xAB; MAX_VALUE]).unwrap();
            let text = write_value(&largest, form).unwrap();
            assert_eq!(read(text.expose_secret(), form).unwrap().unwrap(), largest.expose_secret());
            let larger = SecretBytes::zeroed(MAX_VALUE + 1).unwrap();
            let text = write_value(&larger, form).unwrap();
            assert!(matches!(read(text.expose_secret(), form), Err(Unfit::TooLong)));
        }
    }

    #[test]
    fn an_empty_file_is_no_value_and_an_empty_value_is_none_either() {
        let key = key();
        assert!(read(b"", Form::Plain).unwrap().is_none());
        assert!(read(b"", Form::Encrypted(&key)).unwrap().is_none());
        assert!(matches!(read(b"\n", Form::Plain), Err(Unfit::Nothing)));
        assert!(matches!(read(b"!!", Form::Encrypted(&key)), Err(Unfit::Length(0))));
        let empty = write_value(&SecretBytes::zeroed(0).unwrap(), Form::Encrypted(&key)).unwrap();
        assert!(matches!(read(empty.expose_secret(), Form::Encrypted(&key)), Err(Unfit::Nothing)));
    }
}
