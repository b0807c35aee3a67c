//! Making a store, and opening one: from the files to an index, with everything that can be wrong on the way.
//!
//! A new store's log is written before its keyring, so that a keyring always has a log beside it, and a log with nothing
//! in it and no keyring is an unfinished beginning. Opening reads the log, holds it against the anchor, sets a torn tail
//! aside, wipes what should have been wiped, and mends the `.xml` copies.
//!
//! Leans on `log` and `anchor`. Refuses to open a store that was rolled back; opens a damaged one for reading, and
//! changes nothing in it.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Condvar, Mutex, RwLock};

use ::uuid::Uuid;

use super::anchor::{ANCHOR, Anchor, Found};
use super::commit::Writer;
use super::copies::{self, Foreign};
use super::disk::{ReplaceError, read_whole, replace};
use super::index::Entry;
use super::log::{AnchorSeen, LOG, Log, Recovered, Tail, Unreadable, lacking};
use super::restore::roll_forward;
use super::{Contents, Disk, Finding, Store, StoreError};
use crate::seal::{HEAD_LEN, Head, Keyring, Kind, LockedKeyring, MAX_KEYRING, Opened};

/// The keyring's name in `etc/secrets`.
pub const KEYRING: &str = "keyring";

/// A tail longer than this is not kept aside whole: no batch is.
const MAX_TAIL: u64 = 64 << 20;

/// Reads the keyring, if there is one. What it says of itself is not proved before it is unlocked. A restoring that a crash
/// interrupted is finished first.
pub fn read_keyring(disk: &Disk) -> Result<Option<LockedKeyring>, StoreError> {
    roll_forward(disk)?;
    match disk.etc.open(KEYRING).and_then(|file| read_whole(&*file, MAX_KEYRING)) {
        Ok(bytes) => Ok(Some(LockedKeyring::parse(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::Io("read the keyring".into(), error)),
    }
}

pub(super) fn write_keyring(disk: &Disk, bytes: &[u8]) -> Result<(), StoreError> {
    replaced("write the keyring", replace(&*disk.etc, KEYRING, bytes))
}

pub(super) fn replaced(doing: &str, outcome: Result<(), ReplaceError>) -> Result<(), StoreError> {
    outcome.map_err(|error| match error {
        ReplaceError::Unchanged(error) => StoreError::Io(doing.into(), error),
        ReplaceError::Unknown(error) => StoreError::Write(doing.into(), error),
    })
}

impl From<Unreadable> for StoreError {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::Io(error) => Self::Io("read secrets.log".into(), error),
            Unreadable::Newer(format) => Self::LogNewer(format),
            other => Self::LogUnreadable(other.to_string()),
        }
    }
}

impl Store {
    /// Makes a new store under this keyring: durable when this returns. Refuses where a store was, or is in part.
    pub fn create(disk: &Disk, keyring: &Keyring) -> Result<(), StoreError> {
        may_create(disk)?;
        let log = Log::first_bytes(keyring.current(), keyring.serial())?;
        replaced("write secrets.log", replace(&*disk.etc, LOG, &log))?;
        write_keyring(disk, &keyring.encode()?)
    }

    /// Opens a store with its unlocked keyring.
    pub fn open(disk: Disk, opened: Opened) -> Result<Self, StoreError> {
        let Opened { keyring, sound, .. } = opened;
        let mut findings = Vec::new();
        let mut trouble = None;
        if !sound {
            findings.push(Finding::KeyringDamaged);
            trouble = Some("the keyring is damaged".to_owned());
        }
        let anchor =
            match Anchor::read(&*disk.run, &keyring).map_err(StoreError::io("read the rollback anchor"))? {
                Found::Anchor(anchor) => Some(anchor),
                Found::None => None,
                Found::Unreadable => {
                    findings.push(Finding::AnchorUnreadable);
                    None
                }
                Found::OtherStore => {
                    return Err(StoreError::OtherStore);
                }
            };
        let file = disk.etc.open(LOG).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::LogMissing,
            _ => StoreError::Io("open secrets.log".into(), error),
        })?;
        let point = anchor.as_ref().map(|anchor| (anchor.generation, anchor.chain));
        let mut recovered = match Log::recover(Arc::clone(&file), &keyring, point) {
            Err(nothing @ Unreadable::Nothing) => {
                check_epochs(&*file, &keyring)?;
                return Err(nothing.into());
            }
            recovered => recovered?,
        };
        check_serial(&keyring, &recovered, anchor.as_ref())?;
        if recovered.tail.is_some() || !recovered.damage.is_empty() {
            check_epochs(&*file, &keyring)?;
        }
        for damage in &recovered.damage {
            let (expected, found) = damage.frames;
            let (from, to) = (damage.bytes.start, damage.bytes.end);
            findings.push(Finding::LogDamaged { from, to, expected, found });
            trouble.get_or_insert_with(|| "secrets.log is damaged".to_owned());
        }
        if let Some(anchor) = &anchor {
            trouble = check_anchor(anchor, &mut recovered, &keyring, &mut findings)?.or(trouble);
        }
        let foreign = HashSet::new();
        let mut opening = Opening { disk, keyring, recovered, findings, trouble, foreign };
        opening.note_damaged_definitions();
        let unsynced_copies = match opening.trouble {
            Some(_) => HashSet::new(),
            None => match opening.mend() {
                // What can't be brought into order is left as it is, and served.
                Err(StoreError::Io(doing, error)) => {
                    opening.trouble = Some(format!("cannot {doing}: {error}"));
                    HashSet::new()
                }
                mended => mended?,
            },
        };
        Ok(opening.finish(unsynced_copies))
    }
}

