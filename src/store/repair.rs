//! Repairing what is damaged: every record that still opens is kept, and every byte of what was there.
//!
//! The log is written anew, from the records that open, with numbers above all that were seen; the old one gets a
//! second name first. A keyring whose seal doesn't hold is sealed anew, and the `.xml` copies are written as they
//! should be. What is lost is named by what the open store knew, or by the copies that are left. The anchor needs no
//! care: to it the new log is a compacted one.
//!
//! Leans on `log`, `kept` and `copies`. Refuses to touch a log of a newer version, of another store, or that was
//! sealed under a key which the keyring doesn't have; and to accept an older log that nothing else is wrong with.
//! Deletes nothing but copies of secrets that were deleted or are kept aside, and changes nothing where nothing is
//! wrong.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;

use ::uuid::Uuid;

use super::anchor::{Anchor, Found};
use super::copies::{self, Foreign};
use super::disk::{Directory, Failing, File, read_whole};
use super::kept::Kept;
use super::log::{AnchorSeen, LOG, LOG_NEW, Log, Salvaged, lacking};
use super::open::{KEYRING, rolled_back, write_keyring};
use super::restore::{has, roll_forward};
use super::{Disk, Store, StoreError};
use crate::administration::{Finding, Lost, RecordState, Repaired, usage_in_words};
use crate::seal::{Keyring, MAX_KEYRING};
use crate::secret::Definition;

/// What an open store knew of its secrets.
#[derive(Debug, Default)]
pub struct Known {
    secrets: Vec<(Uuid, Option<Arc<Definition>>)>,
    /// Those of which a definition of libvirt's is here, and that aren't in the store.
    foreign: HashSet<Uuid>,
}

impl Store {
    /// What it knows: for a repair behind its closing.
    pub fn known(&self) -> Known {
        let contents = self.contents();
        let secrets = contents.index.entries().map(|(uuid, entry)| (uuid, entry.definition.clone()));
        let foreign = self.foreign.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        Known { secrets: secrets.collect(), foreign }
    }
}

/// Repairs the store on this disk, which must not be open. Durable when this returns.
pub fn repair(disk: &Disk, keyring: &Keyring, known: &Known) -> Result<Repaired, StoreError> {
    roll_forward(disk)?;
    let etc = &*disk.etc;
    let anchor =
        match Anchor::read(&*disk.run, keyring).map_err(StoreError::io("read the rollback anchor"))? {
            Found::Anchor(anchor) => Some(anchor),
            Found::None | Found::Unreadable => None,
            Found::OtherStore => return Err(StoreError::OtherStore),
        };
    let file: Option<Arc<dyn File>> = match etc.open(LOG) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(StoreError::Io("open secrets.log".into(), error)),
    };
    let is_missing = file.is_none();
    let file = Failing::new(file.unwrap_or_else(|| Arc::new(Nothing)));
    let point = anchor.as_ref().map(|anchor| (anchor.generation, anchor.chain));
    let salvaged = Log::salvage(&file, keyring, point)?;
    let seen = salvaged.keyring_seen.max(anchor.as_ref().map_or(0, |anchor| anchor.keyring));
    if keyring.serial() < seen {
        return Err(StoreError::KeyringRolledBack { found: keyring.serial(), seen });
    }
    if let Some(&(epoch, records)) =
        lacking(&file, keyring).map_err(StoreError::io("read secrets.log"))?.last()
    {
        return Err(StoreError::EpochMissing { epoch, records });
    }
    let is_damaged = is_missing || file.met() || !salvaged.damage.is_empty() || salvaged.last_commit == 0;
    let is_another = matches!(salvaged.anchor, AnchorSeen::Beyond | AnchorSeen::Other);
    if is_another && !is_damaged {
        let seen = anchor.map_or(0, |anchor| anchor.generation);
        return Err(rolled_back(salvaged.anchor, salvaged.last_commit, seen));
    }
    let kept = Kept::among(&file, keyring, salvaged.index.entries())?;
    let is_sound = kept.checked.iter().all(|checked| checked.state.is_sound());
    let log_is_wrong = is_damaged || file.met() || !is_sound;
    let keyring_is_wrong = !keyring_is_right(disk, keyring)?;
    let mut repaired = Repaired {
        kept: kept.sound(),
        without_value: kept.those(RecordState::ValueDamaged),
        lost: Vec::new(),
        unnamed: 0,
        aside: Vec::new(),
        copies: 0,
        findings: findings(&salvaged, &kept, anchor.as_ref()),
    };
    let (there, others) = copies::names(etc).map_err(StoreError::io("list etc/secrets"))?;
    let beside = Foreign::among(&others);
    let number = free_number(&others);
    if keyring_is_wrong {
        repaired.findings.insert(0, Finding::KeyringDamaged);
        keep_aside(etc, KEYRING, number, &mut repaired.aside)?;
        write_keyring(disk, &keyring.encode()?)?;
    }
    if log_is_wrong {
        let mut lost = Losses { etc, there: &there, beside: &beside, known };
        repaired.lost = lost.named(&salvaged, &kept);
        let missed = salvaged.damage.iter().map(|damage| damage.frames.0.saturating_sub(damage.frames.1));
        let gone = repaired.lost.iter().filter(|lost| salvaged.index.entry(lost.uuid).is_none());
        repaired.unnamed = missed.sum::<usize>().saturating_sub(gone.count());
        repaired.aside.extend(lost.keep_copies(&repaired.lost)?);
        let generation = salvaged.generation.max(anchor.map_or(0, |anchor| anchor.generation));
        kept.write(etc, LOG_NEW, &file, keyring, generation)?;
        keep_aside(etc, LOG, number, &mut repaired.aside)?;
        etc.rename(LOG_NEW, LOG)
            .and_then(|()| etc.sync())
            .map_err(StoreError::write("put the repaired secrets.log in place"))?;
    }
    if keyring.copies() {
        repaired.copies = mend_copies(etc, there, &beside, &salvaged, known, &repaired.lost)?;
    }
    repaired.aside.sort_unstable();
    Ok(repaired)
}

