//! libvirt's secret driver on a store: the rules, the ephemeral secrets, the events, and who may read what.
//!
//! [`Driver::open`] opens a root, making it if it is new; a [`Session`] is one caller's view of it and implements
//! [`Keystore`](crate::Keystore). A driver whose keyring doesn't open, or that was locked on purpose, is *locked, but
//! serving*: definitions are listed, new ephemeral secrets work, and everything else says what to do.
//!
//! Leans on `store` and `seal`. Refuses what libvirt refuses, in the same order. What `private` means here: the value
//! goes to an elevated caller only. A program that opens a root itself holds its key, so it may elevate itself, by an
//! explicit call; an ordinary call is refused even for it, so that no private value is shown by accident.

mod administration;
mod calibration;
mod backup;
mod events;
mod failure;
mod hostkey;
mod keys;
mod inventory;
mod locking;
mod put_back;
mod repair;
mod restore;
mod root;
mod rotation;
mod rules;
mod session;
mod status;
#[cfg(test)]
mod tests;
mod unlock;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
};
use std::time::SystemTime;

use ::uuid::Uuid;

use crate::administration::{KeyStatus, Made, Verified};
use crate::memory::SecretBytes;
use crate::seal::{Keyring, NewSlot, RecoveryKey};
use crate::secret::{Definition, Error};
use crate::store::{Disk, RootLock, Store, StoreError, may_create, read_keyring};

pub use crate::store::RestoreOptions;
pub use administration::Administrator;
pub use backup::verify_backup;
use events::Events;
pub(crate) use hostkey::{CREDENTIAL, read_key_file};
pub use locking::Reloaded;
use locking::{Attempt, Locked, State};
pub use put_back::KeyringRestored;
pub use root::Root;
pub use rotation::RotationPolicy;
use rotation::Rounds;
pub use session::{Caller, Session};

