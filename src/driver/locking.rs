//! Open and locked, and the ways between: unlocking, locking on purpose, reloading.
//!
//! One change at a time, and none of them keeps calls waiting: Argon2 runs, and files are read, before the state is
//! touched. Leans on `unlock` for what there is to open the store with. Refuses to open by itself what was locked on
//! purpose: only [`Driver::unlock`] and a new start do.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use ::uuid::Uuid;

use super::hostkey::{self, Place};
use super::{Driver, Keys, Root, failure, unlock};
use crate::administration::Finding;
use crate::seal::{KeyringError, LockedKeyring, SlotInfo, StoreId};
use crate::secret::{Definition, Error, Usage};
use crate::store::{Disk, Store, StoreError, read_copies, read_keyring};

/// What a reload came to: a line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reloaded {
    /// It was locked for want of a key, and is open now.
    Unlocked,
    /// It is locked as before, for this reason.
    Locked(Error),
    /// It was open.
    Open {
        /// So many `.xml` copies were missing, and are written anew.
        copies: usize,
        /// Why a new start would find it locked, if the host key that opened it isn't in its place any more.
        at_risk: Option<Error>,
    },
}

impl Reloaded {
    /// Whether somebody should look after it.
    pub fn is_alarming(&self) -> bool {
        matches!(self, Self::Locked(_) | Self::Open { at_risk: Some(_), .. })
    }
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlocked => f.write_str("the keystore is unlocked: its key is there now"),
            Self::Locked(why) => write!(f, "{}", why.detail()),
            Self::Open { copies, at_risk } => {
                match copies {
                    0 => f.write_str("the keystore is open, and its .xml copies are there")?,
                    _ => write!(f, "the keystore is open; missing .xml copies written anew: {copies}")?,
                }
                let Some(why) = at_risk else { return Ok(()) };
                write!(f, "; but {}; {}", why.detail(), why.advice().unwrap_or_default())
            }
        }
    }
}

/// Whether the store is open.
pub(super) enum State {
    Open(Open),
    Locked(Locked),
}

/// An open store, and what opened it.
pub(super) struct Open {
    /// Shared for a moment only, by who holds `Driver::changing`: when the last call is done, it is this one's to close.
    pub(super) store: Arc<Store>,
    pub(super) by: SlotInfo,
    pub(super) host_keys: Vec<Place>,
    /// Slots that were seen to open since: the one it was opened by, and those that were tested.
    pub(super) proved: Mutex<HashSet<Uuid>>,
}

/// What can be said of a store that isn't open.
pub(super) struct Locked {
    pub(super) why: Error,
    on_purpose: bool,
    /// What it holds: as the `.xml` copies say, or as it was when it was locked.
    pub(super) listed: HashMap<Uuid, Arc<Definition>>,
    /// Whether `listed` tells anything: not where no copies are kept, or none can be read.
    listable: bool,
    /// The slots that the keyring says it has, and whose it says it is.
    pub(super) slots: Vec<SlotInfo>,
    pub(super) id: StoreId,
}

/// What trying to open a store gave.
pub(super) enum Attempt {
    Opened(Open),
    Refused {
        keyring: LockedKeyring,
        /// The state that it is in.
        why: Error,
        /// The same for who gave a passphrase or a recovery key: about these alone.
        answer: Error,
    },
}

impl Driver {
    /// Opens a locked keystore with what is given, or, if nothing is, with the host key if that is in one of its places
    /// now: who gives a key wants to know whether that one opens it. The keyring is read anew. Nothing to do if it is open.
    ///
    /// May take a second (Argon2) and waits for others who try; calls are answered meanwhile.
    pub fn unlock(&self, keys: &Keys) -> Result<(), Error> {
        if self.state().store().is_ok() {
            return Ok(());
        }
        let _changing = self.changing();
        if self.state().store().is_ok() {
            return Ok(()); // another one has done it
        }
        let given = keys.host_key.is_some()
            || keys.host_key_bytes.is_some()
            || keys.passphrase.is_some()
            || keys.recovery_key.is_some();
        let places = match given {
            false => hostkey::places(self.host_key.as_deref()),
            true => keys.host_key.as_deref().map_or_else(Vec::new, |named| hostkey::places(Some(named))),
        };
        match attempt(&self.disk, &self.root, places, keys)? {
            Attempt::Opened(open) => self.opened(open),
            Attempt::Refused { answer, .. } => return Err(answer),
        }
        Ok(())
    }

