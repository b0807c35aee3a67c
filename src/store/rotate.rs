//! Rotation: every record sealed anew under the key of a new epoch, then the old key let go.
//!
//! It goes in short steps, between which everybody else has the log: [`Store::begin_rotation`],
//! [`Store::rotate_some`] until nothing is left, [`Store::end_rotation`]. How far it is stands in the keyring
//! (several epochs: one is under way) and in the records' generations, so that whoever opens the store next can go
//! on. Leans on `keys` and `tidy`. Refuses to let the old key go while a record is left that only it opens.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use ::uuid::Uuid;

use super::commit::append_failed;
use super::index::{Entry, Place};
use super::log::Log;
use super::{Store, StoreError, read_value};
use crate::administration::Rotation;
use crate::seal::{Frame, Keyring};

/// What this process has still to seal anew.
#[derive(Default)]
pub(super) struct Sweep {
    /// The next ones: where they lay when they were gathered, the nearest last.
    next: Vec<(u64, Uuid)>,
    /// How many there are in all.
    left: usize,
    /// Those that don't open.
    damaged: HashSet<Uuid>,
}

impl Store {
    /// Begins a new epoch, unless a rotation is under way: then it is that one which goes on.
    pub fn begin_rotation(&self, now: u64) -> Result<(), StoreError> {
        self.exclusively(|store, log| {
            if store.is_rotating() {
                return Ok(());
            }
            let generation = log.generation();
            store.change_keyring(log, |keyring| keyring.begin_epoch(now, generation)).map(|_| ())
        })
    }

    /// Whether there are epochs before the current one.
    pub fn is_rotating(&self) -> bool {
        self.keyring().epochs().count() > 1
    }

    /// How far the rotation under way is, if one is.
    pub fn rotation(&self) -> Option<Rotation> {
        let keyring = self.keyring();
        if !self.is_rotating() {
            return None;
        }
        let contents = self.contents();
        let left = contents.index.entries().filter(|(_, entry)| is_old(&keyring, entry.place)).count();
        Some(progress(&keyring, left, contents.index.len()))
    }

    /// Seals the next few records anew, as one batch. Gives how far it is then; `None` if there was nothing left to do.
    ///
    /// Those that don't open are passed over, and named when nothing else is left.
    pub fn rotate_some(&self) -> Result<Option<Rotation>, StoreError> {
        let mut sweep = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        if sweep.next.is_empty() && !self.gather(&mut sweep) {
            let mut damaged: Vec<Uuid> = sweep.damaged.drain().collect();
            damaged.sort_unstable();
            return if damaged.is_empty() { Ok(None) } else { Err(StoreError::Unrotated(damaged)) };
        }
        self.exclusively_in_turn(|store, log| store.seal_anew(log, &mut sweep))?;
        Ok(Some(progress(&self.keyring(), sweep.left, self.len())))
    }

    /// Ends the rotation: writes the log anew, so that nothing of the older epochs is left in it, then a keyring without
    /// their keys. Gives `false` if a record is left to be sealed anew.
    pub fn end_rotation(&self) -> Result<bool, StoreError> {
        let left = self.exclusively(|store, log| {
            if !store.is_rotating() {
                return Ok(Some(None));
            }
            let keyring = store.keyring();
            if store.contents().index.entries().any(|(_, entry)| is_old(&keyring, entry.place)) {
                return Ok(None);
            }
            // A frame that the current key alone doesn't prove stops this here, and the old keys stay.
            let left = store.compact_under(log, &keyring.current_only()?)?;
            store.change_keyring(log, |keyring| {
                keyring.end_older_epochs();
                Ok(())
            })?;
            Ok(Some(Some(left)))
        })?;
        let ended = left.is_some();
        // Writers don't wait for this any more.
        left.flatten().into_iter().for_each(super::tidy::Left::wipe);
        Ok(ended)
    }

    /// Looks for records that are to be sealed anew: some of them, if there are very many. Gives whether there are any.
    fn gather(&self, sweep: &mut Sweep) -> bool {
        let keyring = self.keyring();
        if !self.is_rotating() {
            return false;
        }
        sweep.left = 0;
        let contents = self.contents();
        for (uuid, entry) in contents.index.entries().filter(|(_, entry)| is_old(&keyring, entry.place)) {
            sweep.left += 1;
            if sweep.next.len() < GATHERED && !sweep.damaged.contains(&uuid) {
                sweep.next.push((entry.place.at, uuid));
            }
        }
        drop(contents);
        sweep.next.sort_unstable_by(|one, other| other.cmp(one));
        !sweep.next.is_empty()
    }

    fn seal_anew(&self, log: &mut Log, sweep: &mut Sweep) -> Result<(), StoreError> {
        let keyring = self.keyring();
        let (mut frames, mut bytes, mut entries) = (Vec::new(), 0, Vec::new());
        while frames.len() < STEP
            && bytes < STEP_BYTES
            && let Some((_, uuid)) = sweep.next.pop()
        {
            sweep.left -= 1;
            // It may have been changed or deleted since: then there is nothing to do.
            let entry = self.contents().index.entry(uuid).cloned();
            let Some(entry) = entry.filter(|entry| is_old(&keyring, entry.place)) else { continue };
            match sealed_anew(log, &keyring, uuid, &entry) {
                Ok(frame) => {
                    bytes += frame.bytes.len();
                    frames.push(frame);
                    entries.push((uuid, entry));
                }
                Err(StoreError::Damaged(_)) => {
                    sweep.left += 1;
                    sweep.damaged.insert(uuid);
                }
                Err(error) => return Err(error),
            }
        }
        if frames.is_empty() {
            return Ok(());
        }
        let places = log.append(&frames, keyring.current(), keyring.serial()).map_err(append_failed)?;
        self.write_anchor(log, &keyring);
        let mut dead = Vec::with_capacity(places.len());
        let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
        for ((uuid, entry), place) in entries.into_iter().zip(places) {
            dead.extend(contents.index.put(uuid, Entry { place, ..entry }));
        }
        drop(contents);
        for place in dead {
            log.wipe(place).map_err(StoreError::write("write secrets.log"))?;
        }
        self.writer().unsynced_wipes = true;
        Ok(())
    }
}

fn sealed_anew(log: &mut Log, keyring: &Keyring, uuid: Uuid, entry: &Entry) -> Result<Frame, StoreError> {
    let definition = Arc::clone(entry.definition.as_ref().ok_or(StoreError::Damaged("definition"))?);
    let value = match entry.place.has_value {
        true => Some(read_value(&*log.file(), uuid, entry.place, keyring)?),
        false => None,
    };
    Ok(keyring.current().put(log.next_generation(), &definition, value.as_ref())?)
}

fn progress(keyring: &Keyring, left: usize, total: usize) -> Rotation {
    let (left, total) = (left as u64, total as u64);
    Rotation { epoch: keyring.current().epoch(), done: total.saturating_sub(left), total }
}

/// Whether a record is in an epoch before the current one.
fn is_old(keyring: &Keyring, place: Place) -> bool {
    place.generation <= keyring.epoch_began().1
}

/// So many records are sealed anew at once, or fewer where they are long: everybody else waits that long.
const STEP: usize = if cfg!(any(test, fuzzing)) { 2 } else { 64 };
const STEP_BYTES: usize = 1 << 20;

/// So many are looked for at once: the whole index is gone through each time, and they are held in memory.
const GATHERED: usize = if cfg!(any(test, fuzzing)) { 4 } else { 1 << 16 };
