//! The keystore's keys: slots added, changed, removed and tested, a copy of the keyring, a new root key.
//!
//! One at a time, like everything that opens or closes the store; Argon2 runs before the log is touched, so that
//! calls go on meanwhile. Leans on `seal` for the keyring and on `store` to put it in force. Refuses a key that opens
//! a slot already, to remove a slot when no other one is known to work, and a key that can't be right: each with its
//! own words.

use std::sync::{Arc, PoisonError};

use ::uuid::Uuid;

use super::locking::State;
use super::{Driver, calibration, check_passphrase, failure, hostkey, now, unlock};
use crate::administration::{Key, SlotStatus};
use crate::seal::{
    HostKey, Keyring, KeyringError, LABEL_LEN, LockedKeyring, MadeSlot, NewSlot, Opener, RecoveryKey,
    SlotInfo, SlotKind,
};
use crate::secret::Error;
use crate::store::{Store, StoreError, read_keyring};

impl Driver {
    /// Makes a slot for this key: durable, and opened with it once, when this returns.
    pub fn add_key(&self, key: &Key, label: &str) -> Result<SlotStatus, Error> {
        let opener = new_opener(key, label)?;
        let changing = self.changing();
        let store = self.kept_open(&changing)?;
        let before = store.keyring();
        if let Some(slot) = self.opened_by(&before, &opener)? {
            return Err(failure::same_key(key, &slot));
        }
        let made = self.make_slot(&before, key, &opener, label)?;
        let mut keyring = before.try_clone().map_err(|error| self.failed(error))?;
        let slot = keyring.insert_slot(made).map_err(|error| self.failed(error))?;
        self.put(&store, &before, keyring, &[(slot.id, &opener)])?;
        self.remember_new(&slot);
        Ok(SlotStatus::of(&slot))
    }

    /// Puts a key in the place of a slot's, in one step: a crash leaves the old slot or the new one. The same key as before
    /// may be given: for another label, or to try a passphrase at what it should cost today.
    pub fn change_key(&self, slot: Uuid, key: &Key, label: &str) -> Result<SlotStatus, Error> {
        let opener = new_opener(key, label)?;
        let changing = self.changing();
        let store = self.kept_open(&changing)?;
        let before = store.keyring();
        self.find(&before, slot)?;
        if let Some(other) = self.opened_by(&before, &opener)?.filter(|other| other.id != slot) {
            return Err(failure::same_key(key, &other));
        }
        let made = self.make_slot(&before, key, &opener, label)?;
        let mut keyring = before.try_clone().map_err(|error| self.failed(error))?;
        let slot = keyring.replace_slot(slot, made).map_err(|error| self.failed(error))?;
        self.put(&store, &before, keyring, &[(slot.id, &opener)])?;
        self.remember_new(&slot);
        Ok(SlotStatus::of(&slot))
    }

