//! libvirt's encryption of values: AES-256-CBC with PKCS#7 padding, no more. Only on the way in and out, never to keep.
//!
//! Leans on the crates aes and cbc, which wipe their key schedule, and on `memory` for what else they leave on the stack.
//! Refuses padding that isn't right to the last byte: nothing else here tells a wrong key.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use cbc::cipher::array::{Array, ArraySize};
use cbc::cipher::consts::U16;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, ExposeSecretMut};

use super::{LibvirtKey, Unfit};
use crate::memory::{SecretBytes, scrubbed};

/// Opens `IV ‖ C`, in place; gives the value. An empty one is possible here.
pub(super) fn open(key: &LibvirtKey, sealed: &mut SecretBytes) -> Result<SecretBytes, Unfit> {
    let len = sealed.len();
    let (iv, body) = sealed.expose_secret_mut().split_at_mut_checked(BLOCK).ok_or(Unfit::Length(len))?;
    let (blocks, rest) = blocks::<U16>(body);
    if blocks.is_empty() || !rest.is_empty() {
        return Err(Unfit::Length(len));
    }
    let decrypted = scrubbed(|| {
        let mut cipher = cbc::Decryptor::<aes::Aes256>::new_from_slices(key.bytes(), iv).ok()?;
        cipher.decrypt_blocks(blocks);
        Some(())
    });
    decrypted.ok_or(Unfit::DoesNotOpen)?;
    let padding = body.last().map_or(0, |last| usize::from(*last));
    let value = body.len().checked_sub(padding).filter(|_| (1..=BLOCK).contains(&padding));
    let (value, padded) = value.and_then(|len| body.split_at_checked(len)).ok_or(Unfit::DoesNotOpen)?;
    if padded.iter().any(|byte| usize::from(*byte) != padding) {
        return Err(Unfit::DoesNotOpen);
    }
    Ok(SecretBytes::copy_of(value)?)
}

/// `IV ‖ C` of a value, with an IV of its own.
pub(super) fn seal(key: &LibvirtKey, value: &SecretBytes) -> Result<SecretBytes, Unfit> {
    let mut iv = [0; BLOCK];
    let no_chance = |_| Unfit::Io(std::io::Error::other("the system has no randomness to give"));
    SystemRandom::new().fill(&mut iv).map_err(no_chance)?;
    seal_with(key, iv, value)
}

fn seal_with(key: &LibvirtKey, iv: [u8; BLOCK], value: &SecretBytes) -> Result<SecretBytes, Unfit> {
    let whole = value.len() / BLOCK;
    let body_len = whole.saturating_add(1).saturating_mul(BLOCK);
    let mut sealed = SecretBytes::zeroed(body_len.saturating_add(BLOCK))?;
    sealed.overwrite(0, &iv);
    sealed.overwrite(BLOCK, value.expose_secret());
    let (_, body) = sealed.expose_secret_mut().split_at_mut_checked(BLOCK).ok_or(Unfit::TooLong)?;
    let padding = body_len.saturating_sub(value.len());
    let padded = body.get_mut(value.len()..).ok_or(Unfit::TooLong)?;
    padded.fill(u8::try_from(padding).map_err(|_| Unfit::TooLong)?);
    let (blocks, _) = blocks::<U16>(body);
    let encrypted = scrubbed(|| {
        let mut cipher = cbc::Encryptor::<aes::Aes256>::new_from_slices(key.bytes(), &iv).ok()?;
        cipher.encrypt_blocks(blocks);
        Some(())
    });
    encrypted.ok_or(Unfit::TooLong)?;
    Ok(sealed)
}

fn blocks<N: ArraySize>(bytes: &mut [u8]) -> (&mut [Array<u8, N>], &mut [u8]) {
    Array::slice_as_chunks_mut(bytes)
}

/// An AES block, in bytes.
pub(super) const BLOCK: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(first: u8) -> LibvirtKey {
        let bytes: Vec<u8> = (first..first + 32).collect();
        LibvirtKey::from_bytes(SecretBytes::copy_of(&bytes).unwrap()).unwrap()
    }

    fn bytes(bytes: &[u8]) -> SecretBytes {
        SecretBytes::copy_of(bytes).unwrap()
    }

    #[test]
    fn the_test_vector_holds_both_ways() {
        let expected = [
            [0xA5; 16],
            [0x50, 0x23, 0x16, 0xa8, 0xec, 0xfd, 0x7c, 0x7f, 0x2c, 0xbe, 0x83, 0x29, 0x86, 0x8f, 0x91, 0x88],
        ]
        .concat();
        let sealed = seal_with(&key(0), [0xA5; 16], &bytes(b"s3cret")).unwrap();
        assert_eq!(sealed.expose_secret(), expected);
        assert_eq!(open(&key(0), &mut bytes(&expected)).unwrap().expose_secret(), b"s3cret");
    }

    #[test]
    fn every_length_goes_round_and_no_iv_comes_twice() {
        for len in [0, 1, 15, 16, 17, 31, 32, 255, 65_536] {
            let value: Vec<u8> = (0..len).map(|at| (at * 31) as u8).collect();
            let mut sealed = seal(&key(1), &bytes(&value)).unwrap();
            assert_eq!(sealed.len(), 16 + 16 * (len / 16 + 1));
            let again = seal(&key(1), &bytes(&value)).unwrap();
            assert_ne!(sealed.expose_secret()[..16], again.expose_secret()[..16]);
            assert_eq!(open(&key(1), &mut sealed).unwrap().expose_secret(), value);
        }
    }

    /// What decrypts to these blocks.
    fn sealed_raw(blocks_of_text: &[u8]) -> SecretBytes {
        let mut sealed = bytes(&[&[7; 16], blocks_of_text].concat());
        let mut cipher = cbc::Encryptor::<aes::Aes256>::new_from_slices(key(0).bytes(), &[7; 16]).unwrap();
        cipher.encrypt_blocks(blocks::<U16>(&mut sealed.expose_secret_mut()[16..]).0);
        sealed
    }

    #[test]
    fn padding_is_strict() {
        let open = |text: &[u8]| open(&key(0), &mut sealed_raw(text)).map(|value| value.len());
        assert_eq!(open(b"123456789012345\x01").unwrap(), 15);
        assert_eq!(open(b"12345678901234\x02\x02").unwrap(), 14);
        assert_eq!(open(&[16; 16]).unwrap(), 0);
        for wrong in [
            &b"123456789012345\x00"[..], // libvirt takes this for a value of 16 bytes
            b"12345678901234\x01\x02",   // and this for one of 14
            &[17; 32],
            &[0xFF; 16],
        ] {
            assert!(matches!(open(wrong), Err(Unfit::DoesNotOpen)), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn lengths_that_no_encrypted_value_has_are_named() {
        for len in [0, 1, 15, 16, 17, 33, 47] {
            let result = open(&key(0), &mut SecretBytes::zeroed(len).unwrap());
            assert!(matches!(result, Err(Unfit::Length(found)) if found == len), "{len}");
        }
    }
}
