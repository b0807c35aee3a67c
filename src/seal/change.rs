//! Changing a keyring: its slots, its epochs, the root key itself; and the proof that what comes of it opens.
//!
//! A change counts the serial up, so that the keyring before it is recognised as an old one. What takes long, a
//! passphrase's Argon2id, is done by [`Keyring::make_slot`] beforehand. Leans on `slot` and `epoch`. Refuses to take
//! the last slot away, and to hand out for writing what doesn't open when it is read back from its own bytes.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::sync::Arc;

use ::uuid::Uuid;

use super::SealError;
use super::epoch::Epoch;
use super::frame::EpochCipher;
use super::key::{EpochKey, RootKey};
use super::keyring::{ANCHOR, Keyring, KeyringError, LockedKeyring, MAX_EPOCHS, MAX_SLOTS, Opener, mac_key};
use super::slot::{NewSlot, Slot, SlotInfo};

/// A slot that is made for one keyring, and not in it yet.
#[derive(Debug)]
pub struct MadeSlot(Slot);

impl MadeSlot {
    /// Its id.
    pub fn id(&self) -> Uuid {
        self.0.info.id
    }
}

/// A keyring that opens, and its bytes: what may be written.
#[derive(Debug)]
pub struct Proved {
    keyring: Keyring,
    bytes: Vec<u8>,
}

impl Proved {
    /// The keyring, and its bytes.
    pub fn into_parts(self) -> (Keyring, Vec<u8>) {
        (self.keyring, self.bytes)
    }
}

impl Keyring {
    /// Makes a slot for this keyring. For a passphrase this takes the time that trying it takes.
    pub fn make_slot(&self, new: &NewSlot<'_>, label: &str, now: u64) -> Result<MadeSlot, SealError> {
        Slot::make(new, label, now, self.fields.store, &self.root).map(MadeSlot)
    }

    /// Makes a slot and adds it.
    pub fn add_slot(&mut self, new: &NewSlot<'_>, label: &str, now: u64) -> Result<SlotInfo, KeyringError> {
        let made = self.make_slot(new, label, now)?;
        self.insert_slot(made)
    }

    /// Adds a slot that was made for it.
    pub fn insert_slot(&mut self, MadeSlot(slot): MadeSlot) -> Result<SlotInfo, KeyringError> {
        if self.fields.slots.len() >= MAX_SLOTS {
            return Err(KeyringError::TooManySlots);
        }
        let info = slot.info.clone();
        self.fields.slots.push(slot);
        self.changed();
        Ok(info)
    }

    /// Puts a slot that was made for it in the place of another.
    pub fn replace_slot(&mut self, id: Uuid, MadeSlot(slot): MadeSlot) -> Result<SlotInfo, KeyringError> {
        let before = self.fields.slots.iter_mut().find(|slot| slot.info.id == id);
        *before.ok_or(KeyringError::NoSuchSlot(id))? = slot.clone();
        self.changed();
        Ok(slot.info)
    }

    /// Removes a slot. The last one stays.
    pub fn remove_slot(&mut self, id: Uuid) -> Result<(), KeyringError> {
        let at = self.fields.slots.iter().position(|slot| slot.info.id == id);
        let at = at.ok_or(KeyringError::NoSuchSlot(id))?;
        if self.fields.slots.len() == 1 {
            return Err(KeyringError::LastSlot);
        }
        self.fields.slots.remove(at);
        self.changed();
        Ok(())
    }

    /// The same keyring around a new root key. The slots in `keep` stay, each by its key; every other one goes.
    ///
    /// The epoch keys are the same: whoever had the old root key has these until the next rotation.
    pub fn rekeyed(&self, keep: &[(Uuid, &Opener)]) -> Result<Self, KeyringError> {
        let (root, store) = (RootKey::random()?, self.fields.store);
        let mut fields = self.fields.clone();
        fields.slots.clear();
        for slot in &self.fields.slots {
            let Some((id, opener)) = keep.iter().find(|(id, _)| *id == slot.info.id) else { continue };
            let again = slot.rewrapped(opener, store, &root);
            fields.slots.push(match again.unwrap_or(Err(SealError::Damaged)) {
                Err(SealError::Damaged) => return Err(KeyringError::NotItsKey(*id)),
                again => again?,
            });
        }
        if fields.slots.is_empty() {
            return Err(KeyringError::LastSlot);
        }
        let mut ciphers = Vec::new();
        fields.epochs.clear();
        for epoch in &self.fields.epochs {
            let key = epoch.open(store, &self.root).map_err(|_| KeyringError::Epoch(epoch.number))?;
            ciphers.push(EpochCipher::new(epoch.number, store, &key)?);
            fields.epochs.push(Epoch::make(epoch.number, epoch.made_at, &key, store, &root)?);
        }
        let anchor = Arc::new(mac_key(&root, ANCHOR)?);
        let mut keyring = Self { fields, root, ciphers, anchor };
        keyring.changed();
        Ok(keyring)
    }

