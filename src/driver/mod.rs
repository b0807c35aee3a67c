//! libvirt's secret driver on a store: the rules, the ephemeral secrets, the events, and who may read what.
//!
//! [`Driver::open`] opens a root, making it if it is new; a [`Session`] is one caller's view of it and implements
//! [`Keystore`](crate::Keystore). A driver whose keyring doesn't open is *locked, but serving*: definitions are listed
//! from the `.xml` copies, new ephemeral secrets work, and everything else says what to do.
//!
//! Leans on `store` and `seal`. Refuses what libvirt refuses, in the same order. What `private` means here: the value
//! goes to an elevated caller only. A program that opens a root itself holds its key, so it may elevate itself, by an
//! explicit call; an ordinary call is refused even for it, so that no private value is shown by accident.

mod events;
mod failure;
mod hostkey;
mod root;
mod rules;
mod session;
mod status;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use ::uuid::Uuid;

use crate::memory::SecretBytes;
use crate::seal::{Argon2Cost, Keyring, KeyringError, NewSlot, Opener, RecoveryKey, SlotInfo};
use crate::secret::{Definition, Error};
use crate::store::{Disk, RootLock, Store, StoreError, Verified, read_copies, read_keyring};

use events::Events;
pub use root::Root;
pub use session::{Caller, Session};
pub use status::{KeyStatus, SlotStatus, Status};

/// What to open a root with, and what to make it with.
#[derive(Debug, Default)]
pub struct Keys {
    /// The host key's file; the usual places if `None`.
    pub host_key: Option<PathBuf>,
    /// A passphrase.
    pub passphrase: Option<SecretBytes>,
    /// A recovery key, as it was shown.
    pub recovery_key: Option<SecretBytes>,
}

/// What a new store shall have, beyond the host key.
#[derive(Debug, Default)]
pub struct NewStore {
    /// Don't make a slot for the host key.
    pub without_host_key: bool,
    /// A slot for this passphrase.
    pub passphrase: Option<SecretBytes>,
    /// A slot for this recovery key.
    pub recovery_key: Option<RecoveryKey>,
    /// Keep no `.xml` copies: the definitions themselves are confidential.
    pub without_copies: bool,
}

/// A root that this process has open.
pub struct Driver {
    uri: String,
    state: State,
    /// Ephemeral secrets: memory only.
    ephemeral: Mutex<HashMap<Uuid, Ephemeral>>,
    /// Held shared by every change, and alone by one that moves a secret between disk and memory.
    moving: RwLock<()>,
    events: Arc<Events>,
    sessions: AtomicU64,
    opened_by: Option<SlotInfo>,
    /// The slots that a locked keyring says it has.
    locked_slots: Vec<SlotInfo>,
    host_keys: Vec<hostkey::Place>,
    root: Root,
    _lock: RootLock,
}

enum State {
    Open(Box<Store>),
    /// Why it is locked, and what the `.xml` copies say.
    Locked(Error, HashMap<Uuid, Arc<Definition>>),
}

struct Ephemeral {
    definition: Arc<Definition>,
    value: Option<SecretBytes>,
}

impl Driver {
    /// Opens a root, and makes a store in it with a host-key slot if there is none. `uri` is what it shall be called.
    ///
    /// A keyring that doesn't open is no error: the driver is locked then, and says so.
    pub fn open(root: Root, uri: String, keys: &Keys) -> Result<Arc<Self>, Error> {
        let (disk, lock) = root.acquire()?;
        let failed = |error| failure::explain(error, &root);
        if read_keyring(&disk).map_err(failed)?.is_none() {
            make_store(&disk, &root, keys, &NewStore::default())?;
        }
        let locked =
            read_keyring(&disk).map_err(failed)?.ok_or(StoreError::KeyringMissing).map_err(failed)?;
        let host_keys = hostkey::places(keys.host_key.as_deref());
        let (openers, absent) = openers(&host_keys, keys)?;
        let (state, opened_by) = match locked.unlock(&openers) {
            Ok(opened) => {
                let slot = opened.slot.clone();
                (State::Open(Box::new(Store::open(disk, opened).map_err(failed)?)), Some(slot))
            }
            Err(KeyringError::Locked(tried)) => {
                let why = failure::locked(&tried, &absent, locked.slots());
                let copies = read_copies(&*disk.etc).map_err(|error| {
                    Error::system(format!("cannot read '{}'", root.etc.display()), &error)
                })?;
                let listed = copies.into_iter().map(|definition| (definition.uuid, Arc::new(definition)));
                (State::Locked(why, listed.collect()), None)
            }
            Err(error) => return Err(failed(error.into())),
        };
        Ok(Arc::new(Self {
            uri,
            state,
            ephemeral: Mutex::default(),
            moving: RwLock::default(),
            events: Arc::default(),
            sessions: AtomicU64::new(0),
            opened_by,
            locked_slots: locked.slots().cloned().collect(),
            host_keys,
            root,
            _lock: lock,
        }))
    }

