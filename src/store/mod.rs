//! The storage engine: sealed records that survive.
//!
//! The log (`log`) is the one source of truth; the index holds every definition in memory and where each secret's
//! record lies; values are read and opened only when asked for. Changes go through `commit`: many callers share one
//! write and one sync, and what was acknowledged is on disk. Beside it lie the `.xml` copies and, under `run/`, the
//! rollback anchor and the locks.
//!
//! Leans on `seal` for bytes and `disk` for files. Refuses to write to a store that is damaged or whose last write
//! failed: it serves what it can, says so, and the next open finds out.

mod anchor;
mod backup;
mod commit;
mod copies;
mod disk;
mod index;
mod kept;
mod keys;
mod lock;
mod log;
mod open;
mod pid_file;
mod put_back;
mod repair;
mod restore;
mod rotate;
#[cfg(any(test, fuzzing))]
#[cfg_attr(not(test), allow(dead_code, reason = "power cuts are for tests; the fuzzer wants the disk alone"))]
pub(crate) mod simulated;
mod snapshot;
#[cfg(test)]
mod tests;
mod tidy;
mod turns;
mod verify;

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard};

use ::uuid::Uuid;
use secrecy::ExposeSecretMut;

use crate::administration::Finding;
use crate::memory::{Exhausted, SecretBytes};
use crate::seal::{HEAD_LEN, Head, Keyring, KeyringError, SealError, StoreId};
use crate::secret::{Definition, Usage};

pub use backup::{BackupFile, Inspected, OpenBackup};
use commit::Writer;
pub use commit::{Change, Value, View};
pub use copies::read_all as read_copies;
pub use disk::{Directory, Disk, File, open_directory};
use index::{Index, Place};
pub use lock::{LockError, RootLock};
pub use log::LOG;
pub use open::{KEYRING, may_create, read_keyring};
#[cfg(feature = "daemon")]
pub(crate) use pid_file::PidFile;
pub use put_back::{PutBack, put_back_keyring};
pub use repair::{Known, keyring_is_right, repair};
pub use restore::{KEYRING_RESTORED, Placed, RestoreOptions, restore};
use rotate::Sweep;
pub use snapshot::Snapshot;

/// An open store.
pub struct Store {
    disk: Disk,
    keyring: RwLock<Arc<Keyring>>,
    contents: RwLock<Contents>,
    writer: Mutex<Writer>,
    /// Signalled when the log is free again.
    turn: Condvar,
    anchor: Mutex<Option<Arc<dyn File>>>,
    /// What a rotation has still to do.
    sweep: Mutex<Sweep>,
    findings: Vec<Finding>,
    /// Secrets that aren't here, but of which `etc/secrets` has a definition: libvirt's own.
    foreign: Mutex<HashSet<Uuid>>,
    /// The process that opened it.
    owner: u32,
}

/// What readers share: the index, and the file that its places are in.
struct Contents {
    index: Index,
    file: Arc<dyn File>,
}