/// What is wrong with a log.
fn findings(salvaged: &Salvaged, kept: &Kept, anchor: Option<&Anchor>) -> Vec<Finding> {
    let damage = salvaged.damage.iter().map(|damage| {
        let (from, to, (expected, found)) = (damage.bytes.start, damage.bytes.end, damage.frames);
        Finding::LogDamaged { from, to, expected, found }
    });
    let older = anchor.filter(|_| salvaged.anchor == AnchorSeen::Beyond);
    let older =
        older.map(|anchor| Finding::RolledBack { generation: salvaged.last_commit, seen: anchor.generation });
    let records = kept.checked.iter().filter_map(|checked| match checked.state {
        RecordState::DefinitionDamaged => Some(Finding::DefinitionDamaged { uuid: checked.uuid }),
        RecordState::ValueDamaged => Some(Finding::ValueDamaged { uuid: checked.uuid }),
        _ => None,
    });
    damage.chain(older).chain(records).collect()
}

/// Whether the keyring on disk is this one.
pub fn keyring_is_right(disk: &Disk, keyring: &Keyring) -> Result<bool, StoreError> {
    let right = keyring.encode()?;
    match disk.etc.open(KEYRING).and_then(|file| read_whole(&*file, MAX_KEYRING)) {
        Ok(bytes) => Ok(bytes == right),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge) => {
            Ok(false)
        }
        Err(error) => Err(StoreError::Io("read the keyring".into(), error)),
    }
}

/// Naming what is lost.
struct Losses<'a> {
    etc: &'a dyn Directory,
    /// The secrets that have a copy, in order.
    there: &'a [Uuid],
    beside: &'a Foreign,
    known: &'a Known,
}

