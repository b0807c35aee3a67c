//! The keyring: the slots, the wrapped epoch keys, and a seal over every byte.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `SRKEYRNG` |
//! | 8 | 2 | version, 1 |
//! | 10 | 1 | suite, 1: HKDF-SHA256, AES-256-GCM, HMAC-SHA256, Argon2id |
//! | 11 | 1 | flags: bit 0 the store keeps no `.xml` copies |
//! | 12 | 4 | length of the whole, u32 little-endian |
//! | 16 | 16 | store id |
//! | 32 | 8 | serial: rises with every change |
//! | 40 | 8 | made at, Unix seconds |
//! | 48 | 2 | slots, 1 to 32 |
//! | 50 | 2 | epochs, 1 to 16 |
//! | 52 | 4 | the current epoch |
//! | 56 | 8 | the log's generation when the current epoch began; 0: with the store |
//! | 64 | 224 each | slots (slot.rs) |
//! | … | 128 each | epochs: number (4), zero (4), made at (8), the epoch key wrapped by the root key (112) |
//! | … | 32 | HMAC-SHA256 over all that stands before, under a key from the root key |
//!
//! Leans on `slot`, `epoch`, `wrap` and `kdf`; `change` is how another one is made of it. Refuses bytes that are not
//! exactly this; the seal is checked as soon as a slot has opened. A keyring whose seal doesn't hold but whose keys
//! unwrap still opens, and says so: one rotten byte in one slot must not cost the store.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::sync::Arc;

use ring::hmac;
use secrecy::ExposeSecretMut;

use super::epoch::{EPOCH_LEN, Epoch};
use super::frame::EpochCipher;
use super::kdf::extract;
use super::key::{EpochKey, HostKey, RootKey, StoreId};
use super::recovery::RecoveryKey;
use super::slot::{NewSlot, SLOT_LEN, Slot, SlotInfo};
use super::{SealError, fields, kdf};
use crate::memory::{SecretBytes, SecretCell, scrubbed};

/// No keyring is longer.
pub const MAX_KEYRING: usize = FIXED_LEN + MAX_SLOTS * SLOT_LEN + MAX_EPOCHS * EPOCH_LEN + SEAL_LEN;

const MAGIC: &[u8; 8] = b"SRKEYRNG";
const VERSION: u16 = 1;
const SUITE: u8 = 1;
/// What the root key's HMAC keys are for.
const SEAL: &[u8] = b"strongroom keyring seal v1";
pub(super) const ANCHOR: &[u8] = b"strongroom anchor v1";
const FIXED_LEN: usize = 64;
const SEAL_LEN: usize = 32;
pub(super) const MAX_SLOTS: usize = 32;
pub(super) const MAX_EPOCHS: usize = 16;

/// Something that may open a slot.
#[derive(Debug)]
pub enum Opener {
    /// A host key, for host-key and credential slots.
    HostKey(HostKey),
    /// A passphrase.
    Passphrase(SecretBytes),
    /// A recovery key.
    Recovery(RecoveryKey),
}

/// A slot that was tried, and didn't open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Which slot.
    pub slot: SlotInfo,
}

