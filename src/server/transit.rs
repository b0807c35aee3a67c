//! What half-read calls and half-sent replies may take together, over all clients.
//!
//! Secret memory is small, and any client can ask for a large value and not read it, begin a large call and not end it, or send a
//! record full of calls and read no replies. So all three are counted; while much is in transit, no large packet is begun, and a client that holds some of it and stands still,
//! or is very slow, is let go; while too much is, small calls wait too. Leans on atomics. Refuses nothing itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

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
    /// Counts so many bytes of secret memory.
    pub(super) fn secret(self: &Arc<Self>, bytes: usize) -> Load {
        self.secret.fetch_add(bytes, Ordering::Relaxed);
        Load { transit: Arc::clone(self), secret: bytes, ordinary: 0 }
    }

    /// Counts so many bytes of ordinary memory.
    pub(super) fn ordinary(self: &Arc<Self>, bytes: usize) -> Load {
        self.ordinary.fetch_add(bytes, Ordering::Relaxed);
        Load { transit: Arc::clone(self), secret: 0, ordinary: bytes }
    }

    /// Whether no large packet should be begun.
    pub(super) fn is_crowded(&self) -> bool {
        self.holds(1, 1)
    }

    /// Somebody waits for room: those who hold some and stand still shall hear of it.
    pub(super) fn complain(&self) {
        self.crowded.notify_waiters();
    }

    /// Whether nothing at all should be begun. It is crowded long before that.
    pub(super) fn is_full(&self) -> bool {
        self.holds(2, 4)
    }

    /// What is held: of secret memory, and of ordinary.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.secret.load(Ordering::Relaxed), self.ordinary.load(Ordering::Relaxed))
    }

    /// Whether so many times what is usual is held.
    fn holds(&self, secret: usize, ordinary: usize) -> bool {
        self.secret.load(Ordering::Relaxed) > secret * MOST_SECRET
            || self.ordinary.load(Ordering::Relaxed) > ordinary * MOST_ORDINARY
    }

    /// Waits until somebody complains.
    pub(super) async fn crowded(&self) {
        self.crowded.notified().await;
    }
}

impl Load {
    /// It has become this much of ordinary memory.
    pub(super) fn grow(&mut self, ordinary: usize) {
        self.transit.ordinary.fetch_add(ordinary, Ordering::Relaxed);
        self.transit.ordinary.fetch_sub(self.ordinary, Ordering::Relaxed);
        self.ordinary = ordinary;
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.transit.secret.fetch_sub(self.secret, Ordering::Relaxed);
        self.transit.ordinary.fetch_sub(self.ordinary, Ordering::Relaxed);
    }
}

/// A client that has to move before others get what it holds.
#[derive(Clone, Copy)]
pub(super) struct Stuck {
    since: Instant,
    /// When bytes last went.
    pub(super) moved: Instant,
    /// Bytes still to come, to be answered and to go.
    missing: usize,
}

impl Stuck {
    /// At another look, so much is missing. `None`: nothing is.
    pub(super) fn seen(before: Option<Self>, missing: usize) -> Option<Self> {
        let now = Instant::now();
        match before {
            _ if missing == 0 => None,
            Some(stuck) if stuck.missing == missing => Some(stuck),
            Some(stuck) => Some(Self { moved: now, missing, ..stuck }),
            None => Some(Self { since: now, moved: now, missing }),
        }
    }

    /// Whether it stands still, or has moved very slowly for long.
    pub(super) fn is_in_the_way(self) -> bool {
        self.moved.elapsed() >= PATIENCE || self.since.elapsed() >= LONGEST_HOLD
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

/// How long it may hold it then, however slowly it moves.
const LONGEST_HOLD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_crowded_while_too_much_is_held_and_no_longer() {
        let transit = Arc::new(Transit::default());
        let mut held: Vec<Load> = (0..12).map(|_| transit.secret(128 << 10)).collect();
        assert!(!transit.is_crowded());
        held.push(transit.secret(1));
        assert!(transit.is_crowded() && !transit.is_full());
        held.push(transit.secret(12 << 17));
        assert!(transit.is_full());
        held.truncate(12);
        assert!(!transit.is_crowded());
        let mut large = transit.ordinary(0);
        large.grow(65 << 20);
        assert!(transit.is_crowded());
        large.grow(1);
        assert!(!transit.is_crowded());
    }
}