/// A store between reading and serving.
struct Opening {
    disk: Disk,
    keyring: Keyring,
    recovered: Recovered,
    findings: Vec<Finding>,
    trouble: Option<String>,
    foreign: HashSet<Uuid>,
}

impl Opening {
    fn note_damaged_definitions(&mut self) {
        let damaged = self.recovered.index.entries().filter(|(_, entry)| entry.definition.is_none());
        self.findings.extend(damaged.map(|(uuid, _)| Finding::DefinitionDamaged { uuid }));
    }

    /// Brings the disk into order: everything that a crash may have left half done.
    fn mend(&mut self) -> Result<HashSet<Uuid>, StoreError> {
        let in_order = self.recovered.log.is_closed() && self.recovered.tail.is_none();
        if !in_order || !self.in_step() {
            // A killed process may have left complete what is not durable yet, names included. It has to be before what it
            // replaces is wiped, and before anything is built on it.
            self.recovered.log.sync().map_err(StoreError::write("sync secrets.log"))?;
            self.disk.etc.sync().map_err(StoreError::write("sync etc/secrets"))?;
        }
        if let Some(tail) = self.recovered.tail.take() {
            let kept_as = self.keep_tail(&tail)?;
            self.findings.push(finding_of(&tail, Some(kept_as)));
            self.recovered.log.cut_tail(&tail).map_err(StoreError::write("cut secrets.log"))?;
        }
        let (copies, others) = copies::names(&*self.disk.etc).map_err(StoreError::io("list etc/secrets"))?;
        self.sweep(&others);
        let beside = Foreign::among(&others);
        self.note_foreign(&copies, &others, |uuid| in_order || beside.has_definition(uuid));
        for place in std::mem::take(&mut self.recovered.unwiped) {
            self.recovered.log.wipe(place).map_err(StoreError::write("write secrets.log"))?;
        }
        if !in_order || self.recovered.keyring_seen < self.keyring.serial() {
            // From here on the last batch has a commit behind it: damage to it is told apart from a torn write. And the log
            // states this keyring's serial, which a crash, or a restored keyring, may have left unsaid.
            let sealed = self.recovered.log.append(&[], self.keyring.current(), self.keyring.serial());
            if let Err(super::log::AppendError::Failed(error)) = sealed {
                return Err(StoreError::Write("write secrets.log".into(), error));
            }
        }
        if !self.keyring.copies() {
            return Ok(HashSet::new());
        }
        let touched = self.mend_copies(copies, &beside, !in_order);
        if in_order {
            return Ok(touched);
        }
        // Copies from before the crash may be right and yet not durable. Without this the next close couldn't say so.
        self.disk.etc.sync_all().map_err(StoreError::write("sync the .xml copies"))?;
        Ok(HashSet::new())
    }

    /// Whether log, keyring and anchor are as the last one to use them left them.
    fn in_step(&self) -> bool {
        self.recovered.anchor == AnchorSeen::Same && self.recovered.keyring_seen == self.keyring.serial()
    }