    /// Closes the store and wipes its keys. The root stays ours; ephemeral secrets and subscriptions stay. Waits for calls
    /// that are under way. Nothing opens it again but [`unlock`](Self::unlock) and a new start.
    pub fn lock(&self) -> Result<(), Error> {
        let _changing = self.changing();
        let mut state = self.alone();
        let locked = match &mut *state {
            State::Open(open) => Locked::on_purpose(&open.store),
            State::Locked(locked) => {
                (locked.why, locked.on_purpose) = (failure::locked_on_purpose(), true);
                return Ok(());
            }
        };
        let before = std::mem::replace(&mut *state, State::Locked(locked));
        drop(state);
        // Closing writes and syncs. Who calls meanwhile finds a locked keystore; who would open it waits for `changing`.
        drop(before);
        Ok(())
    }

    /// Looks again: for the host key, be it that the keystore is locked for want of it or was opened with it; and for
    /// missing `.xml` copies, if it is open.
    pub fn reload(&self) -> Result<Reloaded, Error> {
        let _changing = self.changing();
        let open = match &*self.state() {
            State::Open(open) => Some((Arc::clone(&open.store), open.by.kind)),
            State::Locked(Locked { on_purpose: true, why, .. }) => return Ok(Reloaded::Locked(why.clone())),
            State::Locked(_) => None,
        };
        if let Some((store, by)) = open {
            let copies = store.mend_copies().map_err(|error| failure::explain(error, &self.root))?;
            let at_risk = if unlock::takes_host_key(by) { self.at_risk()? } else { None };
            return Ok(Reloaded::Open { copies, at_risk });
        }
        let places = hostkey::places(self.host_key.as_deref());
        match attempt(&self.disk, &self.root, places, &Keys::default())? {
            Attempt::Opened(open) => {
                self.opened(open);
                Ok(Reloaded::Unlocked)
            }
            Attempt::Refused { keyring, why, .. } => {
                let locked = Locked::read(&keyring, &self.disk, &self.root, why.clone())?;
                *self.alone() = State::Locked(locked);
                Ok(Reloaded::Locked(why))
            }
        }
    }

    /// Why what a host key has opened wouldn't be opened by a new start. That is found out by trying: what lies in the
    /// key's place may be another one, or nothing that would be taken.
    fn at_risk(&self) -> Result<Option<Error>, Error> {
        let keyring = keyring(&self.disk, &self.root)?;
        let at_hand = unlock::at_hand(&hostkey::places(self.host_key.as_deref()), &Keys::default())?;
        match keyring.unlock(&at_hand.openers) {
            Ok(_) => Ok(None),
            Err(KeyringError::Locked(tried)) => Ok(at_hand.at_risk(&tried, keyring.slots())),
            Err(error) => Err(failure::explain(error.into(), &self.root)),
        }
    }

    /// From here on the store is open.
    ///
    /// An ephemeral secret that was defined meanwhile may have the UUID or the usage of a stored one: no copy told of it.
    /// Both stay. The ephemeral one is served, as it was a moment ago, and hides the other until it is undefined; whatever
    /// would make one secret of the two is refused. So neither value is lost, and none is shown under the other's
    /// definition, which may be private where that one isn't. To refuse the unlocking instead would let anyone who may
    /// define a secret keep all others locked.
    fn opened(&self, open: Open) {
        let mut state = self.alone();
        for (uuid, held) in self.ephemeral().iter() {
            let owner = open.store.owner(&held.definition.usage).filter(|owner| owner != uuid);
            if open.store.definition(*uuid).is_some() {
                tracing::warn!(%uuid, "an ephemeral secret hides the stored one of the same UUID until it is undefined");
            } else if let Some(stored) = owner {
                tracing::warn!(%uuid, %stored, "an ephemeral secret has the usage of a stored one, and is found by it");
            }
        }
        *state = State::Open(open);
    }
}

impl State {
    /// The store, if it is open.
    pub(super) fn store(&self) -> Result<&Store, Error> {
        match self {
            Self::Open(open) => Ok(&open.store),
            Self::Locked(locked) => Err(locked.why.clone()),
        }
    }

    /// Which secret on disk has a usage.
    pub(super) fn owner(&self, usage: &Usage) -> Option<Uuid> {
        match self {
            Self::Open(open) => open.store.owner(usage),
            Self::Locked(locked) => locked.owner(usage),
        }
    }