/// Why a keyring can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// Not a keyring, or a damaged one.
    #[error("the keyring is damaged or is no keyring: {0}")]
    Malformed(&'static str),
    /// Written by a later version.
    #[error("the keyring was written by a newer version of Strongroom (keyring format {0})")]
    Newer(u16),
    /// No slot opened: none was tried, or what was given opens none of these.
    #[error("no slot of the keyring opened")]
    Locked(Vec<Tried>),
    /// A slot opened, but an epoch key under it doesn't.
    #[error("the keyring is damaged: the key of epoch {0} doesn't unwrap")]
    Epoch(u32),
    /// The keyring is full.
    #[error("a keyring holds at most {MAX_SLOTS} slots")]
    TooManySlots,
    /// The keyring has as many epochs as it holds.
    #[error("a keyring holds at most {MAX_EPOCHS} epochs")]
    TooManyEpochs,
    /// No such slot.
    #[error("the keyring has no slot {0}")]
    NoSuchSlot(::uuid::Uuid),
    /// The last slot stays.
    #[error("the last slot can't be removed: the keystore could never be opened again")]
    LastSlot,
    /// A slot isn't opened by what shall open it.
    #[error("slot {0} isn't opened by the key that was given for it")]
    NotItsKey(::uuid::Uuid),
    /// The changed keyring, read back from its bytes, doesn't open by what shall open it.
    #[error("the changed keyring would not open; nothing was changed")]
    Unproved,
    /// Another change came first.
    #[error("the keyring was changed by somebody else meanwhile; nothing was changed")]
    Outdated,
    /// Sealing or opening failed for another reason.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The clear fields that a keyring has whether it is open or not.
#[derive(Debug, Clone)]
pub(super) struct Clear {
    pub(super) store: StoreId,
    copies: bool,
    pub(super) serial: u64,
    made_at: u64,
    pub(super) slots: Vec<Slot>,
    pub(super) epochs: Vec<Epoch>,
    pub(super) current: u32,
    /// The log's generation when the current epoch began: every later frame is in it.
    pub(super) began: u64,
}

/// A keyring as read, before anything in it is proved.
#[derive(Debug)]
pub struct LockedKeyring {
    fields: Clear,
    bytes: Vec<u8>,
}

/// An open keyring: the root key, and a cipher for each epoch.
#[derive(Debug)]
pub struct Keyring {
    pub(super) fields: Clear,
    pub(super) root: RootKey,
    pub(super) ciphers: Vec<EpochCipher>,
    /// Derived once: each derivation leaves the root key on ring's stack until it is scrubbed, and every commit is sealed.
    pub(super) anchor: Arc<SecretCell<hmac::Key>>,
}

/// What unlocking gave.
#[derive(Debug)]
pub struct Opened {
    /// The keyring.
    pub keyring: Keyring,
    /// Whether its seal holds. If not, some byte of it changed after it was written.
    pub sound: bool,
    /// The slot that opened.
    pub slot: SlotInfo,
}

impl LockedKeyring {
    /// Reads a keyring: its shape only.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyringError> {
        let malformed = KeyringError::Malformed;
        let fields = Clear::decode(bytes)?;
        let len = fields.len();
        if bytes.len() != len {
            return Err(malformed("its length is not what it says"));
        }
        Ok(Self { fields, bytes: bytes.to_vec() })
    }

    /// Tries every opener on every slot that it is for, in the openers' order.
    pub fn unlock(&self, openers: &[Opener]) -> Result<Opened, KeyringError> {
        let mut tried = Vec::new();
        for opener in openers {
            for slot in &self.fields.slots {
                match slot.open(opener, self.fields.store) {
                    None => {}
                    Some(Ok(root)) => return self.opened(root, slot.info.clone()),
                    Some(Err(SealError::Damaged)) => tried.push(Tried { slot: slot.info.clone() }),
                    Some(Err(other)) => return Err(other.into()),
                }
            }
        }
        Err(KeyringError::Locked(tried))
    }

    /// Tries one opener on one slot.
    pub fn unlock_slot(&self, id: ::uuid::Uuid, opener: &Opener) -> Result<Opened, KeyringError> {
        let slot = self.fields.slots.iter().find(|slot| slot.info.id == id);
        let slot = slot.ok_or(KeyringError::NoSuchSlot(id))?;
        match slot.open(opener, self.fields.store) {
            Some(Ok(root)) => self.opened(root, slot.info.clone()),
            None | Some(Err(SealError::Damaged)) => {
                Err(KeyringError::Locked(vec![Tried { slot: slot.info.clone() }]))
            }
            Some(Err(other)) => Err(other.into()),
        }
    }

    /// The store it says it belongs to.
    pub fn store(&self) -> StoreId {
        self.fields.store
    }

    /// Whether it says that the store keeps `.xml` copies.
    pub fn copies(&self) -> bool {
        self.fields.copies
    }

    /// The slots it says it has.
    pub fn slots(&self) -> impl Iterator<Item = &SlotInfo> {
        self.fields.slots.iter().map(|slot| &slot.info)
    }

    /// Its bytes, as they were read.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The serial that it says it has.
    pub fn serial(&self) -> u64 {
        self.fields.serial
    }

    /// Whether it was sealed under the root key of this one: then what it says of itself is true.
    pub fn is_sealed_by(&self, keyring: &Keyring) -> Result<bool, SealError> {
        self.seal_holds(&keyring.root)
    }

    fn seal_holds(&self, root: &RootKey) -> Result<bool, SealError> {
        let (sealed, seal) = self.bytes.split_last_chunk::<SEAL_LEN>().unwrap_or((&[], &[0; SEAL_LEN]));
        let key = mac_key(root, SEAL)?;
        Ok(scrubbed(|| hmac::verify(key.expose(), sealed, seal)).is_ok())
    }

    fn opened(&self, root: RootKey, slot: SlotInfo) -> Result<Opened, KeyringError> {
        let (keyring, sound) = self.open(root)?;
        Ok(Opened { keyring, sound, slot })
    }

    /// Unwraps the epochs. Tells besides whether the seal holds.
    pub(super) fn open(&self, root: RootKey) -> Result<(Keyring, bool), KeyringError> {
        let fields = self.fields.clone();
        let sound = self.seal_holds(&root)?;
        let mut ciphers = Vec::new();
        for epoch in &fields.epochs {
            let key = epoch.open(fields.store, &root).map_err(|_| KeyringError::Epoch(epoch.number))?;
            ciphers.push(EpochCipher::new(epoch.number, fields.store, &key)?);
        }
        let anchor = Arc::new(mac_key(&root, ANCHOR)?);
        Ok((Keyring { fields, root, ciphers, anchor }, sound))
    }
}

