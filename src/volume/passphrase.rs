//! A passphrase that nobody has to remember: 256 random bits, as text.
//!
//! Leans on ring for chance and on `memory`: neither bits nor text are ever anywhere else. Refuses characters that some
//! program might take for the end or for more than a character: QEMU wants UTF-8, cryptsetup reads up to a newline.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::ExposeSecretMut;

use crate::memory::{SecretBytes, scrubbed};
use crate::secret::Error;

/// A new one: 43 letters, digits, `-` and `_`.
pub(super) fn random() -> Result<SecretBytes, Error> {
    let mut bits = SecretBytes::zeroed(BITS / 8)?;
    let mut text = SecretBytes::zeroed(LENGTH)?;
    let made = scrubbed(|| {
        SystemRandom::new().fill(bits.expose_secret_mut()).ok()?;
        URL_SAFE_NO_PAD.encode_slice(bits.expose_secret_mut(), text.expose_secret_mut()).ok()
    });
    match made {
        Some(LENGTH) => Ok(text),
        _ => Err(Error::failed("the system gives no random bytes for a passphrase")),
    }
}

const BITS: usize = 256;

/// How many characters of six bits hold them.
const LENGTH: usize = BITS.div_ceil(6);

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_passphrase_is_printable_and_never_the_same() {
        let (one, other) = (random().unwrap(), random().unwrap());
        assert_ne!(one.expose_secret(), other.expose_secret());
        for passphrase in [one, other] {
            assert_eq!(passphrase.len(), 43);
            let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
            assert!(passphrase.expose_secret().iter().all(fits));
        }
    }
}