    /// Begins a new epoch, in which everything is sealed from now on, and gives its number. `generation` is the log's: no
    /// frame of a higher one may be sealed in an epoch before.
    pub fn begin_epoch(&mut self, now: u64, generation: u64) -> Result<u32, KeyringError> {
        let newest = self.epochs().max().unwrap_or(0);
        let number = newest.checked_add(1).filter(|_| self.fields.epochs.len() < MAX_EPOCHS);
        let number = number.ok_or(KeyringError::TooManyEpochs)?;
        let (key, store) = (EpochKey::random()?, self.fields.store);
        let epoch = Epoch::make(number, now, &key, store, &self.root)?;
        self.ciphers.push(EpochCipher::new(number, store, &key)?);
        self.fields.epochs.push(epoch);
        (self.fields.current, self.fields.began) = (number, generation);
        self.changed();
        Ok(number)
    }

    /// The same keyring with the key of the current epoch alone: what opens under it needs no other. Not to be written.
    pub fn current_only(&self) -> Result<Self, KeyringError> {
        let (mut only, serial) = (self.try_clone()?, self.fields.serial);
        only.end_older_epochs();
        only.fields.serial = serial;
        Ok(only)
    }

    /// Lets the keys of all epochs but the current one go: what is sealed in them is gone with them.
    pub fn end_older_epochs(&mut self) {
        let current = self.fields.current;
        self.fields.epochs.retain(|epoch| epoch.number == current);
        self.ciphers.retain(|cipher| cipher.epoch() == current);
        self.changed();
    }

    /// Makes it newer than a keyring of this serial.
    pub fn raise_above(&mut self, serial: u64) {
        self.fields.serial = self.fields.serial.max(serial);
        self.changed();
    }

    /// Encodes it, reads it back from these bytes, and opens it: by its root key, and each of these slots by its key.
    pub fn prove(self, by: &[(Uuid, &Opener)]) -> Result<Proved, KeyringError> {
        let bytes = self.encode()?;
        let locked = LockedKeyring::parse(&bytes)?;
        let root = RootKey(self.root.0.try_clone().map_err(SealError::from)?);
        let mut opened = vec![locked.open(root)?];
        for (id, opener) in by {
            let by_slot = locked.unlock_slot(*id, opener).map_err(|error| match error {
                KeyringError::Locked(_) => KeyringError::Unproved,
                other => other,
            })?;
            opened.push((by_slot.keyring, by_slot.sound));
        }
        for (keyring, sound) in opened {
            // A frame that is never written: what we seal now has to be what they open.
            let opens = |cipher: &EpochCipher| {
                let frame = cipher.delete(0, Uuid::nil())?;
                Ok(keyring.cipher(cipher.epoch()).is_some_and(|again| again.proves(&frame.head)))
            };
            let all = self.ciphers.iter().map(opens).collect::<Result<Vec<bool>, SealError>>()?;
            if !sound || all.contains(&false) || keyring.current().epoch() != self.current().epoch() {
                return Err(KeyringError::Unproved);
            }
        }
        Ok(Proved { keyring: self, bytes })
    }

