//! A second reader of the format, written from docs/format.md alone: it shares no line with `src/seal` or `src/store`.
//!
//! What it reads is what anyone with the document and a host key can read, in any language. Leans on ring for
//! AES-256-GCM, HMAC and SHA-256; HKDF is written out here. Refuses everything that is not exactly as the document
//! says: it opens sound stores only, and says at which rule a file fails.

use std::collections::BTreeMap;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::{digest, hmac};

/// All that a store holds, in the clear.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) id: [u8; 16],
    pub(crate) serial: u64,
    pub(crate) root_key: [u8; 32],
    pub(crate) epoch_keys: BTreeMap<u32, [u8; 32]>,
    /// By UUID.
    pub(crate) secrets: BTreeMap<[u8; 16], Secret>,
    /// The generation and the chain of the last commit, and whether it says that the log was closed in order.
    pub(crate) last_commit: (u64, [u8; 32], bool),
}

/// One secret.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Secret {
    pub(crate) usage: (u8, String),
    pub(crate) description: Option<String>,
    pub(crate) private: bool,
    pub(crate) value: Option<Vec<u8>>,
    /// The key that this one record is sealed under.
    pub(crate) frame_key: [u8; 32],
}

type Fault = &'static str;

fn check(holds: bool, rule: Fault) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(rule) }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &parts.concat());
    tag.as_ref().try_into().unwrap()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().unwrap()
}

/// HKDF-SHA256 (RFC 5869) for 32 bytes: one block of output.
fn hkdf(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> [u8; 32] {
    let prk = hmac_sha256(salt, &[secret]);
    hmac_sha256(&prk, &[&info.concat(), &[1]])
}

fn open(key: &[u8; 32], counter: u8, sealed: &[u8], tag: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut nonce = [0; 12];
    nonce[11] = counter;
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let mut bytes = [sealed, tag].concat();
    let nonce = Nonce::assume_unique_for_key(nonce);
    let plain = cipher.open_in_place(nonce, Aad::empty(), &mut bytes).map_err(|_| "AES-GCM tag")?;
    Ok(plain.to_vec())
}

/// A wrapped key (112 bytes): salt, commitment, ciphertext, tag.
fn unwrap(with: &[u8], context: &[&[u8]], wrapped: &[u8]) -> Result<[u8; 32], Fault> {
    let (salt, commitment) = (&wrapped[..32], &wrapped[32..64]);
    let derive = |label: &[u8]| hkdf(salt, with, &[label, &context.concat()]);
    check(derive(b"strongroom wrap commitment v1") == commitment, "wrapping commitment")?;
    let key = derive(b"strongroom wrap key v1");
    open(&key, 0, &wrapped[64..96], &wrapped[96..112])?.try_into().map_err(|_| "key length")
}

/// Reads a keyring with a 32-byte host key: the root key and the epoch keys.
pub(crate) fn read_keyring(host_key: &[u8], keyring: &[u8]) -> Result<Store, Fault> {
    read_keyring_with(&[1, 2], host_key, keyring)
}

/// Reads a keyring with the key for slots of these kinds.
pub(crate) fn read_keyring_with(kinds: &[u8], slot_key: &[u8], keyring: &[u8]) -> Result<Store, Fault> {
    check(keyring.len() >= 64 && &keyring[..8] == b"SRKEYRNG", "keyring magic")?;
    check(number(&keyring[8..10]) == 1 && keyring[10] == 1 && keyring[11] <= 1, "keyring version")?;
    let (slots, epochs) = (number(&keyring[48..50]) as usize, number(&keyring[50..52]) as usize);
    let len = 64 + 224 * slots + 128 * epochs + 32;
    check((1..=32).contains(&slots) && (1..=16).contains(&epochs), "keyring counts")?;
    check(keyring.len() == len && number(&keyring[12..16]) as usize == len, "keyring length")?;
    let id = keyring[16..32].try_into().unwrap();
    let mut store = Store { id, serial: number(&keyring[32..40]), ..Store::default() };
    let mut roots = keyring[64..64 + 224 * slots].chunks(224).filter(|slot| kinds.contains(&slot[0]));
    let root = roots.find_map(|slot| unwrap(slot_key, &[&id, &slot[..112]], &slot[112..]).ok());
    store.root_key = root.ok_or("no slot opens")?;
    for epoch in keyring[64 + 224 * slots..len - 32].chunks(128) {
        let key = unwrap(&store.root_key, &[b"epoch", &id, &epoch[..16]], &epoch[16..])?;
        store.epoch_keys.insert(number(&epoch[..4]) as u32, key);
    }
    check(store.epoch_keys.contains_key(&(number(&keyring[52..56]) as u32)), "current epoch")?;
    let (sealed, seal) = keyring.split_at(len - 32);
    check(store.mac(b"strongroom keyring seal v1", sealed) == seal, "keyring seal")?;
    Ok(store)
}

/// The bytes of a log that mean nothing any more: what is sealed in wiped frames.
pub(crate) fn dead_bytes(log: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut at, mut dead) = (0, Vec::new());
    while let Ok(frame) = Frame::at(log, at) {
        if frame.is_wiped() {
            dead.push(at + 160..at + frame.len());
        }
        at += frame.len();
    }
    dead
}