    /// Names what libvirt's own driver left here: it stays as it is, and nothing of it is in the store. A definition of a
    /// secret that was deleted is our copy only where a crash may have kept it; `or_libvirts` tells.
    fn note_foreign(&mut self, copies: &[Uuid], others: &[String], or_libvirts: impl Fn(Uuid) -> bool) {
        let index = &self.recovered.index;
        let deleted: HashSet<&Uuid> = self.recovered.deleted.iter().collect();
        let unknown = copies.iter().filter(|uuid| index.entry(**uuid).is_none());
        let foreign = unknown.filter(|uuid| !deleted.contains(uuid) || or_libvirts(**uuid));
        self.foreign.extend(foreign);
        let mut files: Vec<String> = self.foreign.iter().copied().map(copies::name).collect();
        files.extend(others.iter().filter(|name| copies::is_value(name)).cloned());
        files.sort_unstable();
        self.findings.extend(files.into_iter().map(|file| Finding::Orphan { file }));
    }

    /// Removes files that were to take another's place when a crash came. What can't be removed now is in nobody's way.
    fn sweep(&self, names: &[String]) {
        let is_known =
            |uuid| self.recovered.index.entry(uuid).is_some() || self.recovered.deleted.contains(&uuid);
        let ours = |name: &str| {
            name.starts_with(KEYRING) || name.starts_with(LOG) || copies::uuid_of(name).is_some_and(is_known)
        };
        for name in names.iter().filter(|name| name.strip_suffix(".new").is_some_and(ours)) {
            _ = self.disk.etc.remove(name);
        }
    }

    /// Writes the copies that are missing or, if contents are compared, wrong; removes those of deleted secrets.
    fn mend_copies(&mut self, there: Vec<Uuid>, beside: &Foreign, contents: bool) -> HashSet<Uuid> {
        let etc = &*self.disk.etc;
        let index = &self.recovered.index;
        let difference = copies::difference(etc, there, index, contents);
        let mut touched = HashSet::new();
        for uuid in difference.missing.into_iter().chain(difference.wrong) {
            let Some(definition) = index.entry(uuid).and_then(|entry| entry.definition.as_ref()) else {
                continue;
            };
            let aside = if beside.has_definition(uuid) { copies::set_aside(etc, uuid) } else { Ok(()) };
            let rebuilt = aside.and_then(|()| copies::write(etc, definition)).is_ok();
            touched.insert(uuid);
            self.findings.push(Finding::CopyDiffers { uuid, rebuilt });
        }
        for uuid in difference.orphans.into_iter().filter(|uuid| !self.foreign.contains(uuid)) {
            _ = copies::remove(etc, uuid);
        }
        touched
    }

