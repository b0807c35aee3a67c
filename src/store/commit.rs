//! Group commit: many callers' changes in one write and one sync.
//!
//! A change is judged and queued under one lock, against a [`View`] in which changes still under way already hold.
//! Then the first waiter whose turn it is becomes the leader: it takes the log and all that is queued, seals it,
//! appends it as one batch, and wakes the others. There is no thread of our own: a lone writer pays for no hand-over,
//! and a program that exits has nothing to wait for.
//!
//! Leans on `turns` for who has the log, on `log` and `copies`, and leaves what can wait to `tidy`. Refuses
//! everything behind a failed write or sync: see [`StoreError::ReadOnly`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::{self, Thread};

use ::uuid::Uuid;

use super::index::{Entry, Index, Place};
use super::log::{AppendError, Log};
use super::turns::caught;
use super::{Store, StoreError, copies, read_value};
use crate::memory::SecretBytes;
use crate::seal::{Frame, Keyring};
use crate::secret::{Definition, Usage};

/// What shall happen to a secret.
#[derive(Debug)]
pub enum Change {
    /// It is this from now on.
    Put(Arc<Definition>, Value),
    /// It is gone from now on.
    Delete(Uuid),
}

/// What shall happen to a secret's value.
#[derive(Debug)]
pub enum Value {
    /// It stays as it is, or absent if it is.
    Keep,
    /// It is this from now on.
    Set(SecretBytes),
}

impl Change {
    fn uuid(&self) -> Uuid {
        match self {
            Self::Put(definition, _) => definition.uuid,
            Self::Delete(uuid) => *uuid,
        }
    }

    fn definition(&self) -> Option<&Arc<Definition>> {
        match self {
            Self::Put(definition, _) => Some(definition),
            Self::Delete(_) => None,
        }
    }
}

/// The store as it will be once all changes under way are done.
pub struct View<'a> {
    index: &'a Index,
    pending: &'a HashMap<Uuid, Pending>,
}

impl View<'_> {
    /// Whether the secret is there, and its definition. `Some(None)`: it is there, but its definition doesn't open.
    pub fn definition(&self, uuid: Uuid) -> Option<Option<&Arc<Definition>>> {
        match self.pending.get(&uuid) {
            Some(pending) => pending.definition.as_ref().map(Some),
            None => self.index.entry(uuid).map(|entry| entry.definition.as_ref()),
        }
    }

    /// The secret of this usage.
    pub fn owner(&self, usage: &Usage) -> Option<Uuid> {
        let uses = |definition: &Arc<Definition>| definition.usage == *usage;
        let pending = self.pending.iter().find(|(_, pending)| pending.definition.as_ref().is_some_and(uses));
        let settled = || self.index.owner(usage).filter(|uuid| !self.pending.contains_key(uuid));
        pending.map(|(uuid, _)| *uuid).or_else(settled)
    }
}

/// What writers share.
pub(super) struct Writer {
    /// The log; a leader has it while it is `None`.
    pub(super) log: Option<Log>,
    pub(super) queue: Vec<Queued>,
    pending: HashMap<Uuid, Pending>,
    /// Tickets: the next to be given, and the last whose change is settled.
    next: u64,
    settled: u64,
    /// Of the settled, those that failed.
    failed: HashMap<u64, StoreError>,
    /// How many wait for the log without a change of their own.
    pub(super) waiting: usize,
    /// Why nothing is written any more.
    pub(super) stopped: Option<String>,
    /// The place and time of the last commit, while a leader has the log.
    pub(super) standing: (u64, u64),
    /// Copies that aren't durable yet.
    pub(super) unsynced_copies: HashSet<Uuid>,
    /// A copy could not be written: the log must not be called closed in order.
    pub(super) copies_failed: bool,
    /// Dead frames were wiped, and that isn't durable yet.
    pub(super) unsynced_wipes: bool,
}

pub(super) struct Queued {
    ticket: u64,
    change: Change,
    /// Who waits for it. Woken alone: when it is settled, or when it is its turn to lead.
    pub(super) caller: Thread,
}

/// A secret's state once its queued change is done.
struct Pending {
    ticket: u64,
    definition: Option<Arc<Definition>>,
}

impl Writer {
    pub(super) fn new(log: Log, stopped: Option<String>, unsynced_copies: HashSet<Uuid>) -> Self {
        let standing = (log.end(), log.last_commit().0);
        Self {
            log: Some(log),
            queue: Vec::new(),
            pending: HashMap::new(),
            next: 1,
            settled: 0,
            failed: HashMap::new(),
            waiting: 0,
            stopped,
            standing,
            unsynced_copies,
            copies_failed: false,
            unsynced_wipes: false,
        }
    }