    /// Whether a secret is on disk, as far as can be known.
    pub(super) fn has(&self, uuid: Uuid) -> bool {
        match self {
            Self::Open(open) => open.store.definition(uuid).is_some(),
            Self::Locked(locked) => locked.listed.contains_key(&uuid),
        }
    }

    /// Refuses to list what can't be known: an empty list would be a lie.
    pub(super) fn check_listable(&self) -> Result<(), Error> {
        match self {
            Self::Locked(locked) if !locked.listable => Err(locked.why.clone()),
            _ => Ok(()),
        }
    }
}

impl Locked {
    /// A store that didn't open: nothing but the `.xml` copies tells what is in it.
    pub(super) fn read(keyring: &LockedKeyring, disk: &Disk, root: &Root, why: Error) -> Result<Self, Error> {
        let copies = read_copies(&*disk.etc)
            .map_err(|error| Error::system(format!("cannot read '{}'", root.etc.display()), &error))?;
        let listed = copies.into_iter().map(|definition| (definition.uuid, Arc::new(definition))).collect();
        let (slots, id) = (keyring.slots().cloned().collect(), keyring.store());
        Ok(Self { why, on_purpose: false, listed, listable: keyring.copies(), slots, id })
    }

    /// A store that is about to be closed. Its definitions are at hand, and proved, so the copies needn't be asked. Where
    /// no copies are kept the definitions are as confidential as the values, and go with them.
    fn on_purpose(store: &Store) -> Self {
        let keyring = store.keyring();
        let listable = keyring.copies();
        let mut listed = HashMap::new();
        if listable {
            store.for_each(|uuid, definition| {
                listed.extend(definition.map(|definition| (uuid, Arc::clone(definition))));
            });
        }
        let (slots, id) = (keyring.slots().cloned().collect(), keyring.store());
        Self { why: failure::locked_on_purpose(), on_purpose: true, listed, listable, slots, id }
    }

    /// A store that is about to be closed for a moment.
    pub(super) fn under_repair(store: &Store) -> Self {
        Self { why: failure::under_repair(), on_purpose: false, ..Self::on_purpose(store) }
    }

    pub(super) fn owner(&self, usage: &Usage) -> Option<Uuid> {
        self.listed.values().find(|listed| listed.usage == *usage).map(|listed| listed.uuid)
    }
}

/// Reads the keyring, tries what there is on it, and opens the store if a slot opens.
pub(super) fn attempt(
    disk: &Disk,
    root: &Root,
    host_keys: Vec<Place>,
    keys: &Keys,
) -> Result<Attempt, Error> {
    let failed = |error| failure::explain(error, root);
    let keyring = keyring(disk, root)?;
    let at_hand = unlock::at_hand(&host_keys, keys)?;
    match keyring.unlock(&at_hand.openers) {
        Ok(opened) => {
            let by = opened.slot.clone();
            let store = Arc::new(Store::open(disk.clone(), opened).map_err(failed)?);
            warn_of_foreign(&store, root);
            let proved = Mutex::new(HashSet::from([by.id]));
            Ok(Attempt::Opened(Open { store, by, host_keys, proved }))
        }
        Err(KeyringError::Locked(tried)) => {
            let why = at_hand.locked(&tried, keyring.slots());
            let answer = at_hand.refused(&tried, keyring.slots());
            Ok(Attempt::Refused { keyring, why, answer })
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// The keyring as it lies on the disk.
fn keyring(disk: &Disk, root: &Root) -> Result<LockedKeyring, Error> {
    let keyring = read_keyring(disk).and_then(|keyring| keyring.ok_or(StoreError::KeyringMissing));
    keyring.map_err(|error| failure::explain(error, root))
}

/// Says that what libvirt's own driver left is there, and that it is not served.
fn warn_of_foreign(store: &Store, root: &Root) {
    let findings = store.condition().findings;
    let files = findings.iter().filter_map(|finding| match finding {
        Finding::Orphan { file } => Some(file.as_str()),
        _ => None,
    });
    let files: Vec<&str> = files.collect();
    if !files.is_empty() {
        let (named, more) = files.split_at(files.len().min(NAMED));
        tracing::warn!(
            directory = %root.etc.display(),
            files = %named.join(" "),
            and_more = more.len(),
            "files of libvirt's own secret driver lie beside the keystore: they are kept as they are, and not served; strongroom import takes them in",
        );
    }
}

/// A log line names no more files than this.
const NAMED: usize = 20;