/// What to open a root with, and what to make it with.
#[derive(Debug, Default)]
pub struct Keys {
    /// The host key's file; the usual places if `None`.
    pub host_key: Option<PathBuf>,
    /// That file was named for this very purpose: it is tried beside a passphrase or a recovery key. Otherwise what is given
    /// is what is tried: who gives a key wants to know whether that one opens it.
    pub host_key_given: bool,
    /// A host key itself: its 32 bytes.
    pub host_key_bytes: Option<SecretBytes>,
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
    /// The store, or why it is locked. Held shared by every call, and alone by one that moves a secret between disk and
    /// memory, or the keystore between open and locked.
    state: RwLock<State>,
    /// Held by what opens or closes the store, or needs it for long: one at a time. Taken before `state`.
    changing: Mutex<()>,
    /// When a new epoch is due, and the rotation that goes on.
    policy: Mutex<RotationPolicy>,
    rounds: Rounds,
    /// Ephemeral secrets: memory only.
    ephemeral: Mutex<HashMap<Uuid, Ephemeral>>,
    events: Arc<Events>,
    sessions: AtomicU64,
    /// The host key's file, if one was named.
    host_key: Option<PathBuf>,
    root: Root,
    disk: Disk,
    /// Let go last: the store's files are closed before the root is anybody else's.
    _lock: RootLock,
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
            _ = make_store(&disk, &root, keys, &NewStore::default())?;
        }
        let state = match locking::attempt(&disk, &root, unlock::places(keys), keys)? {
            Attempt::Opened(open) => State::Open(open),
            Attempt::Refused { keyring, why, .. } => {
                State::Locked(Locked::read(&keyring, &disk, &root, why)?)
            }
        };
        Ok(Arc::new(Self {
            uri,
            state: RwLock::new(state),
            changing: Mutex::default(),
            policy: Mutex::default(),
            rounds: Rounds::default(),
            ephemeral: Mutex::default(),
            events: Arc::default(),
            sessions: AtomicU64::new(0),
            host_key: keys.host_key.clone(),
            root,
            disk,
            _lock: lock,
        }))
    }

    /// Makes a store in a root that has none. Durable when this returns; opens nothing.
    pub fn init(root: &Root, keys: &Keys, new: &NewStore) -> Result<Made, Error> {
        check(new)?; // first: a refusal leaves no directories behind
        let (disk, _lock) = root.acquire()?;
        if read_keyring(&disk).map_err(|error| failure::explain(error, root))?.is_some() {
            return Err(failure::already_there(root));
        }
        make_store(&disk, root, keys, new)
    }

    /// One caller's view.
    pub fn session(self: &Arc<Self>, caller: Caller) -> Session {
        let id = self.sessions.fetch_add(1, Ordering::Relaxed);
        Session::new(Arc::clone(self), id, caller)
    }

    /// Checks every record and every file. Calls are answered meanwhile; locking waits for it.
    pub fn verify(&self) -> Result<Verified, Error> {
        self.state().store()?; // a locked keystore has nothing to wait for
        let changing = self.changing();
        let store = self.kept_open(&changing)?;
        store.verify().map_err(|error| failure::explain(error, &self.root))
    }

    /// How many secrets are in memory only: what is lost when the process ends.
    pub fn ephemeral_count(&self) -> usize {
        self.ephemeral().len()
    }

    /// Whether a call that changes nothing would have to wait: a secret moves between memory and disk, or the store opens
    /// or closes.
    fn would_wait(&self) -> bool {
        matches!(self.state.try_read(), Err(TryLockError::WouldBlock))
    }

    /// Whether looking at every secret takes a while.
    fn has_many(&self) -> bool {
        matches!(&*self.state(), State::Open(open) if open.store.len() > MANY)
    }

    /// Keeps things as they are: no secret moves between disk and memory, where it would be in both places or seem to be
    /// in none, and the store stays open, or locked.
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no call is under way, and keeps others out.
    fn alone(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store, for what takes long: calls go on meanwhile, and it stays open as long as `changing` is held. To be let go
    /// before that.
    fn kept_open(&self, _changing: &MutexGuard<'_, ()>) -> Result<Arc<Store>, Error> {
        match &*self.state() {
            State::Open(open) => Ok(Arc::clone(&open.store)),
            State::Locked(locked) => Err(locked.why.clone()),
        }
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Makes a keyring and a log where there are none.
fn make_store(disk: &Disk, root: &Root, keys: &Keys, new: &NewStore) -> Result<Made, Error> {
    let failed = |error| failure::explain(error, root);
    // Before a host key is made: where there was a keystore, its own key may yet be put back.
    may_create(disk).map_err(failed)?;
    let place = match new.without_host_key {
        true => None,
        false => hostkey::places(keys.host_key.as_deref()).into_iter().next(),
    };
    let host_key = place.as_ref().map(hostkey::read_or_make).transpose()?;
    let mut slots = Vec::new();
    if let (Some(key), Some(place)) = (&host_key, &place) {
        let label = place.label();
        slots.push((if place.credential { NewSlot::Credential(key) } else { NewSlot::HostKey(key) }, label));
    }
    if let Some(passphrase) = &new.passphrase {
        let cost = calibration::cost().map_err(|error| failed(error.into()))?;
        slots.push((NewSlot::Passphrase(passphrase, cost), String::new()));
    }
    if let Some(key) = &new.recovery_key {
        slots.push((NewSlot::Recovery(key), String::new()));
    }
    if slots.is_empty() {
        return Err(failure::no_slot());
    }
    let slots: Vec<_> = slots.iter().map(|(slot, label)| (slot, label.as_str())).collect();
    let keyring = Keyring::create(&slots, !new.without_copies, now())
        .map_err(StoreError::from)
        .and_then(|keyring| Store::create(disk, &keyring).map(|()| keyring))
        .map_err(failed)?;
    let inside = place.as_ref().is_some_and(|place| root.holds(&place.path));
    Ok(Made {
        directory: root.etc.clone(),
        host_key: place.map(|place| place.path),
        keys: keyring.slots().map(|slot| KeyStatus::of(slot, inside)).collect(),
        copies: keyring.copies(),
    })
}

/// Refuses what can't be opened or can be guessed.
fn check(new: &NewStore) -> Result<(), Error> {
    if new.without_host_key && new.passphrase.is_none() && new.recovery_key.is_none() {
        return Err(failure::no_slot());
    }
    new.passphrase.as_ref().map_or(Ok(()), check_passphrase)
}

/// The host key in a file, to be given as it is ([`Keys::host_key_bytes`]) or sent to a daemon. Refuses a file that others
/// can read.
pub fn read_host_key(file: &Path) -> Result<SecretBytes, Error> {
    match hostkey::places(Some(file)).first().map(hostkey::read).transpose()?.flatten() {
        Some(key) => Ok(key.bytes().try_clone()?),
        None => Err(failure::no_key_file(file)),
    }
}

/// The host key in a file, made if there is none, and what its slot is called. To be added, or sent to a daemon.
pub fn read_or_make_host_key(file: &Path) -> Result<(SecretBytes, String), Error> {
    let place = hostkey::places(Some(file)).into_iter().next().ok_or_else(|| failure::no_key_file(file))?;
    Ok((hostkey::read_or_make(&place)?.bytes().try_clone()?, place.label()))
}

/// Refuses a passphrase that is hardly one.
pub(crate) fn check_passphrase(passphrase: &SecretBytes) -> Result<(), Error> {
    match passphrase.len() {
        ..MIN_PASSPHRASE => Err(failure::short_passphrase(passphrase.len())),
        _ => Ok(()),
    }
}

/// Secrets that are looked at in well under a millisecond.
const MANY: usize = 4096;

/// The shortest passphrase, in bytes.
pub(crate) const MIN_PASSPHRASE: usize = 8;

/// Unix seconds.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
