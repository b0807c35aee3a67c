//! One key wrapped by another: the same 112 bytes for slots and for epochs.
//!
//! From the wrapping key, a random salt and the context, HKDF derives an AES-256-GCM key, used once (nonce zero), and a
//! commitment, which is checked first and in constant time: AES-GCM alone would let one ciphertext open under two
//! keys. The context (whose key, for what) is bound by going into the derivation. Leans on `kdf` and ring.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use secrecy::{ExposeSecret, ExposeSecretMut};
use subtle::ConstantTimeEq;

use super::SealError;
use super::kdf::{expand, extract};
use super::key::{KEY_LEN, random};
use crate::memory::{SecretBytes, scrubbed};

/// A wrapped key's bytes on disk: salt, commitment, ciphertext, tag.
pub(super) const WRAPPED_LEN: usize = 32 + 32 + KEY_LEN + 16;

/// Wraps `key`. No two calls derive the same key: the salt is fresh.
pub(super) fn wrap(
    with: &SecretBytes,
    context: &[&[u8]],
    key: &SecretBytes,
) -> Result<[u8; WRAPPED_LEN], SealError> {
    let salt = random::<32>()?;
    wrap_salted(with, salt, context, key)
}

/// The wrapping itself. The salt must never have been used with this key and context.
fn wrap_salted(
    with: &SecretBytes,
    salt: [u8; 32],
    context: &[&[u8]],
    key: &SecretBytes,
) -> Result<[u8; WRAPPED_LEN], SealError> {
    let mut sealed = key.try_clone()?;
    let (commitment, tag) = scrubbed(|| {
        let (cipher, commitment) = derive(with, &salt, context);
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = cipher.seal_in_place_separate_tag(nonce, Aad::empty(), sealed.expose_secret_mut());
        (commitment, tag)
    });
    let tag = tag.map_err(|_| SealError::Damaged)?;
    let mut wrapped = [0; WRAPPED_LEN];
    wrapped[..32].copy_from_slice(&salt);
    wrapped[32..64].copy_from_slice(&commitment);
    wrapped[64..96].copy_from_slice(sealed.expose_secret());
    wrapped[96..].copy_from_slice(tag.as_ref());
    Ok(wrapped)
}

/// Unwraps what [`wrap`] made with the same key and context.
pub(super) fn unwrap(
    with: &SecretBytes,
    context: &[&[u8]],
    wrapped: &[u8; WRAPPED_LEN],
) -> Result<SecretBytes, SealError> {
    let mut key = SecretBytes::copy_of(&wrapped[64..96])?;
    scrubbed(|| {
        let (cipher, commitment) = derive(with, &wrapped[..32], context);
        if !bool::from(commitment.ct_eq(&wrapped[32..64])) {
            return Err(SealError::Damaged);
        }
        let tag = wrapped[96..].try_into().map_err(|_| SealError::Damaged)?;
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        cipher
            .open_in_place_separate_tag(nonce, Aad::empty(), tag, key.expose_secret_mut(), 0..)
            .map_err(|_| SealError::Damaged)?;
        Ok(())
    })?;
    Ok(key)
}

/// The wrapping's own key and its commitment. The caller scrubs the stack.
fn derive(with: &SecretBytes, salt: &[u8], context: &[&[u8]]) -> (LessSafeKey, [u8; 32]) {
    let prk = extract(salt, with);
    let commitment = expand(&prk, &[&[&b"strongroom wrap commitment v1"[..]], context].concat());
    let info = [&[&b"strongroom wrap key v1"[..]], context].concat();
    let okm = prk.expand(&info, &AES_256_GCM);
    let Ok(okm) = okm else { unreachable!("HKDF-SHA256 gives an AES-256 key") };
    (LessSafeKey::new(UnboundKey::from(okm)), commitment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretBytes {
        SecretBytes::copy_of(&[byte; 32]).unwrap()
    }

    #[test]
    fn a_wrapped_key_comes_back_under_the_same_key_and_context_only() {
        let wrapped = wrap(&key(1), &[b"slot", b"a"], &key(9)).unwrap();
        assert_eq!(unwrap(&key(1), &[b"slot", b"a"], &wrapped).unwrap().expose_secret(), &[9; 32]);
        assert!(unwrap(&key(2), &[b"slot", b"a"], &wrapped).is_err());
        assert!(unwrap(&key(1), &[b"slot", b"b"], &wrapped).is_err());
    }

    #[test]
    fn no_byte_of_it_can_change() {
        let wrapped = wrap(&key(1), &[b"x"], &key(9)).unwrap();
        for at in 0..WRAPPED_LEN {
            let mut changed = wrapped;
            changed[at] ^= 1;
            assert!(unwrap(&key(1), &[b"x"], &changed).is_err(), "byte {at}");
        }
    }
}