    /// The queued changes that can go into one batch: no secret twice, because a change may build on the one before.
    fn take_batch(&mut self) -> Vec<Queued> {
        let mut seen = HashSet::new();
        let len = self.queue.iter().take_while(|queued| seen.insert(queued.change.uuid())).count();
        self.queue.drain(..len).collect()
    }

    /// Settles everything up to `ticket`, and what waits behind a failure too: it was judged by a view that will never be.
    fn settle(
        &mut self,
        batch: &mut Vec<(u64, Thread)>,
        outcome: Result<HashMap<u64, StoreError>, StoreError>,
    ) {
        match outcome {
            Ok(failed) => self.failed.extend(failed),
            Err(error) => {
                batch.extend(self.queue.drain(..).map(|queued| (queued.ticket, queued.caller)));
                self.failed.extend(batch.iter().map(|(ticket, _)| (*ticket, error.again())));
            }
        }
        self.settled = self.settled.max(batch.last().map_or(0, |(ticket, _)| *ticket));
        self.pending.retain(|_, pending| pending.ticket > self.settled);
    }
}

impl Writer {
    /// Fails everything that is queued: it was judged by a view in which a change holds that came to nothing.
    fn abandon(&mut self, callers: &mut Vec<(u64, Thread)>) {
        for queued in self.queue.drain(..) {
            self.failed.insert(queued.ticket, StoreError::Abandoned);
            self.settled = queued.ticket;
            callers.push((queued.ticket, queued.caller));
        }
        self.pending.retain(|_, pending| pending.ticket > self.settled);
    }
}