impl Losses<'_> {
    /// The secrets that were here, and don't open.
    fn named(&self, salvaged: &Salvaged, kept: &Kept) -> Vec<Lost> {
        let deleted: HashSet<&Uuid> = salvaged.deleted.iter().collect();
        let is_gone = |uuid: &Uuid| salvaged.index.entry(*uuid).is_none();
        let mut lost = BTreeMap::new();
        for (uuid, definition) in self.known.secrets.iter().filter(|(uuid, _)| is_gone(uuid)) {
            lost.insert(*uuid, definition.as_ref().map(|definition| usage_in_words(&definition.usage)));
        }
        let orphans = self.there.iter().filter(|uuid| is_gone(uuid) && !deleted.contains(uuid));
        for uuid in orphans.filter(|uuid| self.is_ours(**uuid)) {
            lost.entry(*uuid).or_insert(None);
        }
        lost.extend(kept.those(RecordState::DefinitionDamaged).into_iter().map(|lost| (lost.uuid, None)));
        let known: HashMap<_, _> = self.known.secrets.iter().map(|(uuid, known)| (*uuid, known)).collect();
        let known = |uuid| known.get(&uuid).copied()?.as_ref();
        lost.into_iter()
            .map(|(uuid, usage)| {
                let usage = usage.or_else(|| known(uuid).map(|known| usage_in_words(&known.usage)));
                Lost { uuid, usage: usage.or_else(|| self.usage_in_copy(uuid)) }
            })
            .collect()
    }

    /// Whether the definition that lies there is a copy of ours, as far as can be told.
    fn is_ours(&self, uuid: Uuid) -> bool {
        !self.known.foreign.contains(&uuid) && !self.beside.has_definition(uuid)
    }

    fn usage_in_copy(&self, uuid: Uuid) -> Option<String> {
        if !self.is_ours(uuid) {
            return None;
        }
        let bytes = self.etc.open(&copies::name(uuid)).and_then(|file| read_whole(&*file, copies::MAX_COPY));
        let definition = Definition::from_xml(&bytes.ok()?, false).ok()?;
        (definition.uuid == uuid).then(|| usage_in_words(&definition.usage))
    }

    /// Keeps the copies of lost secrets under another name. Before the log that misses them takes its place: until then
    /// they say what was lost.
    fn keep_copies(&mut self, lost: &[Lost]) -> Result<Vec<String>, StoreError> {
        let mut aside = Vec::new();
        for Lost { uuid, .. } in lost {
            if self.there.binary_search(uuid).is_err() || !self.is_ours(*uuid) {
                continue;
            }
            let (name, other) = (copies::name(*uuid), lost_name(*uuid));
            match self.etc.link(&name, &other) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(StoreError::Io(format!("keep {name} aside"), error));
                }
                _ => aside.push(other),
            }
        }
        Ok(aside)
    }
}

/// Writes the copies that are missing or wrong, and removes those of secrets that are not here. Gives how many it wrote.
fn mend_copies(
    etc: &dyn Directory,
    there: Vec<Uuid>,
    beside: &Foreign,
    salvaged: &Salvaged,
    known: &Known,
    lost: &[Lost],
) -> Result<usize, StoreError> {
    let writing = || StoreError::io("write the .xml copies");
    let deleted: HashSet<&Uuid> = salvaged.deleted.iter().collect();
    let lost: HashSet<Uuid> = lost.iter().map(|lost| lost.uuid).collect();
    let kept_aside = |uuid| lost.contains(&uuid) && has(etc, &lost_name(uuid)).unwrap_or(false);
    for uuid in &there {
        let is_foreign = beside.has_definition(*uuid) || known.foreign.contains(uuid);
        if !is_foreign && (deleted.contains(uuid) || kept_aside(*uuid)) {
            copies::remove(etc, *uuid).map_err(writing())?;
        }
    }
    let difference = copies::difference(etc, there, &salvaged.index, true);
    let mut written = Vec::new();
    for uuid in difference.missing.into_iter().chain(difference.wrong) {
        let Some(definition) = salvaged.index.entry(uuid).and_then(|entry| entry.definition.as_ref()) else {
            continue;
        };
        if beside.has_definition(uuid) {
            copies::set_aside(etc, uuid).map_err(writing())?;
        }
        copies::write(etc, definition).map_err(writing())?;
        written.push(uuid);
    }
    let count = written.len();
    if count > 0 || !lost.is_empty() {
        copies::sync(etc, written.into_iter()).map_err(writing())?;
    }
    Ok(count)
}

/// Gives a file a second name, durably: what takes its place then doesn't delete it.
fn keep_aside(
    etc: &dyn Directory,
    name: &str,
    number: u32,
    aside: &mut Vec<String>,
) -> Result<(), StoreError> {
    let other = format!("{name}.damaged-{number}");
    match etc.link(name, &other).and_then(|()| etc.sync()) {
        Ok(()) => aside.push(other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::Io(format!("keep {name} aside"), error)),
    }
    Ok(())
}

/// The first number under which neither keyring nor log was kept aside.
fn free_number(names: &[String]) -> u32 {
    let taken = |number: &u32| {
        names.iter().any(|name| [KEYRING, LOG].iter().any(|file| *name == format!("{file}.damaged-{number}")))
    };
    (1..).find(|number| !taken(number)).unwrap_or(u32::MAX)
}

fn lost_name(uuid: Uuid) -> String {
    format!("{}.lost", copies::name(uuid))
}

/// A log that isn't there.
struct Nothing;

impl File for Nothing {
    fn size(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, bytes: &mut [u8], _at: u64) -> io::Result<()> {
        if bytes.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn write_at(&self, _bytes: &[u8], _at: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