impl Store {
    fn mac(&self, purpose: &[u8], bytes: &[u8]) -> [u8; 32] {
        hmac_sha256(&hkdf(b"strongroom root v1", &self.root_key, &[purpose]), &[bytes])
    }

    /// Reads a log that was never damaged: every batch has its commit, and behind the last are zeros only.
    pub(crate) fn read_log(&mut self, log: &[u8]) -> Result<(), Fault> {
        let mut heads = [&b"strongroom log v1"[..], &self.id].concat();
        let (mut at, mut batch, mut latest) = (0, Vec::new(), BTreeMap::new());
        while !zero(&log[at..]) {
            let frame = Frame::at(log, at)?;
            frame.check_head(self)?;
            at += frame.len();
            if frame.kind() != 3 {
                heads.extend(frame.chained_head());
                batch.push(frame);
                continue;
            }
            let generation = frame.generation();
            check(generation > self.last_commit.0, "a commit's generation")?;
            check(number(&frame.head[28..32]) as usize == batch.len(), "commit count")?;
            check(sha256(&heads) == frame.head[64..96], "commit chain")?;
            check(number(&frame.head[48..56]) <= self.serial, "keyring is older than the log")?;
            self.last_commit = (generation, sha256(&heads), frame.head[7] == 1);
            heads = frame.head.to_vec();
            for frame in batch.drain(..) {
                check(frame.generation() < generation, "a frame's generation")?;
                let uuid: [u8; 16] = frame.head[48..64].try_into().unwrap();
                let held = latest.get(&uuid).map_or(0, Frame::generation);
                check(frame.generation() != held, "a generation twice")?;
                if frame.generation() > held {
                    latest.insert(uuid, frame);
                }
            }
        }
        check(batch.is_empty(), "a batch without a commit")?;
        for (uuid, frame) in latest.into_iter().filter(|(_, frame)| frame.kind() == 1) {
            let key = self.derive(b"strongroom frame key v1", frame.head).ok_or("epoch")?;
            self.secrets.insert(uuid, frame.secret(&key)?);
        }
        Ok(())
    }

    fn derive(&self, label: &[u8], head: &[u8]) -> Option<[u8; 32]> {
        let key = self.epoch_keys.get(&(number(&head[24..28]) as u32))?;
        Some(hkdf(b"strongroom epoch v1", key, &[label, &head[..96]]))
    }

    /// Checks an anchor, and gives the generation and the chain that it states.
    pub(crate) fn read_anchor(&self, anchor: &[u8]) -> Result<(u64, [u8; 32]), Fault> {
        check(anchor.len() == 104 && &anchor[..8] == b"SRANCHOR", "anchor magic")?;
        check(anchor[8..24] == self.id && number(&anchor[64..72]) <= self.serial, "anchor's store")?;
        check(self.mac(b"strongroom anchor v1", &anchor[..72]) == anchor[72..], "anchor seal")?;
        Ok((number(&anchor[24..32]), anchor[32..64].try_into().unwrap()))
    }
}