/// Why a store can't be opened, made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file can't be read, or not be written in a way that changed nothing.
    #[error("cannot {0}: {1}")]
    Io(String, #[source] io::Error),
    /// Writing failed, and what lies on disk is unknown until the next open.
    #[error("cannot {0}: {1}")]
    Write(String, #[source] io::Error),
    /// The keyring can't be used.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A log with records, but no keyring beside it.
    #[error("there is a log of sealed secrets, but no keyring")]
    KeyringMissing,
    /// Neither keyring nor log, though this host has used a store here.
    #[error("its keyring and secrets.log are gone, though this host has used it")]
    Gone,
    /// The keyring is older than what the log or the anchor has seen.
    #[error("the keyring is an old copy: its serial is {found}, but {seen} was in use")]
    KeyringRolledBack {
        /// The keyring's serial.
        found: u64,
        /// The highest serial seen.
        seen: u64,
    },
    /// A copy of a keyring whose seal doesn't hold.
    #[error("the copy of the keyring is damaged: its seal doesn't hold")]
    CopyDamaged,
    /// A keyring, or a copy of one, without a key that the log needs.
    #[error(
        "this keyring has not the key of epoch {epoch}: what was sealed in it ({records} secrets now) would be lost"
    )]
    EpochMissing {
        /// The epoch.
        epoch: u32,
        /// How many secrets' latest records are in it.
        records: usize,
    },
    /// Records that don't open can't be sealed anew.
    #[error(
        "the rotation can't end: {}, which would be lost with the old key, can't be opened: {}", number_of(.0), names(.0)
    )]
    Unrotated(Vec<Uuid>),
    /// A keyring, but no log beside it.
    #[error("there is a keyring, but no log of sealed secrets (secrets.log)")]
    LogMissing,
    /// The file is no log of this store.
    #[error("secrets.log can't be read: {0}")]
    LogUnreadable(String),
    /// The file was written by a later version.
    #[error("secrets.log was written by a newer version of Strongroom (frame format {0})")]
    LogNewer(u8),
    /// The log is older than what this host has seen of it.
    #[error("it was rolled back: {0}")]
    RolledBack(String),
    /// Another store than the one that this host has seen here.
    #[error("it is not the keystore that this host last used here: its keyring is another one's")]
    OtherStore,
    /// The store takes no changes until it is opened anew or repaired.
    #[error("the store is read-only: {0}")]
    ReadOnly(String),
    /// No space; nothing was changed.
    #[error("no space left for the change")]
    NoSpace(#[source] io::Error),
    /// A change queued before this one failed, and this one was judged by it.
    #[error("a change before this one failed")]
    Abandoned,
    /// A record doesn't open.
    #[error("its {0} doesn't open")]
    Damaged(&'static str),
    /// The store was closed, or changed too much, before a copy of it was done.
    #[error("the keystore was locked, or changed too much, while it was copied: the copy is not complete")]
    CopyEnded,
    /// The file is no backup, or can't be read as one.
    #[error("it is no backup, or one that can't be read: {0}")]
    NoBackup(&'static str),
    /// The backup was written by a later version.
    #[error("it was written by a newer version of Strongroom (backup format {0})")]
    BackupNewer(u16),
    /// The backup is damaged, and only a part of it could be restored.
    #[error("the backup is damaged: lost, or without their value: {lost} of {records} secrets")]
    BackupDamaged {
        /// Secrets that it should have.
        records: usize,
        /// Those that are lost, or their values.
        lost: usize,
    },
    /// Nothing at all in the backup opens.
    #[error("nothing in the backup opens: all of its {0} secrets are lost")]
    BackupLost(usize),
    /// There is a keystore already where one should be restored.
    #[error("there is a keystore already")]
    AlreadyThere,
    /// What is there is newer than the backup.
    #[error("the keystore that is there is newer than the backup: {0}")]
    BackupOlder(String),
    /// What is there is another keystore.
    #[error("the keystore that is there is another one: its id is {found}, the backup's is {backup}")]
    BackupOfOther {
        /// The id of the one that is there.
        found: StoreId,
        /// The id of the one in the backup.
        backup: StoreId,
    },
    /// Sealing failed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl StoreError {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Io(doing, error)
    }

    fn write(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Write(doing, error)
    }

    /// The same error for another caller whose change was in the same batch.
    fn again(&self) -> Self {
        let copy = |error: &io::Error| match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => error.kind().into(),
        };
        match self {
            Self::Write(doing, error) => Self::Write(doing.clone(), copy(error)),
            Self::NoSpace(error) => Self::NoSpace(copy(error)),
            Self::Seal(error) => Self::Seal(*error),
            Self::ReadOnly(reason) => Self::ReadOnly(reason.clone()),
            _ => Self::Abandoned,
        }
    }
}

impl From<Exhausted> for StoreError {
    fn from(exhausted: Exhausted) -> Self {
        SealError::from(exhausted).into()
    }
}

/// How a store stands, for `status`.
#[derive(Debug, Clone)]
pub struct Condition {
    /// Its id.
    pub store: StoreId,
    /// Secrets in it.
    pub secrets: usize,
    /// Bytes of the log, and how many of them are records in use.
    pub log: (u64, u64),
    /// The last commit's generation.
    pub generation: u64,
    /// Why it takes no changes, if it doesn't.
    pub read_only: Option<String>,
    /// What was found when it was opened.
    pub findings: Vec<Finding>,
}

impl Store {
    /// Whether the secret is there, and its definition. `Some(None)`: it is there, but its definition doesn't open.
    pub fn definition(&self, uuid: Uuid) -> Option<Option<Arc<Definition>>> {
        self.contents().index.entry(uuid).map(|entry| entry.definition.clone())
    }

