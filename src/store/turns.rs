//! Whose turn it is to have the log: it is passed from hand to hand, and nobody holds a lock while writing.
//!
//! Leans on [`Writer`](super::commit::Writer), in which it lies while nobody has it. Refuses to let a panic keep the
//! log from all others, and to write anything behind a failed write.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{MutexGuard, PoisonError};

use super::commit::Writer;
use super::log::Log;
use super::{Store, StoreError, copies};

impl Store {
    /// Runs `act` on the log while nobody writes. A [`StoreError::Write`] stops the store.
    pub(super) fn exclusively<T>(
        &self,
        act: impl FnOnce(&Self, &mut Log) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with_log(self.take_log(), act)
    }

    /// The same for who comes again and again: whoever waits for the log already goes first.
    pub(super) fn exclusively_in_turn<T>(
        &self,
        act: impl FnOnce(&Self, &mut Log) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = self.writer();
        if !writer.queue.is_empty() || writer.waiting > 0 {
            // Whose turn it is was woken, and gives the log back in the end: once, and we take part again.
            writer.waiting += 1;
            writer = self.turn.wait(writer).unwrap_or_else(PoisonError::into_inner);
            writer.waiting -= 1;
        }
        drop(writer);
        self.with_log(self.take_log(), act)
    }

    fn with_log<T>(
        &self,
        (mut writer, mut log): (MutexGuard<'_, Writer>, Log),
        act: impl FnOnce(&Self, &mut Log) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(reason) = writer.stopped.clone() {
            self.give_back(&mut writer, log);
            return Err(StoreError::ReadOnly(reason));
        }
        drop(writer);
        let result = caught(|| act(self, &mut log));
        let mut writer = self.writer();
        if let Err(StoreError::Write(doing, error)) = &result {
            writer.stopped = Some(format!("cannot {doing}: {error}"));
        }
        self.give_back(&mut writer, log);
        result
    }

    /// Runs `act` while nobody writes, stopped or not.
    pub(super) fn while_quiet<T>(
        &self,
        act: impl FnOnce(&Log) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (writer, log) = self.take_log();
        drop(writer);
        let result = caught(|| act(&log));
        self.give_back(&mut self.writer(), log);
        result
    }

    /// Where the log ends, the last commit's generation, and why nothing is written any more.
    pub(super) fn log_standing(&self) -> (u64, u64, Option<String>) {
        let writer = self.writer();
        (writer.standing.0, writer.standing.1, writer.stopped.clone())
    }

    /// Leaves the log closed in order, so that the next open is quick. Nothing is lost if this fails.
    pub(super) fn close(&self) {
        // A forked child's copy of the store is not its to close.
        if self.owner != std::process::id() {
            return;
        }
        let mut writer = self.writer();
        let Some(mut log) = writer.log.take() else { return };
        log.end_holds();
        let copies_synced = !writer.copies_failed
            && (writer.unsynced_copies.is_empty()
                || copies::sync(&*self.disk.etc, writer.unsynced_copies.drain()).is_ok());
        if writer.stopped.is_none() && copies_synced {
            let keyring = self.keyring();
            _ = log.close(keyring.current(), keyring.serial());
        }
        if writer.stopped.is_none() && writer.unsynced_wipes {
            _ = log.sync();
        }
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody has the log, and takes it.
    fn take_log(&self) -> (MutexGuard<'_, Writer>, Log) {
        let mut writer = self.writer();
        loop {
            match writer.log.take() {
                Some(log) => return (writer, log),
                None => {
                    writer.waiting += 1;
                    writer = self.turn.wait(writer).unwrap_or_else(PoisonError::into_inner);
                    writer.waiting -= 1;
                }
            }
        }
    }

    pub(super) fn give_back(&self, writer: &mut Writer, log: Log) {
        writer.standing = (log.end(), log.last_commit().0);
        writer.log = Some(log);
        if let Some(next) = writer.queue.first() {
            next.caller.unpark();
        }
        if writer.waiting > 0 {
            self.turn.notify_one();
        }
    }
}

/// Runs what has the log. A panic in it must not keep the log from all others for ever: it becomes a failed write, behind
/// which nothing is written any more.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StoreError::Write("finish a change".into(), std::io::Error::other("the program panicked in it")))
    })
}
