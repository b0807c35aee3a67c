//! A frame: one secret, whole and sealed, as it lies in the log; and the commit that ends a batch of them.
//!
//! From the epoch key, HKDF-SHA256 derives this frame's own AES-256-GCM key and its commitment, with bytes 0..96 of the
//! head as info: a head that was changed or moved derives another key. The key is used twice, for the definition with
//! nonce 0 and for the value with nonce 1, and never again. No nonce repeats, whatever is restored or copied.
//!
//! A dead put is *wiped*: its salt ([`SALT`]) is overwritten with zeros. Without those 256 random bits not even the epoch
//! key opens it.
//!
//! Leans on `head` for the clear part, on ring and on `memory`. Refuses to open what a head doesn't prove.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::ops::Range;

use ::uuid::Uuid;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::Prk;
use secrecy::{ExposeSecret, ExposeSecretMut};
use subtle::ConstantTimeEq;

use super::SealError;
use super::definition;
use super::head::{
    COMMITMENT, Chain, DEFINITION_TAG, GRAIN, HEAD_LEN, Head, INFO, MAGIC, SUITE, VALUE_TAG, VERSION, part,
    write,
};
use super::kdf::{expand, extract};
use super::key::{EpochKey, StoreId, random};
use crate::memory::{SecretBytes, SecretCell, scrubbed};
use crate::secret::Definition;

/// A sealed frame, ready to be written.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its clear part.
    pub head: Head,
    /// The whole frame, head included.
    pub bytes: Vec<u8>,
}

/// Seals and opens the frames of one epoch.
#[derive(Debug)]
pub struct EpochCipher {
    epoch: u32,
    store: StoreId,
    prk: SecretCell<Prk>,
}

impl EpochCipher {
    pub(super) fn new(epoch: u32, store: StoreId, key: &EpochKey) -> Result<Self, SealError> {
        let prk = SecretCell::build(|| extract(b"strongroom epoch v1", &key.0))?;
        Ok(Self { epoch, store, prk })
    }

    /// Its epoch.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Its store.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// What all keys of the epoch are derived from. The caller scrubs the stack.
    pub(super) fn prk(&self) -> &Prk {
        self.prk.expose()
    }

    /// Seals a secret. The generation must be new.
    pub fn put(
        &self,
        generation: u64,
        definition: &Definition,
        value: Option<&SecretBytes>,
    ) -> Result<Frame, SealError> {
        let uuid = definition.uuid.into_bytes();
        let definition = definition::encode(definition).ok_or(SealError::Damaged)?;
        let mut padded_definition = vec![0; bucket(definition.len())];
        pad(&definition, &mut padded_definition)?;
        let value = value.map(|value| padded(value.expose_secret())).transpose()?;
        let fields = [1, u8::from(value.is_some())];
        self.seal(fields, generation, 0, uuid, random()?, padded_definition, value)
    }

    /// A frame that says the secret is gone. The generation must be new.
    pub fn delete(&self, generation: u64, uuid: Uuid) -> Result<Frame, SealError> {
        self.seal([2, 0], generation, 0, uuid.into_bytes(), random()?, Vec::new(), None)
    }

    /// The commit of a batch of `count` frames that `chain` covers. The generation must be new.
    pub fn commit(
        &self,
        generation: u64,
        count: u32,
        keyring: u64,
        chain: Chain,
        closed: bool,
    ) -> Result<Frame, SealError> {
        let mut serial = [0; 16];
        write(&mut serial, 0, &keyring.to_le_bytes());
        self.seal([3, u8::from(closed)], generation, count, serial, chain.finish(), Vec::new(), None)
    }

    /// Whether the head was made by this store under this epoch's key, and is as it was made. For a delete and a
    /// commit that is all there is to prove.
    pub fn proves(&self, head: &Head) -> bool {
        scrubbed(|| self.proves_unscrubbed(head))
    }