    /// Makes a store in a root that has none. Durable when this returns; opens nothing.
    pub fn init(root: &Root, keys: &Keys, new: &NewStore) -> Result<(), Error> {
        let (disk, _lock) = root.acquire()?;
        if read_keyring(&disk).map_err(|error| failure::explain(error, root))?.is_some() {
            let detail = format!("there is a keystore in '{}' already", root.etc.display());
            return Err(Error::failed(detail).advise("see what it is with: strongroom status"));
        }
        make_store(&disk, root, keys, new)
    }

    /// One caller's view.
    pub fn session(self: &Arc<Self>, caller: Caller) -> Session {
        let id = self.sessions.fetch_add(1, Ordering::Relaxed);
        Session::new(Arc::clone(self), id, caller)
    }

    /// Checks every record and every file.
    pub fn verify(&self) -> Result<Verified, Error> {
        let store = self.store()?;
        store.verify().map_err(|error| failure::explain(error, &self.root))
    }

    /// The store, if it is open.
    fn store(&self) -> Result<&Store, Error> {
        match &self.state {
            State::Open(store) => Ok(store),
            State::Locked(why, _) => Err(why.clone()),
        }
    }

    fn ephemeral(&self) -> MutexGuard<'_, HashMap<Uuid, Ephemeral>> {
        self.ephemeral.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// What there is to open slots with, and in words what there isn't.
fn openers(host_keys: &[hostkey::Place], keys: &Keys) -> Result<(Vec<Opener>, Vec<String>), Error> {
    let (mut openers, mut absent) = (Vec::new(), Vec::new());
    for place in host_keys {
        match hostkey::read(place) {
            Ok(Some(key)) => openers.push(Opener::HostKey(key)),
            Ok(None) => absent.push(format!("no key file '{}'", place.path.display())),
            Err(error) => absent.push(error.detail().to_owned()),
        }
    }
    // What costs time to try comes last.
    if let Some(text) = &keys.recovery_key {
        let key = RecoveryKey::parse(text).map_err(|error| {
            Error::failed(error.to_string())
                .advise("compare it with what was written down; blanks and dashes don't matter")
        })?;
        openers.push(Opener::Recovery(key));
    }
    if let Some(passphrase) = &keys.passphrase {
        openers.push(Opener::Passphrase(passphrase.try_clone()?));
    }
    Ok((openers, absent))
}

/// Makes a keyring and a log where there are none.
fn make_store(disk: &Disk, root: &Root, keys: &Keys, new: &NewStore) -> Result<(), Error> {
    let place = match new.without_host_key {
        true => None,
        false => hostkey::places(keys.host_key.as_deref()).into_iter().next(),
    };
    let host_key = place.as_ref().map(hostkey::read_or_make).transpose()?;
    let mut slots = Vec::new();
    if let (Some(key), Some(place)) = (&host_key, &place) {
        let label = place.path.display().to_string();
        slots.push((if place.credential { NewSlot::Credential(key) } else { NewSlot::HostKey(key) }, label));
    }
    if let Some(passphrase) = &new.passphrase {
        slots.push((NewSlot::Passphrase(passphrase, Argon2Cost::DEFAULT), String::new()));
    }
    if let Some(key) = &new.recovery_key {
        slots.push((NewSlot::Recovery(key), String::new()));
    }
    if slots.is_empty() {
        let detail = "a keystore needs at least one slot, and there is no place for a host key";
        return Err(Error::failed(detail).advise("name a key file (--key-file), or give a passphrase"));
    }
    let slots: Vec<_> = slots.iter().map(|(slot, label)| (slot, label.as_str())).collect();
    let keyring = Keyring::create(&slots, !new.without_copies, now());
    keyring
        .map_err(StoreError::from)
        .and_then(|keyring| Store::create(disk, &keyring))
        .map_err(|error| failure::explain(error, root))
}

/// Unix seconds.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