impl Store {
    /// Judges and makes a change. `judge` sees the store as it will be, and gives the change and what to return; no other
    /// change is judged meanwhile. When this returns `Ok`, the change is durable and visible.
    pub fn update<T, E: From<StoreError>>(
        &self,
        judge: impl FnOnce(&View<'_>) -> Result<(Change, T), E>,
    ) -> Result<T, E> {
        let mut writer = self.writer();
        let (change, result) = {
            let contents = self.contents();
            judge(&View { index: &contents.index, pending: &writer.pending })?
        };
        if let Some(reason) = &writer.stopped {
            return Err(StoreError::ReadOnly(reason.clone()).into());
        }
        let ticket = writer.next;
        writer.next += 1;
        let definition = change.definition().cloned();
        writer.pending.insert(change.uuid(), Pending { ticket, definition });
        writer.queue.push(Queued { ticket, change, caller: thread::current() });
        while writer.settled < ticket {
            writer = match writer.log.take() {
                Some(log) => self.lead(writer, log),
                None => {
                    drop(writer);
                    thread::park();
                    self.writer()
                }
            };
        }
        match writer.failed.remove(&ticket) {
            None => Ok(result),
            Some(error) => Err(error.into()),
        }
    }

    /// Runs `act` while no change is judged: for rules that also concern what is not in the store.
    pub fn with_view<R>(&self, act: impl FnOnce(&View<'_>) -> R) -> R {
        let writer = self.writer();
        let contents = self.contents();
        act(&View { index: &contents.index, pending: &writer.pending })
    }

    /// Writes one batch of what is queued, and settles it.
    fn lead<'a>(&'a self, mut writer: MutexGuard<'a, Writer>, mut log: Log) -> MutexGuard<'a, Writer> {
        let batch = writer.take_batch();
        let stopped = writer.stopped.is_some();
        drop(writer);
        let mut callers: Vec<_> = batch.iter().map(|queued| (queued.ticket, queued.caller.clone())).collect();
        let mut done = Done::default();
        let outcome = if stopped {
            Err(StoreError::ReadOnly("an earlier write failed".into()))
        } else {
            caught(|| self.write_batch(&mut log, batch, &mut done))
        };
        let mut writer = self.writer();
        if let Err(StoreError::Write(doing, error)) = &outcome {
            writer.stopped.get_or_insert_with(|| format!("cannot {doing}: {error}"));
        }
        writer.settle(&mut callers, outcome);
        if done.gave_up.is_some() {
            writer.abandon(&mut callers);
        }
        writer.unsynced_copies.extend(done.copies);
        writer.copies_failed |= done.copies_failed;
        drop(writer);
        callers.iter().for_each(|(_, caller)| caller.unpark());
        // What follows is for later; the callers of this batch are served already.
        let tidied = if done.dead.is_empty() { Ok(()) } else { caught(|| self.tidy(&mut log, &done.dead)) };
        let mut writer = self.writer();
        if let Err(error) = tidied {
            writer.stopped.get_or_insert_with(|| error.to_string());
        }
        writer.unsynced_wipes |= !done.dead.is_empty();
        self.give_back(&mut writer, log);
        writer
    }

    /// Seals and appends a batch, and makes it visible. Gives the changes that failed by themselves.
    fn write_batch(
        &self,
        log: &mut Log,
        batch: Vec<Queued>,
        done: &mut Done,
    ) -> Result<HashMap<u64, StoreError>, StoreError> {
        let keyring = self.keyring();
        let (mut failed, mut frames, mut changes) = (HashMap::new(), Vec::new(), Vec::new());
        for Queued { ticket, change, .. } in batch {
            if let Some(error) = done.gave_up.as_ref() {
                failed.insert(ticket, StoreError::again(error));
                continue;
            }
            match self.seal(log, &keyring, &change) {
                Ok(frame) => {
                    frames.push(frame);
                    changes.push(change);
                }
                Err(error) => {
                    done.gave_up = Some(StoreError::Abandoned);
                    failed.insert(ticket, error);
                }
            }
        }
        if frames.is_empty() {
            return Ok(failed);
        }
        if keyring.copies() {
            self.set_aside(&changes)?;
        }
        let places = log.append(&frames, keyring.current(), keyring.serial()).map_err(append_failed)?;
        self.write_anchor(log, &keyring);
        let mut redefined = Vec::with_capacity(changes.len());
        {
            let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
            for (change, place) in changes.iter().zip(places) {
                let before = contents.index.entry(change.uuid()).and_then(|entry| entry.definition.as_ref());
                redefined.push(before != change.definition());
                done.dead.extend(match change {
                    Change::Put(definition, _) => {
                        let entry = Entry { definition: Some(Arc::clone(definition)), place };
                        contents.index.put(definition.uuid, entry)
                    }
                    Change::Delete(uuid) => contents.index.remove(*uuid),
                });
            }
        }
        if keyring.copies() {
            let redefined = changes.iter().zip(redefined).filter(|(_, redefined)| *redefined);
            redefined.for_each(|(change, _)| self.copy(change, done));
        }
        Ok(failed)
    }

    fn seal(&self, log: &mut Log, keyring: &Keyring, change: &Change) -> Result<Frame, StoreError> {
        let generation = log.next_generation();
        let cipher = keyring.current();
        let (definition, value) = match change {
            Change::Delete(uuid) => return Ok(cipher.delete(generation, *uuid)?),
            Change::Put(definition, Value::Set(value)) => {
                return Ok(cipher.put(generation, definition, Some(value))?);
            }
            Change::Put(definition, Value::Keep) => {
                let entry = self.contents().index.entry(definition.uuid).cloned();
                if entry.as_ref().is_some_and(|entry| entry.definition.is_none()) {
                    return Err(StoreError::Damaged("definition"));
                }
                let place = entry.map(|entry| entry.place).filter(|place| place.has_value);
                let read = |place| read_value(&*log.file(), definition.uuid, place, keyring);
                (definition, place.map(read).transpose()?)
            }
        };
        Ok(cipher.put(generation, definition, value.as_ref())?)
    }

    /// Moves libvirt's definitions out of the way of copies that are about to be written. Before the changes are durable:
    /// after a crash behind them, the next open would take those files for wrong copies.
    fn set_aside(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        for uuid in changes.iter().map(Change::uuid) {
            if foreign.contains(&uuid) {
                copies::set_aside(&*self.disk.etc, uuid)
                    .map_err(StoreError::io("set aside a definition of libvirt's"))?;
                foreign.remove(&uuid);
            }
        }
        Ok(())
    }

    /// Writes or removes a secret's copy. A failure costs the copy alone: the next open writes it.
    fn copy(&self, change: &Change, done: &mut Done) {
        let copied = match change {
            Change::Put(definition, _) => copies::write(&*self.disk.etc, definition),
            Change::Delete(uuid) => copies::remove(&*self.disk.etc, *uuid),
        };
        done.copies.push(change.uuid());
        if let Err(error) = copied {
            done.copies_failed = true;
            tracing::warn!(uuid = %change.uuid(), %error, "cannot write the .xml copy");
        }
    }
}

/// What a batch leaves to be done.
#[derive(Default)]
struct Done {
    dead: Vec<Place>,
    /// A change failed by itself: what was judged behind it must fail too.
    gave_up: Option<StoreError>,
    copies: Vec<Uuid>,
    copies_failed: bool,
}

pub(super) fn append_failed(error: AppendError) -> StoreError {
    match error {
        AppendError::NoSpace(error) => StoreError::NoSpace(error),
        AppendError::Failed(error) => StoreError::Write("write secrets.log".into(), error),
        AppendError::Seal(error) => error.into(),
    }
}