impl Keyring {
    /// A new keyring for a new store, with a new root key and a first epoch. `now`: Unix seconds.
    pub fn create(slots: &[(&NewSlot<'_>, &str)], copies: bool, now: u64) -> Result<Self, KeyringError> {
        let (store, root) = (StoreId::random()?, RootKey::random()?);
        let key = EpochKey::random()?;
        let epoch = Epoch::make(1, now, &key, store, &root)?;
        let cipher = EpochCipher::new(1, store, &key)?;
        let (epochs, ciphers) = (vec![epoch], vec![cipher]);
        let (none, current, began) = (Vec::new(), 1, 0);
        let fields = Clear { store, copies, serial: 0, made_at: now, slots: none, epochs, current, began };
        let anchor = Arc::new(mac_key(&root, ANCHOR)?);
        let mut keyring = Self { fields, root, ciphers, anchor };
        for (new, label) in slots {
            keyring.add_slot(new, label, now)?;
        }
        keyring.fields.serial = 1;
        Ok(keyring)
    }

    /// Another copy, to be changed and written before it takes this one's place.
    pub fn try_clone(&self) -> Result<Self, KeyringError> {
        let root = RootKey(self.root.0.try_clone().map_err(SealError::from)?);
        let mut ciphers = Vec::new();
        for epoch in &self.fields.epochs {
            let key = epoch.open(self.fields.store, &root).map_err(|_| KeyringError::Epoch(epoch.number))?;
            ciphers.push(EpochCipher::new(epoch.number, self.fields.store, &key)?);
        }
        Ok(Self { fields: self.fields.clone(), root, ciphers, anchor: Arc::clone(&self.anchor) })
    }

    /// The file's bytes, sealed.
    pub fn encode(&self) -> Result<Vec<u8>, KeyringError> {
        let mut bytes = self.fields.encode();
        let key = mac_key(&self.root, SEAL)?;
        let seal = scrubbed(|| hmac::sign(key.expose(), &bytes));
        bytes.extend(seal.as_ref());
        Ok(bytes)
    }

    /// A seal of this store over `bytes`: for the rollback anchor.
    pub fn anchor_seal(&self, bytes: &[u8]) -> Result<[u8; 32], SealError> {
        let mut seal = [0; 32];
        seal.copy_from_slice(scrubbed(|| hmac::sign(self.anchor.expose(), bytes)).as_ref());
        Ok(seal)
    }

    /// The cipher of the current epoch: the one to seal with.
    pub fn current(&self) -> &EpochCipher {
        let current = self.cipher(self.fields.current);
        current.unwrap_or_else(|| unreachable!("decode and create see to it that the current epoch is there"))
    }

    /// The cipher of an epoch, if its key is still there.
    pub fn cipher(&self, epoch: u32) -> Option<&EpochCipher> {
        self.ciphers.iter().find(|cipher| cipher.epoch() == epoch)
    }

    /// The epochs whose keys are there.
    pub fn epochs(&self) -> impl Iterator<Item = u32> + '_ {
        self.fields.epochs.iter().map(|epoch| epoch.number)
    }

    /// When the current epoch began: in Unix seconds, and the log's generation then. Every frame of a higher generation is
    /// in this epoch.
    pub fn epoch_began(&self) -> (u64, u64) {
        let current = self.fields.epochs.iter().find(|epoch| epoch.number == self.fields.current);
        (current.map_or(0, |epoch| epoch.made_at), self.fields.began)
    }

    /// The store it belongs to.
    pub fn store(&self) -> StoreId {
        self.fields.store
    }

    /// Rises with every change.
    pub fn serial(&self) -> u64 {
        self.fields.serial
    }

    /// When the store was made, in Unix seconds.
    pub fn made_at(&self) -> u64 {
        self.fields.made_at
    }

    /// Whether the store keeps `.xml` copies of its definitions.
    pub fn copies(&self) -> bool {
        self.fields.copies
    }

    /// The slots.
    pub fn slots(&self) -> impl Iterator<Item = &SlotInfo> {
        self.fields.slots.iter().map(|slot| &slot.info)
    }
}

impl Clear {
    fn decode(bytes: &[u8]) -> Result<Self, KeyringError> {
        let malformed = KeyringError::Malformed;
        let (fixed, rest) = bytes.split_first_chunk::<FIXED_LEN>().ok_or(malformed("it is too short"))?;
        let mut fixed = fields::Fields(fixed);
        if fixed.take::<8>() != *MAGIC {
            return Err(malformed("it doesn't begin like one"));
        }
        let version = fixed.u16();
        if version > VERSION {
            return Err(KeyringError::Newer(version));
        }
        let [suite, flags] = fixed.take();
        if version != VERSION || suite != SUITE || flags > 1 {
            return Err(malformed("its version, suite or flags are unknown"));
        }
        let len = fixed.u32() as usize;
        let store = StoreId(fixed.take());
        let (serial, made_at) = (fixed.u64(), fixed.u64());
        let (slot_count, epoch_count) = (usize::from(fixed.u16()), usize::from(fixed.u16()));
        let (current, began) = (fixed.u32(), fixed.u64());
        if !(1..=MAX_SLOTS).contains(&slot_count) || !(1..=MAX_EPOCHS).contains(&epoch_count) {
            return Err(malformed("its counts are out of bounds"));
        }
        let mut rest = fields::Fields(rest);
        let mut slots = Vec::new();
        for _ in 0..slot_count {
            let slot = rest.try_take().and_then(Slot::decode);
            slots.push(slot.ok_or(malformed("a slot is cut off or not one"))?);
        }
        let mut epochs = Vec::new();
        for _ in 0..epoch_count {
            let bytes: [u8; EPOCH_LEN] = rest.try_take().ok_or(malformed("an epoch is cut off"))?;
            epochs.push(Epoch::decode(bytes));
        }
        if !epochs.iter().any(|epoch| epoch.number == current) {
            return Err(malformed("the current epoch is missing"));
        }
        let fields = Self { store, copies: flags == 0, serial, made_at, slots, epochs, current, began };
        if fields.len() != len {
            return Err(malformed("its length is not what it says"));
        }
        Ok(fields)
    }