    /// Keeps a torn tail's bytes in a file of their own: they may be all that is left of something.
    fn keep_tail(&self, tail: &Tail) -> Result<String, StoreError> {
        let doing = "set aside the unfinished end of secrets.log";
        let len = usize::try_from((tail.bytes.end - tail.bytes.start).min(MAX_TAIL)).unwrap_or(0);
        let mut bytes = vec![0; len];
        let file = self.recovered.log.file();
        file.read_at(&mut bytes, tail.bytes.start).map_err(StoreError::io(doing))?;
        bytes.truncate(bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
        let generation = self.recovered.log.last_commit().0;
        let name = format!("{LOG}.torn-{generation}");
        replaced(doing, replace(&*self.disk.etc, &name, &bytes))?;
        Ok(name)
    }

    fn finish(self, unsynced_copies: HashSet<Uuid>) -> Store {
        let Self { disk, keyring, recovered, findings, trouble, foreign } = self;
        let contents = Contents { index: recovered.index, file: recovered.log.file() };
        let read_only = trouble.is_some();
        let in_step = recovered.anchor == AnchorSeen::Same;
        let stale = !recovered.log.is_closed();
        let store = Store {
            disk,
            keyring: RwLock::new(Arc::new(keyring)),
            contents: RwLock::new(contents),
            writer: Mutex::new(Writer::new(recovered.log, trouble, unsynced_copies)),
            turn: Condvar::new(),
            anchor: Mutex::new(None),
            sweep: Mutex::default(),
            findings,
            foreign: Mutex::new(foreign),
            owner: std::process::id(),
        };
        if !read_only && (stale || !in_step) {
            _ = store.exclusively(|store, log| {
                // The anchor is never ahead of what is durable, and the commit that closed the log may not be.
                log.sync().map_err(StoreError::write("sync secrets.log"))?;
                store.write_anchor(log, &store.keyring());
                Ok(())
            });
        }
        store
    }
}

/// An older keyring than one that was in force has slots that were removed since.
fn check_serial(keyring: &Keyring, recovered: &Recovered, anchor: Option<&Anchor>) -> Result<(), StoreError> {
    let seen = recovered.keyring_seen.max(anchor.map_or(0, |anchor| anchor.keyring));
    if keyring.serial() < seen {
        return Err(StoreError::KeyringRolledBack { found: keyring.serial(), seen });
    }
    Ok(())
}

/// What doesn't prove itself may be newer than the keyring: sealed since, under a key that an older copy of it doesn't have.
fn check_epochs(log: &dyn super::File, keyring: &Keyring) -> Result<(), StoreError> {
    let lacking = lacking(log, keyring).map_err(StoreError::io("read secrets.log"))?;
    match lacking.last() {
        Some(&(epoch, records)) if epoch >= keyring.current().epoch() => {
            Err(StoreError::EpochMissing { epoch, records })
        }
        _ => Ok(()),
    }
}

/// Holds the log against the anchor. Gives why the store takes no changes, if that is what comes of it.
fn check_anchor(
    anchor: &Anchor,
    recovered: &mut Recovered,
    keyring: &Keyring,
    findings: &mut Vec<Finding>,
) -> Result<Option<String>, StoreError> {
    let (generation, seen) = (recovered.log.last_commit().0, anchor.generation);
    let damaged = !recovered.damage.is_empty();
    match recovered.anchor {
        AnchorSeen::None | AnchorSeen::Same | AnchorSeen::Compacted => return Ok(None),
        // The anchor's commit may lie in the damaged part; what is there was named already.
        AnchorSeen::Other if damaged => return Ok(None),
        AnchorSeen::Other => {
            return Err(rolled_back(recovered.anchor, generation, seen));
        }
        AnchorSeen::Beyond => {}
    }
    let Some(tail) = recovered.tail.take().filter(|tail| tail.proved) else {
        return Err(rolled_back(recovered.anchor, generation, seen));
    };
    // What is behind the last good commit was acknowledged, so it is damaged and not torn. Frames in it that prove
    // themselves hold: they are newer than anything before.
    for &(uuid, kind, place) in &tail.frames {
        if place.generation >= seen {
            continue;
        }
        match kind {
            Kind::Delete => _ = recovered.index.remove(uuid),
            _ => {
                let definition = open_definition(&recovered.log, keyring, place)?.map(Arc::new);
                recovered.index.put(uuid, Entry { definition, place });
            }
        }
    }
    findings.push(finding_of(&tail, None));
    findings.push(Finding::RolledBack { generation, seen });
    Ok(Some("the end of secrets.log is damaged".to_owned()))
}

/// A log that ends at `generation`, and isn't the one of which this host has seen `seen`.
pub(super) fn rolled_back(anchor: AnchorSeen, generation: u64, seen: u64) -> StoreError {
    StoreError::RolledBack(match anchor {
        AnchorSeen::Other => format!("its history differs from the one seen at generation {seen}"),
        _ => format!("its log ends at generation {generation}, but {seen} was acknowledged on this host"),
    })
}

fn open_definition(
    log: &Log,
    keyring: &Keyring,
    place: super::index::Place,
) -> Result<Option<crate::secret::Definition>, StoreError> {
    let mut frame = vec![0; place.frame_len as usize];
    log.file().read_at(&mut frame, place.at).map_err(StoreError::io("read secrets.log"))?;
    let head = frame.first_chunk::<HEAD_LEN>().and_then(|head| Head::decode(head).ok());
    Ok(head.and_then(|head| {
        let sealed = frame.get_mut(head.definition())?;
        keyring.cipher(head.epoch)?.open_definition(&head, sealed).ok()
    }))
}

pub(super) fn finding_of(tail: &Tail, kept_as: Option<String>) -> Finding {
    let (from, len) = (tail.bytes.start, tail.bytes.end - tail.bytes.start);
    Finding::TornTail { from, len, secrets: tail.frames.iter().map(|(uuid, ..)| *uuid).collect(), kept_as }
}

/// Whether a new store may be made: not where one was, or is in part. Its keys may yet be put back.
pub fn may_create(disk: &Disk) -> Result<(), StoreError> {
    roll_forward(disk)?;
    let size_of = |file: Arc<dyn super::File>| file.size();
    let found = |directory: &dyn super::Directory, name: &str| match directory.open(name).and_then(size_of) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        found => found.map_err(StoreError::io(format!("read {name}"))),
    };
    // A log with one commit and nothing else is what an unfinished beginning leaves.
    if found(&*disk.etc, LOG)? > HEAD_LEN as u64 {
        return Err(StoreError::KeyringMissing);
    }
    if found(&*disk.run, ANCHOR)? > 0 {
        return Err(StoreError::Gone);
    }
    Ok(())
}
