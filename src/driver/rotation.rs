//! Rotating: when it is due, and the one rotation that goes on while calls are served.
//!
//! It goes step by step, and holds nothing between two steps that a call, or locking the keystore, would wait for.
//! Whoever asks for one while one goes on joins it. Leans on `store` for the steps. Refuses to go on with a locked
//! keystore; what is left is done after unlocking.

use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Driver, failure, now};
use crate::administration::Rotation;
use crate::secret::Error;

/// When a new epoch is due. Nothing but [`status`](Driver::status) comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationPolicy {
    /// After this time.
    pub max_age: Option<Duration>,
    /// After so many writes.
    pub max_writes: Option<u64>,
}

impl Default for RotationPolicy {
    /// A year, or 2^32 writes. Each record has a key of its own, so neither is a bound of the cipher's: it is how much one
    /// key that leaked would open.
    fn default() -> Self {
        Self { max_age: Some(Duration::from_secs(365 * DAY)), max_writes: Some(1 << 32) }
    }
}

impl RotationPolicy {
    /// Why it is time, for an epoch that began then, and has had so many writes.
    pub(super) fn due(self, began: u64, writes: u64, now: u64) -> Option<String> {
        let age = now.saturating_sub(began);
        let what = if self.max_age.is_some_and(|most| age >= most.as_secs()) {
            format!("the data key is {} old", days(age))
        } else if self.max_writes.is_some_and(|most| writes >= most) {
            format!("{writes} writes were sealed under the data key")
        } else {
            return None;
        };
        Some(format!("{what}: begin a new one with: strongroom rotate"))
    }
}

fn days(seconds: u64) -> String {
    match seconds / DAY {
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

const DAY: u64 = 24 * 60 * 60;

/// The rotation that goes on, if one does: for those who join it.
#[derive(Default)]
pub(super) struct Rounds {
    round: Mutex<Round>,
    changed: Condvar,
}

#[derive(Default)]
struct Round {
    running: bool,
    /// How many have ended.
    ended: u64,
    progress: Option<Rotation>,
    /// What the last one came to, for those who joined it.
    failed: Option<Error>,
    /// Why none goes on though one is under way.
    stopped: Option<Error>,
}

impl Driver {
    /// Begins a new epoch, unless a rotation is under way. Gives how far it is.
    pub fn begin_rotation(&self) -> Result<Rotation, Error> {
        let failed = |error| failure::explain(error, &self.root);
        let changing = self.changing();
        let store = self.kept_open(&changing)?;
        store.begin_rotation(now()).map_err(failed)?;
        let mut round = self.rounds.lock();
        if !round.running {
            round.stopped = None; // somebody tries again
        }
        drop(round);
        store.rotation().ok_or_else(failure::rotation_broke_off)
    }

    /// Begins a new epoch, or goes on with one that is under way, and returns when nothing is left of the one before.
    /// Calls go on meanwhile. `watch` is called after each step, with how far it is; when it breaks off, this does too, and
    /// what is left waits for the next call.
    pub fn rotate(&self, watch: &mut dyn FnMut(Rotation) -> ControlFlow<()>) -> Result<(), Error> {
        let mut round = self.rounds.lock();
        if round.running {
            return self.rounds.join(round, watch);
        }
        (round.running, round.progress, round.stopped) = (true, None, None);
        drop(round);
        let mut ending = Ending { rounds: &self.rounds, failed: Some(failure::rotation_broke_off()) };
        let outcome = self.rotate_to_the_end(&mut |progress| {
            self.rounds.lock().progress = Some(progress);
            self.rounds.changed.notify_all();
            watch(progress)
        });
        ending.failed = match &outcome {
            Ok(ControlFlow::Continue(())) => None,
            Ok(ControlFlow::Break(())) => Some(failure::rotation_broke_off()),
            Err(error) => Some(error.clone()),
        };
        outcome.map(|_| ())
    }

    /// Whether a rotation was begun and isn't at its end: something to go on with after a start, or an unlocking.
    pub fn rotation_pending(&self) -> bool {
        self.state().store().is_ok_and(|store| store.is_rotating())
    }

    /// Why the rotation that is under way stands still, if it does.
    pub(super) fn rotation_stopped(&self) -> Option<Error> {
        self.rounds.lock().stopped.clone()
    }

    /// When a new epoch is due.
    pub fn rotation_policy(&self) -> RotationPolicy {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says when a new epoch is due.
    pub fn set_rotation_policy(&self, policy: RotationPolicy) {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    fn rotate_to_the_end(
        &self,
        report: &mut dyn FnMut(Rotation) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        let failed = |error| failure::explain(error, &self.root);
        self.begin_rotation()?;
        loop {
            // For one step only: it may be locked between two.
            let state = self.state();
            let store = state.store().map_err(|_| failure::locked_while_rotating())?;
            if let Some(progress) = store.rotate_some().map_err(failed)? {
                drop(state);
                if report(progress).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                continue;
            }
            drop(state);
            // The end takes longer, and nobody shall wait for `state` meanwhile.
            let changing = self.changing();
            let store = self.kept_open(&changing).map_err(|_| failure::locked_while_rotating())?;
            if store.end_rotation().map_err(failed)? {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }
}

impl Rounds {
    /// Watches the rotation that goes on, to its end.
    fn join<'a>(
        &'a self,
        mut round: MutexGuard<'a, Round>,
        watch: &mut dyn FnMut(Rotation) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let (ended, mut shown) = (round.ended, None);
        while round.ended == ended {
            if round.progress == shown {
                round = self.changed.wait(round).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            shown = round.progress;
            drop(round);
            if shown.is_some_and(|progress| watch(progress).is_break()) {
                return Ok(());
            }
            round = self.lock();
        }
        round.failed.clone().map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the round for all who joined it, however it ends.
struct Ending<'a> {
    rounds: &'a Rounds,
    failed: Option<Error>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut round = self.rounds.lock();
        round.stopped.clone_from(&self.failed);
        (round.running, round.failed) = (false, self.failed.take());
        round.ended += 1;
        self.rounds.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_epoch_is_due_by_age_or_by_writes() {
        let policy = RotationPolicy::default();
        assert_eq!(policy.due(1_000, 5, 1_000 + 365 * DAY - 1), None);
        let due = policy.due(1_000, 5, 1_000 + 366 * DAY).unwrap();
        assert_eq!(due, "the data key is 366 days old: begin a new one with: strongroom rotate");
        assert!(policy.due(1_000, 1 << 32, 1_000).unwrap().starts_with("4294967296 writes"));
        assert_eq!(policy.due(2_000, 0, 1_000), None, "a clock that was set back");
        assert_eq!(RotationPolicy { max_age: None, max_writes: None }.due(0, u64::MAX, u64::MAX), None);
    }
}