/// A frame where it lies: its head, and the sealed definition and value behind it.
struct Frame<'a> {
    head: &'a [u8],
    sealed: &'a [u8],
}

impl<'a> Frame<'a> {
    fn at(log: &'a [u8], at: usize) -> Result<Self, Fault> {
        let head = log.get(at..at + 160).ok_or("the log ends inside a head")?;
        let sealed = (number(&head[8..12]) + number(&head[12..16])) as usize;
        let sealed = log.get(at + 160..at + 160 + sealed).ok_or("the log ends inside a frame")?;
        Ok(Self { head, sealed })
    }

    fn check_head(&self, store: &Store) -> Result<(), Fault> {
        let head = self.head;
        check(&head[..4] == b"SRf\n" && head[4] == 1 && head[5] == 1, "frame magic, version or suite")?;
        check(matches!((head[6], head[7]), (1 | 3, 0 | 1) | (2, 0)), "frame kind")?;
        check(head[32..48] == store.id, "frame's store")?;
        check(self.len().is_multiple_of(32), "frame length")?;
        check((number(&head[8..12]) > 0) == (head[6] == 1), "definition's length")?;
        check((number(&head[12..16]) > 0) == ((head[6], head[7]) == (1, 1)), "value's length")?;
        check(head[6] == 1 || zero(&head[128..160]), "tags of nothing")?;
        if self.is_wiped() {
            return Ok(());
        }
        let commitment = store.derive(b"strongroom frame commitment v1", head);
        check(commitment.as_ref().is_some_and(|right| right == &head[96..128]), "frame commitment")
    }

    /// A dead put's salt is overwritten with zeros. It can prove nothing any more; the chain has the rest of its head.
    fn is_wiped(&self) -> bool {
        self.kind() == 1 && zero(&self.head[64..96])
    }

    /// The head as the chain has it: a put's without its salt.
    fn chained_head(&self) -> Vec<u8> {
        let mut head = self.head.to_vec();
        if self.kind() == 1 {
            head[64..96].fill(0);
        }
        head
    }

    fn kind(&self) -> u8 {
        self.head[6]
    }

    fn generation(&self) -> u64 {
        number(&self.head[16..24])
    }

    fn len(&self) -> usize {
        160 + self.sealed.len()
    }

    fn secret(&self, key: &[u8; 32]) -> Result<Secret, Fault> {
        let (definition, value) = self.sealed.split_at(number(&self.head[8..12]) as usize);
        let definition = unpad(open(key, 0, definition, &self.head[128..144])?)?;
        let value =
            if self.head[7] == 1 { Some(unpad(open(key, 1, value, &self.head[144..160])?)?) } else { None };
        check(definition.len() >= 12 && definition[1] <= 1 && zero(&definition[2..4]), "definition")?;
        let (id_len, text_len) = (number(&definition[4..8]) as usize, number(&definition[8..12]) as usize);
        check(definition.len() == 12 + id_len + text_len, "definition's lengths")?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| "UTF-8");
        let (id, description) = definition[12..].split_at(id_len);
        Ok(Secret {
            usage: (definition[0], text(id)?),
            description: if description.is_empty() { None } else { Some(text(description)?) },
            private: definition[1] == 1,
            value,
            frame_key: *key,
        })
    }
}

/// Padding: zeros behind the bytes, then their length in four bytes, up to the bucket of that length.
fn unpad(mut padded: Vec<u8>) -> Result<Vec<u8>, Fault> {
    let len = number(&padded[padded.len() - 4..]) as usize;
    let needed = (len + 4).max(64);
    let step = (1_usize << (needed.ilog2() - 3)).max(32);
    check(padded.len() == needed.next_multiple_of(step), "bucket")?;
    check(zero(&padded[len..padded.len() - 4]), "padding")?;
    padded.truncate(len);
    Ok(padded)
}