    /// Everything but the seal.
    fn encode(&self) -> Vec<u8> {
        let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes();
        let mut bytes = Vec::with_capacity(self.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([SUITE, u8::from(!self.copies)]);
        bytes.extend(u32::try_from(self.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(self.store.0);
        bytes.extend(self.serial.to_le_bytes());
        bytes.extend(self.made_at.to_le_bytes());
        bytes.extend(count(self.slots.len()));
        bytes.extend(count(self.epochs.len()));
        bytes.extend(self.current.to_le_bytes());
        bytes.extend(self.began.to_le_bytes());
        self.slots.iter().for_each(|slot| bytes.extend(slot.bytes()));
        self.epochs.iter().for_each(|epoch| bytes.extend(epoch.bytes()));
        bytes
    }

    /// The length of the whole file.
    #[allow(clippy::arithmetic_side_effects)] // the counts are bounded
    fn len(&self) -> usize {
        FIXED_LEN + self.slots.len() * SLOT_LEN + self.epochs.len() * EPOCH_LEN + SEAL_LEN
    }
}

/// An HMAC key for one purpose, from the root key.
pub(super) fn mac_key(root: &RootKey, purpose: &[u8]) -> Result<SecretCell<hmac::Key>, SealError> {
    let mut raw = SecretBytes::zeroed(32)?;
    let cell = SecretCell::build(|| {
        let prk = extract(b"strongroom root v1", &root.0);
        let raw = raw.expose_secret_mut();
        if let Some(raw) = raw.first_chunk_mut() {
            kdf::expand_into(&prk, &[purpose], raw);
        }
        hmac::Key::new(hmac::HMAC_SHA256, raw)
    })?;
    Ok(cell)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::seal::Argon2Cost;

    pub(in crate::seal) fn host_key(byte: u8) -> HostKey {
        HostKey::from_bytes(SecretBytes::copy_of(&[byte; 32]).unwrap()).unwrap()
    }

    pub(in crate::seal) fn passphrase(text: &str) -> SecretBytes {
        SecretBytes::copy_of(text.as_bytes()).unwrap()
    }

    /// Three slots: host key 1, "open sesame", and a recovery key.
    pub(in crate::seal) fn keyring() -> (Keyring, RecoveryKey) {
        let recovery = RecoveryKey::random().unwrap();
        let cost = Argon2Cost::new(8, 1, 1).unwrap();
        let slots = [
            (&NewSlot::HostKey(&host_key(1)), "host"),
            (&NewSlot::Passphrase(&passphrase("open sesame"), cost), "door"),
            (&NewSlot::Recovery(&recovery), ""),
        ];
        (Keyring::create(&slots, true, 1_700_000_000).unwrap(), recovery)
    }

    #[test]
    fn any_one_slot_opens_it() {
        let (keyring, recovery) = keyring();
        let locked = LockedKeyring::parse(&keyring.encode().unwrap()).unwrap();
        for opener in [
            Opener::HostKey(host_key(1)),
            Opener::Passphrase(passphrase("open sesame")),
            Opener::Recovery(recovery),
        ] {
            let opened = locked.unlock(&[opener]).unwrap();
            assert!(opened.sound);
            assert_eq!(opened.keyring.store(), keyring.store());
        }
        assert_eq!(locked.slots().map(|slot| slot.label.as_str()).collect::<Vec<_>>(), ["host", "door", ""]);
    }

    #[test]
    fn what_opens_nothing_is_named() {
        let locked = LockedKeyring::parse(&keyring().0.encode().unwrap()).unwrap();
        let openers = [Opener::HostKey(host_key(2)), Opener::Passphrase(passphrase("open barley"))];
        let KeyringError::Locked(tried) = locked.unlock(&openers).unwrap_err() else { panic!() };
        assert_eq!(
            tried.iter().map(|tried| tried.slot.kind.name()).collect::<Vec<_>>(),
            ["host key", "passphrase"]
        );
    }

    #[test]
    fn no_byte_of_it_can_change_unnoticed_and_none_can_be_cut() {
        let bytes = keyring().0.encode().unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let sound = LockedKeyring::parse(&changed)
                .and_then(|locked| locked.unlock(&[Opener::HostKey(host_key(1))]))
                .is_ok_and(|opened| opened.sound);
            assert!(!sound, "byte {at}");
            assert!(LockedKeyring::parse(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_rotten_slot_does_not_cost_the_others() {
        let (keyring, recovery) = keyring();
        let mut bytes = keyring.encode().unwrap();
        bytes[64 + 150] ^= 1;
        let opened = LockedKeyring::parse(&bytes).unwrap().unlock(&[Opener::Recovery(recovery)]).unwrap();
        assert!(!opened.sound);
    }
}
