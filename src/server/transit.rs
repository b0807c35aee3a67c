//! What half-read calls and half-sent replies may take together, over all clients.
//!
//! Secret memory is small, and any client can ask for a large value and not read it, or begin a large call and not end it.
//! So both are counted; while too much is in transit, nothing new is begun, and a client that holds some of it and doesn't move is
//! let go. A client that keeps moving is never let go for this. Leans on atomics. Refuses nothing itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// The counters, shared by all connections.
#[derive(Default)]
pub(super) struct Transit {
    secret: AtomicUsize,
    ordinary: AtomicUsize,
    crowded: Notify,
}

/// A part of it, given back on drop.
pub(super) struct Load {
    transit: Arc<Transit>,
    secret: usize,
    ordinary: usize,
}

impl Transit {
    /// Counts so many bytes of secret memory, and of ordinary memory.
    pub(super) fn load(self: &Arc<Self>, secret: usize, ordinary: usize) -> Load {
        let mut load = Load { transit: Arc::clone(self), secret: 0, ordinary: 0 };
        load.change(secret, ordinary);
        load
    }

    /// Whether nothing new should be begun. If so, those who hold some and stand still hear of it.
    pub(super) fn is_crowded(&self) -> bool {
        let crowded = self.secret.load(Ordering::Relaxed) > MOST_SECRET
            || self.ordinary.load(Ordering::Relaxed) > MOST_ORDINARY;
        if crowded {
            self.crowded.notify_waiters();
        }
        crowded
    }

    /// Waits until somebody finds it crowded.
    pub(super) async fn crowded(&self) {
        self.crowded.notified().await;
    }
}

impl Load {
    /// It has become this much.
    pub(super) fn change(&mut self, secret: usize, ordinary: usize) {
        let replace = |counter: &AtomicUsize, old: usize, new: usize| {
            counter.fetch_add(new, Ordering::Relaxed);
            counter.fetch_sub(old, Ordering::Relaxed);
        };
        replace(&self.transit.secret, self.secret, secret);
        replace(&self.transit.ordinary, self.ordinary, ordinary);
        (self.secret, self.ordinary) = (secret, ordinary);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.change(0, 0);
    }
}

/// A good third of the arena: values of the largest size take 128 KiB each there.
const MOST_SECRET: usize = 3 << 19;

/// Sixteen definitions of the largest size.
const MOST_ORDINARY: usize = 64 << 20;

/// How long whoever waits for room waits before it looks again.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// How long a client may stand still with others waiting for what it holds.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_crowded_while_too_much_is_held_and_no_longer() {
        let transit = Arc::new(Transit::default());
        let mut held: Vec<Load> = (0..12).map(|_| transit.load(128 << 10, 0)).collect();
        assert!(!transit.is_crowded());
        held.push(transit.load(1, 0));
        assert!(transit.is_crowded());
        held.pop();
        assert!(!transit.is_crowded());
        let mut large = transit.load(0, 0);
        large.change(0, 65 << 20);
        assert!(transit.is_crowded());
        large.change(0, 1);
        assert!(!transit.is_crowded());
    }
}