    /// Removes a slot. Refused unless another one has been proved to work: by a key that opened the keystore or was tested
    /// since, by the host key in its place, or by one of these keys, now.
    pub fn remove_key(&self, slot: Uuid, proof: &[Key]) -> Result<SlotStatus, Error> {
        let proof = proof.iter().map(opener).collect::<Result<Vec<_>, _>>()?;
        let changing = self.changing();
        let store = self.kept_open(&changing)?;
        let before = store.keyring();
        let removed = self.find(&before, slot)?;
        let mut keyring = before.try_clone().map_err(|error| self.failed(error))?;
        keyring.remove_slot(slot).map_err(|error| self.failed(error))?;
        if !keyring.slots().any(|slot| self.is_proved(slot)) {
            let mut openers = self.host_keys();
            openers.extend(proof);
            match parsed(&keyring).and_then(|locked| locked.unlock(&openers)) {
                Ok(opened) => self.remember(opened.slot.id),
                Err(KeyringError::Locked(_)) => {
                    return Err(failure::no_other_proved(&removed, keyring.slots()));
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
        self.put(&store, &before, keyring, &[])?;
        Ok(SlotStatus::of(&removed))
    }

    /// The slot that this key opens, tried on the keyring as it lies on disk. Works on a locked keystore, and leaves it so.
    pub fn test_key(&self, key: &Key) -> Result<SlotStatus, Error> {
        let opener = opener(key)?;
        let _changing = self.changing(); // tries are serialised
        match self.keyring_on_disk()?.unlock(&[opener]) {
            Ok(opened) => {
                self.remember(opened.slot.id);
                Ok(SlotStatus::of(&opened.slot))
            }
            Err(KeyringError::Locked(tried)) => Err(failure::opens_nothing(key, !tried.is_empty())),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The keyring's bytes as they lie on disk: sealed, to be kept elsewhere.
    pub fn keyring(&self) -> Result<Vec<u8>, Error> {
        let _changing = self.changing();
        let locked = self.keyring_on_disk()?;
        if let State::Open(open) = &*self.state() {
            let keyring = open.store.keyring();
            if !locked.is_sealed_by(&keyring).map_err(|error| self.failed(error.into()))? {
                return Err(failure::keyring_spoilt(&self.root));
            }
        }
        Ok(locked.bytes().to_vec())
    }

    /// Replaces the root key. A slot stays if one of these keys opens it, or the host key that is in its place; every other
    /// one must be among those to `forget`. Gives the slots that there are now.
    pub fn rekey(&self, keys: &[Key], forget: &[Uuid]) -> Result<Vec<SlotStatus>, Error> {
        let given = keys.iter().map(opener).collect::<Result<Vec<_>, _>>()?;
        let changing = self.changing();
        let store = self.kept_open(&changing)?;
        let before = store.keyring();
        for id in forget {
            self.find(&before, *id)?;
        }
        let mut openers = self.host_keys();
        openers.extend(given);
        let locked = parsed(&before).map_err(|error| self.failed(error))?;
        let (mut keep, mut lacking) = (Vec::new(), Vec::new());
        for slot in before.slots().filter(|slot| !forget.contains(&slot.id)) {
            match self.opener_of(&locked, slot, &openers)? {
                Some(opener) => keep.push((slot.id, opener)),
                None => lacking.push(slot),
            }
        }
        if !lacking.is_empty() {
            return Err(failure::keys_lacking(&lacking));
        }
        let keyring = before.rekeyed(&keep).map_err(|error| self.failed(error))?;
        let slots = keyring.slots().map(SlotStatus::of).collect();
        self.put(&store, &before, keyring, &keep)?;
        Ok(slots)
    }

    /// Proves a keyring, and puts it in force.
    fn put(
        &self,
        store: &Store,
        before: &Arc<Keyring>,
        keyring: Keyring,
        by: &[(Uuid, &Opener)],
    ) -> Result<(), Error> {
        let proved = keyring.prove(by).map_err(|error| self.failed(error))?;
        store.replace_keyring(before, proved).map_err(|error| failure::explain(error, &self.root))
    }

    fn make_slot(
        &self,
        keyring: &Keyring,
        key: &Key,
        opener: &Opener,
        label: &str,
    ) -> Result<MadeSlot, Error> {
        let new = match (opener, key) {
            (Opener::HostKey(host_key), Key::Credential(_)) => NewSlot::Credential(host_key),
            (Opener::HostKey(host_key), _) => NewSlot::HostKey(host_key),
            (Opener::Recovery(recovery), _) => NewSlot::Recovery(recovery),
            (Opener::Passphrase(passphrase), _) => {
                let cost = calibration::cost().map_err(|error| self.failed(error.into()))?;
                NewSlot::Passphrase(passphrase, cost)
            }
        };
        keyring.make_slot(&new, label, now()).map_err(|error| self.failed(error.into()))
    }

    /// The slot that this opens, if it opens one.
    fn opened_by(&self, keyring: &Keyring, opener: &Opener) -> Result<Option<SlotInfo>, Error> {
        let locked = parsed(keyring).map_err(|error| self.failed(error))?;
        for slot in keyring.slots() {
            if self.opener_of(&locked, slot, std::slice::from_ref(opener))?.is_some() {
                return Ok(Some(slot.clone()));
            }
        }
        Ok(None)
    }

    /// Which of these opens a slot.
    fn opener_of<'a>(
        &self,
        locked: &LockedKeyring,
        slot: &SlotInfo,
        openers: &'a [Opener],
    ) -> Result<Option<&'a Opener>, Error> {
        for opener in openers {
            match locked.unlock_slot(slot.id, opener) {
                Ok(_) => return Ok(Some(opener)),
                Err(KeyringError::Locked(_)) => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(None)
    }

    fn find(&self, keyring: &Keyring, id: Uuid) -> Result<SlotInfo, Error> {
        let slot = keyring.slots().find(|slot| slot.id == id).cloned();
        slot.ok_or_else(|| self.failed(KeyringError::NoSuchSlot(id)))
    }

    /// The host keys that are in their places now.
    fn host_keys(&self) -> Vec<Opener> {
        let places = hostkey::places(self.host_key.as_deref());
        places.iter().filter_map(|place| hostkey::read(place).ok()?.map(Opener::HostKey)).collect()
    }

    fn keyring_on_disk(&self) -> Result<LockedKeyring, Error> {
        let keyring = read_keyring(&self.disk).and_then(|keyring| keyring.ok_or(StoreError::KeyringMissing));
        keyring.map_err(|error| failure::explain(error, &self.root))
    }

    /// Whether it was seen to open, and what opened it is in somebody's hand. A file is not: it may be gone since, and is
    /// looked for when it matters.
    fn is_proved(&self, slot: &SlotInfo) -> bool {
        if unlock::takes_host_key(slot.kind) {
            return false;
        }
        match &*self.state() {
            State::Open(open) => {
                open.proved.lock().unwrap_or_else(PoisonError::into_inner).contains(&slot.id)
            }
            State::Locked(_) => false,
        }
    }

    /// A slot that was just made was seen to open too; but a new recovery key may never have reached anybody.
    fn remember_new(&self, slot: &SlotInfo) {
        if slot.kind != SlotKind::Recovery {
            self.remember(slot.id);
        }
    }

    /// This slot was just seen to open. Forgets those that are gone.
    fn remember(&self, slot: Uuid) {
        if let State::Open(open) = &*self.state() {
            let keyring = open.store.keyring();
            let mut proved = open.proved.lock().unwrap_or_else(PoisonError::into_inner);
            proved.insert(slot);
            proved.retain(|id| keyring.slots().any(|slot| slot.id == *id));
        }
    }

    fn failed(&self, error: KeyringError) -> Error {
        failure::explain(error.into(), &self.root)
    }
}

/// What opens a slot.
fn opener(key: &Key) -> Result<Opener, Error> {
    Ok(match key {
        Key::Passphrase(passphrase) => Opener::Passphrase(passphrase.try_clone()?),
        Key::Recovery(text) => Opener::Recovery(RecoveryKey::parse(text).map_err(unlock::mistyped)?),
        Key::Host(bytes) | Key::Credential(bytes) => {
            let key = HostKey::from_bytes(bytes.try_clone()?);
            Opener::HostKey(key.ok_or_else(|| failure::no_host_key(bytes.len()))?)
        }
    })
}

/// The same for a new slot of this label.
fn new_opener(key: &Key, label: &str) -> Result<Opener, Error> {
    if label.len() > LABEL_LEN {
        return Err(failure::long_label(label.len()));
    }
    if label.chars().any(char::is_control) {
        return Err(failure::odd_label());
    }
    if let Key::Passphrase(passphrase) = key {
        check_passphrase(passphrase)?;
    }
    opener(key)
}

/// The keyring as whoever opens it next reads it.
fn parsed(keyring: &Keyring) -> Result<LockedKeyring, KeyringError> {
    LockedKeyring::parse(&keyring.encode()?)
}
