//! Holding a log still for a copy, while changes go on.
//!
//! A copy reads frames that were alive at one moment. What dies meanwhile must not be wiped before the copy has it: the
//! wipes are put off until the last copy is done. Compaction needs no such care, as a copy keeps its file, but the wipes
//! in the old file do. Killed in between, the next open wipes what is dead.
//!
//! Leans on `disk`. Refuses to put off without end: a copy that takes too long, in a store that changes too much, is
//! ended, and so is every copy when the store is closed. The keys that a copy needs are kept here for the same reason:
//! they must be gone when the store is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::disk::File;
use super::wipe;
use crate::seal::Keyring;

/// So many dead frames may wait to be wiped: some 30 MB of memory.
const MOST: usize = if cfg!(test) { 512 } else { 1 << 20 };

/// The copies of one log that are under way.
#[derive(Default)]
pub(in crate::store) struct Holds(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// The keyring in force when each copy was begun, by the copy's number.
    keyrings: BTreeMap<u64, Arc<Keyring>>,
    next: u64,
    /// Dead frames: the file, and where in it.
    put_off: Vec<(Arc<dyn File>, u64)>,
}

/// One copy's hold. It ends when this is dropped.
pub(in crate::store) struct Hold {
    holds: Arc<Holds>,
    number: u64,
    /// The process that copies.
    owner: u32,
}

impl Holds {
    /// Puts a wipe off, if a copy is under way.
    pub(super) fn put_off(&self, file: &Arc<dyn File>, frame: u64) -> bool {
        let mut held = self.held();
        if held.keyrings.is_empty() {
            return false;
        }
        if held.put_off.len() >= MOST {
            held.end();
            return false;
        }
        held.put_off.push((Arc::clone(file), frame));
        true
    }

    pub(super) fn end(&self) {
        self.held().end();
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Ends all copies, and wipes. The lock is kept meanwhile: nothing that is put off later may be mixed in.
    fn end(&mut self) {
        self.keyrings.clear();
        for (file, frame) in self.put_off.drain(..) {
            // If it fails now, the next open does it.
            if let Err(error) = wipe(&*file, frame) {
                tracing::warn!(%error, "cannot wipe a record that is no longer in use");
            }
        }
        self.put_off = Vec::new();
    }
}

impl Hold {
    pub(super) fn new(holds: &Arc<Holds>, keyring: Arc<Keyring>) -> Self {
        let mut held = holds.held();
        let number = held.next;
        held.next += 1;
        held.keyrings.insert(number, keyring);
        drop(held);
        Self { holds: Arc::clone(holds), number, owner: std::process::id() }
    }

    /// The keyring that was in force when the copy was begun, if the hold still holds.
    pub(in crate::store) fn keyring(&self) -> Option<Arc<Keyring>> {
        self.holds.held().keyrings.get(&self.number).cloned()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // In a forked child there is nothing to end: the copy is the parent's, and so is the log.
        if self.owner != std::process::id() {
            return;
        }
        let mut held = self.holds.held();
        if held.keyrings.remove(&self.number).is_some() && held.keyrings.is_empty() {
            held.end();
        }
    }
}