    /// The secret of this usage.
    pub fn owner(&self, usage: &Usage) -> Option<Uuid> {
        self.contents().index.owner(usage)
    }

    /// Every secret, and its definition where it opens. In no order; no change gets in between.
    pub fn for_each(&self, mut each: impl FnMut(Uuid, Option<&Arc<Definition>>)) {
        for (uuid, entry) in self.contents().index.entries() {
            each(uuid, entry.definition.as_ref());
        }
    }

    /// How many secrets there are.
    pub fn len(&self) -> usize {
        self.contents().index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A secret's value, and the definition that it belongs to: whoever judges by the definition must judge by this one.
    /// `Ok(None)`: the secret is not there; no value: it has none.
    #[allow(clippy::type_complexity, reason = "a pair and two kinds of absence")]
    pub fn value(&self, uuid: Uuid) -> Result<Option<(Arc<Definition>, Option<SecretBytes>)>, StoreError> {
        let mut tried: Option<(Place, Arc<dyn File>)> = None;
        loop {
            let contents = self.contents();
            let Some(entry) = contents.index.entry(uuid) else { return Ok(None) };
            let definition = Arc::clone(entry.definition.as_ref().ok_or(StoreError::Damaged("definition"))?);
            let (place, file) = (entry.place, Arc::clone(&contents.file));
            drop(contents);
            if !place.has_value {
                return Ok(Some((definition, None)));
            }
            match read_value(&*file, uuid, place, &self.keyring()) {
                Ok(value) => return Ok(Some((definition, Some(value)))),
                // Between the look-up and the read, the record may have been superseded and wiped: look again. If it
                // is still the same record, it really is damaged.
                Err(StoreError::Damaged(_))
                    if tried.as_ref().is_none_or(|(at, of)| *at != place || !Arc::ptr_eq(of, &file)) =>
                {
                    tried = Some((place, file));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// How it stands.
    pub fn condition(&self) -> Condition {
        let (end, generation, read_only) = self.log_standing();
        let contents = self.contents();
        Condition {
            store: self.keyring().store(),
            secrets: contents.index.len(),
            log: (end, contents.index.live()),
            generation,
            read_only,
            findings: self.findings.clone(),
        }
    }

    /// The keyring in force.
    pub fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn contents(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("id", &self.keyring().store()).finish_non_exhaustive()
    }
}

/// Reads the value in the frame at `place`, and opens it where it lies.
fn read_value(
    file: &dyn File,
    uuid: Uuid,
    place: Place,
    keyring: &Keyring,
) -> Result<SecretBytes, StoreError> {
    let reading = || StoreError::io("read secrets.log");
    let mut front = [0; FRONT];
    let front = &mut front[..FRONT.min(place.frame_len as usize)];
    file.read_at(front, place.at).map_err(reading())?;
    let head = front.first_chunk::<HEAD_LEN>().and_then(|head| Head::decode(head).ok());
    let head = head.filter(|head| head.uuid == uuid && Place::of(head, place.at) == place);
    let head = head.ok_or(StoreError::Damaged("record"))?;
    let cipher = keyring.cipher(head.epoch).ok_or(StoreError::Damaged("record"))?;
    let mut sealed = SecretBytes::zeroed(head.value().len())?;
    match front.get(head.value()) {
        Some(bytes) => sealed.expose_secret_mut().copy_from_slice(bytes),
        None => file
            .read_at(sealed.expose_secret_mut(), place.at + head.value().start as u64)
            .map_err(reading())?,
    }
    cipher.open_value(&head, sealed).map_err(|error| match error {
        SealError::Damaged => StoreError::Damaged("value"),
        other => other.into(),
    })
}

/// Read at once: most frames whole, and of every put the head.
const FRONT: usize = 1024;

fn number_of(uuids: &[Uuid]) -> String {
    match uuids.len() {
        1 => "the record of 1 secret".to_owned(),
        many => format!("the records of {many} secrets"),
    }
}

/// Their names, of very many the first ones.
fn names(uuids: &[Uuid]) -> String {
    let named: Vec<String> = uuids.iter().take(NAMED).map(Uuid::to_string).collect();
    let more = if uuids.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", named.join(", "))
}

/// An error names no more secrets than this.
const NAMED: usize = 20;