    /// The definition in `sealed`, the bytes at [`Head::definition`].
    pub fn open_definition(&self, head: &Head, sealed: &mut [u8]) -> Result<Definition, SealError> {
        scrubbed(|| self.open_definition_unscrubbed(head, sealed))
    }

    /// [`open_definition`](Self::open_definition) for whoever opens many and scrubs the stack once, behind all.
    pub fn open_definition_unscrubbed(
        &self,
        head: &Head,
        sealed: &mut [u8],
    ) -> Result<Definition, SealError> {
        self.open(head, DEFINITION_TAG, nonce(0), sealed)?;
        let plain = sealed.get(..padded_len(sealed)?).ok_or(SealError::Damaged)?;
        definition::decode(head.uuid, plain).ok_or(SealError::Damaged)
    }

    /// The value in `sealed`, the bytes at [`Head::value`], opened where it lies.
    pub fn open_value(&self, head: &Head, mut sealed: SecretBytes) -> Result<SecretBytes, SealError> {
        scrubbed(|| self.open(head, VALUE_TAG, nonce(1), sealed.expose_secret_mut()))?;
        let len = padded_len(sealed.expose_secret())?;
        sealed.truncate(len);
        Ok(sealed)
    }

    /// Makes a frame: the head's fields, the sealed parts, the tags.
    #[allow(clippy::too_many_arguments)] // the head's fields, each once
    fn seal(
        &self,
        kind_and_flags: [u8; 2],
        generation: u64,
        count: u32,
        uuid: [u8; 16],
        salt: [u8; 32],
        mut definition: Vec<u8>,
        mut value: Option<SecretBytes>,
    ) -> Result<Frame, SealError> {
        let lens = [definition.len(), value.as_ref().map_or(0, SecretBytes::len)];
        let [definition_len, value_len] =
            lens.map(|len| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        let mut head = [0; HEAD_LEN];
        let mut at = 0;
        for field in [
            &MAGIC[..],
            &[VERSION, SUITE],
            &kind_and_flags,
            &definition_len,
            &value_len,
            &generation.to_le_bytes(),
            &self.epoch.to_le_bytes(),
            &count.to_le_bytes(),
            &self.store.0,
            &uuid,
            &salt,
        ] {
            at = write(&mut head, at, field);
        }
        let commitment = scrubbed(|| self.commitment(&head));
        write(&mut head, COMMITMENT.start, &commitment);
        let parts = [
            (Some(&mut definition[..]).filter(|part| !part.is_empty()), DEFINITION_TAG, 0),
            (value.as_mut().map(SecretBytes::expose_secret_mut), VALUE_TAG, 1),
        ];
        for (part, tag, counter) in parts {
            let Some(part) = part else { continue };
            let sealed = scrubbed(|| {
                self.cipher(&head)?.seal_in_place_separate_tag(nonce(counter), Aad::empty(), part)
            });
            write(&mut head, tag.start, sealed.map_err(|_| SealError::Damaged)?.as_ref());
        }
        let head = Head::decode(&head).map_err(|_| SealError::Damaged)?;
        let mut bytes = Vec::with_capacity(head.frame_len());
        bytes.extend(head.bytes);
        bytes.extend(definition);
        bytes.extend(value.as_ref().map_or(&[][..], |value| value.expose_secret()));
        Ok(Frame { head, bytes })
    }

    /// Opens one part where it lies. The caller scrubs the stack.
    fn open(&self, head: &Head, tag: Range<usize>, nonce: Nonce, sealed: &mut [u8]) -> Result<(), SealError> {
        if !self.proves_unscrubbed(head) {
            return Err(SealError::Damaged);
        }
        let tag = part::<16>(&head.bytes, tag).into();
        let cipher = self.cipher(&head.bytes).map_err(|_| SealError::Damaged)?;
        cipher
            .open_in_place_separate_tag(nonce, Aad::empty(), tag, sealed, 0..)
            .map_err(|_| SealError::Damaged)?;
        Ok(())
    }

    /// [`proves`](Self::proves) for whoever asks often and scrubs the stack once, behind all.
    pub fn proves_unscrubbed(&self, head: &Head) -> bool {
        let stated = part::<32>(&head.bytes, COMMITMENT);
        head.store == self.store
            && head.epoch == self.epoch
            && self.commitment(&head.bytes).ct_eq(&stated).into()
    }

    fn commitment(&self, head: &[u8; HEAD_LEN]) -> [u8; 32] {
        expand(self.prk.expose(), &[b"strongroom frame commitment v1", &part::<96>(head, INFO)])
    }

    fn cipher(&self, head: &[u8; HEAD_LEN]) -> Result<LessSafeKey, ring::error::Unspecified> {
        let info: [&[u8]; 2] = [b"strongroom frame key v1", &part::<96>(head, INFO)];
        let okm = self.prk.expose().expand(&info, &AES_256_GCM)?;
        Ok(LessSafeKey::new(UnboundKey::from(okm)))
    }
}

/// `plain` in secret memory, as long as its bucket.
fn padded(plain: &[u8]) -> Result<SecretBytes, SealError> {
    let mut padded = SecretBytes::zeroed(bucket(plain.len()))?;
    pad(plain, padded.expose_secret_mut())?;
    Ok(padded)
}

/// Writes `plain` into a bucket of zeros, and its length into the last four bytes.
fn pad(plain: &[u8], bucket: &mut [u8]) -> Result<(), SealError> {
    let (front, back) = bucket.split_last_chunk_mut().ok_or(SealError::Damaged)?;
    front.get_mut(..plain.len()).ok_or(SealError::Damaged)?.copy_from_slice(plain);
    *back = u32::try_from(plain.len()).map_err(|_| SealError::Damaged)?.to_le_bytes();
    Ok(())
}

/// The length that stands in the last four bytes.
fn padded_len(padded: &[u8]) -> Result<usize, SealError> {
    let (front, len) = padded.split_last_chunk().ok_or(SealError::Damaged)?;
    let len = u32::from_le_bytes(*len) as usize;
    if len <= front.len() { Ok(len) } else { Err(SealError::Damaged) }
}

/// The padded length for `len` bytes: at least 64, then in steps of an eighth of the size, so that a length gives away
/// its three leading bits and costs at most an eighth more.
#[allow(clippy::arithmetic_side_effects)] // `len` is the length of something in memory
fn bucket(len: usize) -> usize {
    let len = (len + 4).max(64);
    let step = (1 << (len.ilog2() - 3)).max(GRAIN);
    len.next_multiple_of(step)
}

fn nonce(counter: u8) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 1] = counter;
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::HeadError;
    use crate::seal::head::{Kind, MAX_SEALED_VALUE};
    use crate::secret::MAX_VALUE;
    use crate::secret::{Usage, UsageType};

    fn cipher() -> EpochCipher {
        let key = EpochKey(SecretBytes::copy_of(&[0x22; 32]).unwrap());
        EpochCipher::new(1, StoreId([0x11; 16]), &key).unwrap()
    }

    fn definition() -> Definition {
        Definition {
            uuid: Uuid::from_bytes([0x33; 16]),
            usage: Usage { kind: UsageType::Ceph, id: "client.one".into() },
            description: None,
            private: true,
            ephemeral: false,
        }
    }

    fn value(bytes: &[u8]) -> SecretBytes {
        SecretBytes::copy_of(bytes).unwrap()
    }

    #[test]
    fn a_secret_goes_in_and_comes_out() {
        for len in [1, 60, 61, 1000, 65_536] {
            let frame = cipher().put(7, &definition(), Some(&value(&vec![0xC3; len]))).unwrap();
            let head = Head::decode(frame.bytes.first_chunk().unwrap()).unwrap();
            assert_eq!((head.generation, head.frame_len()), (7, frame.bytes.len()));
            assert_eq!(frame.bytes.len() % GRAIN, 0);
            let mut sealed = frame.bytes[head.definition()].to_vec();
            assert_eq!(cipher().open_definition(&head, &mut sealed).unwrap(), definition());
            let opened = cipher().open_value(&head, value(&frame.bytes[head.value()])).unwrap();
            assert_eq!(opened.expose_secret(), vec![0xC3; len]);
        }
    }

    #[test]
    fn no_byte_of_a_frame_can_change() {
        let frame = cipher().put(7, &definition(), Some(&value(b"s3cret"))).unwrap();
        for at in 0..frame.bytes.len() {
            let mut bytes = frame.bytes.clone();
            bytes[at] ^= 1;
            let Ok(head) = Head::decode(bytes.first_chunk().unwrap()) else { continue };
            if head.frame_len() != bytes.len() {
                assert!(!cipher().proves(&head), "byte {at}");
                continue;
            }
            let definition_opens =
                cipher().open_definition(&head, &mut bytes[head.definition()].to_vec()).is_ok();
            let value_opens = cipher().open_value(&head, value(&bytes[head.value()])).is_ok();
            assert!(!(definition_opens && value_opens), "byte {at}");
        }
    }

    #[test]
    fn a_frame_opens_in_its_own_store_and_epoch_only() {
        let frame = cipher().put(7, &definition(), None).unwrap();
        let key = EpochKey(SecretBytes::copy_of(&[0x22; 32]).unwrap());
        for (epoch, store) in [(2, [0x11; 16]), (1, [0x12; 16])] {
            assert!(!EpochCipher::new(epoch, StoreId(store), &key).unwrap().proves(&frame.head));
        }
    }

    #[test]
    fn two_frames_of_one_secret_share_no_bytes_of_ciphertext() {
        let [one, two] = [7, 7].map(|generation| cipher().put(generation, &definition(), None).unwrap());
        assert_ne!(one.bytes[HEAD_LEN..], two.bytes[HEAD_LEN..]);
    }

    #[test]
    fn lengths_are_hidden_in_buckets() {
        assert_eq!([0, 1, 60, 61, 252, 253, 1020, 1021].map(bucket), [64, 64, 64, 96, 256, 288, 1024, 1152]);
        assert_eq!(bucket(MAX_VALUE), MAX_SEALED_VALUE);
    }

    #[test]
    fn a_frame_of_a_later_version_says_so() {
        let mut bytes = *cipher().delete(1, Uuid::nil()).unwrap().head.bytes();
        bytes[4] = 2;
        assert_eq!(Head::decode(&bytes), Err(HeadError::Newer(2)));
    }

    #[test]
    fn a_commit_states_the_chain_and_proves_itself() {
        let frame = cipher().put(1, &definition(), None).unwrap();
        let mut chain = Chain::begin(StoreId([0x11; 16]));
        chain.add(&frame.head);
        let commit = cipher().commit(2, 1, 9, chain.clone(), true).unwrap();
        assert_eq!(commit.head.kind, Kind::Commit { closed: true, count: 1, keyring: 9 });
        assert_eq!(commit.head.chain(), chain.finish());
        assert!(cipher().proves(&commit.head));
    }

    /// The bytes of an example in docs/format.md.
    fn documented(example: &str) -> Vec<u8> {
        let document = include_str!("../../docs/format.md");
        let (_, block) = document.split_once(&format!("```hex {example}\n")).unwrap();
        let (block, _) = block.split_once("```").unwrap();
        let bytes = block.lines().flat_map(|line| line.split_whitespace().skip(1));
        bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }

    #[test]
    fn the_documents_example_is_what_is_written() {
        let delete = cipher().seal([2, 0], 7, 0, [0x33; 16], [0x44; 32], Vec::new(), None).unwrap();
        assert_eq!(delete.bytes, documented("delete"));
        let mut chain = Chain::begin(StoreId([0x11; 16]));
        chain.add(&delete.head);
        assert_eq!(cipher().commit(8, 1, 9, chain, true).unwrap().bytes, documented("commit"));
    }
}