    fn changed(&mut self) {
        self.fields.serial = self.fields.serial.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::keyring::tests::{host_key, keyring, passphrase};

    fn ids(keyring: &Keyring) -> Vec<Uuid> {
        keyring.slots().map(|slot| slot.id).collect()
    }

    fn opens(keyring: &Keyring, opener: Opener) -> bool {
        LockedKeyring::parse(&keyring.encode().unwrap()).unwrap().unlock(&[opener]).is_ok()
    }

    #[test]
    fn slots_come_and_go_but_the_last_stays() {
        let (mut keyring, _) = keyring();
        let serial = keyring.serial();
        let added = keyring.add_slot(&NewSlot::Credential(&host_key(3)), &"x".repeat(99), 0).unwrap();
        assert_eq!((added.label.len(), keyring.serial()), (64, serial + 1));
        let ids = ids(&keyring);
        for id in &ids[..3] {
            keyring.remove_slot(*id).unwrap();
        }
        assert!(matches!(keyring.remove_slot(ids[3]), Err(KeyringError::LastSlot)));
        assert!(!opens(&keyring, Opener::HostKey(host_key(1))));
        assert!(opens(&keyring, Opener::HostKey(host_key(3))));
    }

    #[test]
    fn a_slot_is_replaced_in_one_step_and_in_its_place() {
        let (mut keyring, _) = keyring();
        let (before, serial) = (ids(&keyring), keyring.serial());
        let made = keyring.make_slot(&NewSlot::HostKey(&host_key(2)), "new", 5).unwrap();
        let info = keyring.replace_slot(before[0], made).unwrap();
        assert_eq!((ids(&keyring), keyring.serial()), (vec![info.id, before[1], before[2]], serial + 1));
        assert!(!opens(&keyring, Opener::HostKey(host_key(1))));
        assert!(opens(&keyring, Opener::HostKey(host_key(2))));
        let made = keyring.make_slot(&NewSlot::HostKey(&host_key(3)), "", 5).unwrap();
        assert!(matches!(keyring.replace_slot(before[0], made), Err(KeyringError::NoSuchSlot(_))));
    }

    #[test]
    fn epochs_begin_and_end_and_what_was_sealed_before_opens_until_then() {
        let (mut keyring, _) = keyring();
        assert_eq!(keyring.epoch_began(), (1_700_000_000, 0));
        let old = keyring.current().delete(7, Uuid::nil()).unwrap();
        assert_eq!(keyring.begin_epoch(1_800_000_000, 41).unwrap(), 2);
        let bytes = keyring.try_clone().unwrap().prove(&[]).unwrap().into_parts().1;
        let open = |bytes: &[u8]| {
            let locked = LockedKeyring::parse(bytes).unwrap();
            locked.unlock(&[Opener::HostKey(host_key(1))]).unwrap().keyring
        };
        let read = open(&bytes);
        assert_eq!((read.epochs().collect::<Vec<_>>(), read.current().epoch()), (vec![1, 2], 2));
        assert_eq!(read.epoch_began(), (1_800_000_000, 41));
        assert!(read.cipher(1).unwrap().proves(&old.head));
        keyring.end_older_epochs();
        let read = open(&keyring.encode().unwrap());
        assert_eq!(read.epochs().collect::<Vec<_>>(), [2]);
        assert!(!read.current().proves(&old.head));
        for number in 3..=17 {
            assert_eq!(keyring.begin_epoch(0, 0).unwrap(), number);
        }
        assert!(matches!(keyring.begin_epoch(0, 0), Err(KeyringError::TooManyEpochs)));
    }

    #[test]
    fn a_new_root_key_keeps_the_slots_whose_keys_are_there_and_the_epochs() {
        let (keyring, recovery) = keyring();
        let slots: Vec<_> = keyring.slots().cloned().collect();
        let (door, right) = (Opener::Passphrase(passphrase("open sesame")), Opener::HostKey(host_key(1)));
        let wrong = Opener::HostKey(host_key(9));
        let refused = keyring.rekeyed(&[(slots[0].id, &wrong)]);
        assert!(matches!(refused, Err(KeyringError::NotItsKey(id)) if id == slots[0].id));
        assert!(matches!(keyring.rekeyed(&[]), Err(KeyringError::LastSlot)));
        let keep = [(slots[0].id, &right), (slots[1].id, &door)];
        let (new, _) = keyring.rekeyed(&keep).unwrap().prove(&keep).unwrap().into_parts();
        assert_eq!(new.slots().cloned().collect::<Vec<_>>(), slots[..2]);
        assert_eq!(new.serial(), keyring.serial() + 1);
        assert!(!opens(&new, Opener::Recovery(recovery)));
        let frame = keyring.current().delete(7, Uuid::nil()).unwrap();
        assert!(new.current().proves(&frame.head), "the epoch keys are the same");
        let (old, new) = (keyring.encode().unwrap(), new.encode().unwrap());
        assert!(!LockedKeyring::parse(&new).unwrap().is_sealed_by(&keyring).unwrap());
        assert!(LockedKeyring::parse(&old).unwrap().is_sealed_by(&keyring).unwrap());
    }

    #[test]
    fn what_is_claimed_to_open_it_has_to() {
        let (keyring, _) = keyring();
        let (host, door) = (ids(&keyring)[0], ids(&keyring)[1]);
        let (right, wrong) = (Opener::HostKey(host_key(1)), Opener::HostKey(host_key(2)));
        let prove = |by: &[(Uuid, &Opener)]| keyring.try_clone().unwrap().prove(by);
        assert!(prove(&[(host, &right)]).is_ok());
        assert!(matches!(prove(&[(host, &wrong)]), Err(KeyringError::Unproved)));
        assert!(matches!(prove(&[(door, &right)]), Err(KeyringError::Unproved)));
        // A slot that was made for another keyring is around another root key.
        let made = self::keyring().0.make_slot(&NewSlot::HostKey(&host_key(2)), "", 0).unwrap();
        let mut mixed = keyring.try_clone().unwrap();
        let id = mixed.insert_slot(made).unwrap().id;
        assert!(mixed.prove(&[(id, &wrong)]).is_err());
    }
}
