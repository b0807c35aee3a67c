//! The threads that calls run on, as administration sees them.
//!
//! libvirt has a pool of workers for each server. Here the reactor's threads, which never wait, answer most calls of both
//! servers; a call that may wait for the disk gets a thread of its own when it comes, up to the `max_workers` that the
//! daemon was started with. So what is shown is: `nWorkers`, the reactor's threads and those that wait for the disk;
//! `freeWorkers`, the reactor's; `jobQueueDepth`, calls that wait for a thread. What is set is kept and shown, and
//! changes no thread: libvirt's `minWorkers` and `prioWorkers` have nothing to stand for, and `maxWorkers` is settled at the
//! start. Leans on atomics. Refuses fewer threads at most than are kept, and none, as libvirt does.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::failure;
use crate::secret::Error;

/// How many threads there shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct Pool {
    pub(in crate::server) min: u32,
    pub(in crate::server) max: u32,
    pub(in crate::server) priority: u32,
}

/// A server's threads for calls that may wait for the disk.
#[derive(Debug)]
pub(in crate::server) struct Workers {
    pool: Mutex<Pool>,
    waiting: AtomicU32,
    busy: AtomicU32,
}

/// A call that may wait for the disk, from when it came to when it is answered.
pub(in crate::server) struct Job {
    workers: Arc<Workers>,
    busy: bool,
}

impl Workers {
    pub(in crate::server) fn new(pool: Pool) -> Self {
        Self { pool: Mutex::new(pool), waiting: AtomicU32::new(0), busy: AtomicU32::new(0) }
    }

    /// A call has come.
    pub(in crate::server) fn job(self: &Arc<Self>) -> Job {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Job { workers: Arc::clone(self), busy: false }
    }

    pub(super) fn pool(&self) -> Pool {
        *self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what there shall be.
    pub(super) fn set(&self, change: impl FnOnce(Pool) -> Pool) -> Result<(), Error> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(*pool);
        if changed.max < changed.min {
            return Err(failure::fewer_workers_than_kept());
        }
        if changed.max == 0 {
            return Err(failure::no_workers());
        }
        *pool = changed;
        Ok(())
    }

    /// How many calls have a thread, and how many wait for one.
    pub(super) fn count(&self) -> (u32, u32) {
        (self.busy.load(Ordering::Relaxed), self.waiting.load(Ordering::Relaxed))
    }
}

impl Job {
    /// It has its thread.
    pub(in crate::server) fn begin(&mut self) {
        self.busy = true;
        self.workers.busy.fetch_add(1, Ordering::Relaxed);
        self.workers.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let count = if self.busy { &self.workers.busy } else { &self.workers.waiting };
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_counted_while_they_wait_and_while_they_run() {
        let workers = Arc::new(Workers::new(Pool { min: 5, max: 20, priority: 5 }));
        let (mut one, other) = (workers.job(), workers.job());
        assert_eq!(workers.count(), (0, 2));
        one.begin();
        assert_eq!(workers.count(), (1, 1));
        drop((one, other));
        assert_eq!(workers.count(), (0, 0));
    }

    #[test]
    fn a_change_that_cannot_be_changes_nothing() {
        let workers = Workers::new(Pool { min: 5, max: 20, priority: 5 });
        let refused = |change: fn(Pool) -> Pool| workers.set(change).unwrap_err().to_string();
        assert_eq!(
            refused(|pool| Pool { min: 21, priority: 9, ..pool }),
            "invalid argument: minWorkers cannot be larger than maxWorkers"
        );
        assert_eq!(
            refused(|pool| Pool { min: 0, max: 0, ..pool }),
            "invalid argument: maxWorkers must not be switched from zero to non-zero and vice versa"
        );
        assert_eq!(workers.pool(), Pool { min: 5, max: 20, priority: 5 });
        assert_eq!(workers.set(|pool| Pool { min: 20, priority: 9, ..pool }), Ok(()));
        assert_eq!(workers.pool(), Pool { min: 20, max: 20, priority: 9 });
    }
}
