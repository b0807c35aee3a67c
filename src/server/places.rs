//! Places for newcomers who have yet to finish something, such as a handshake: bounded in number, and taken from whoever
//! stands still when others wait.
//!
//! Leans on tokio for waiting. Refuses to let anybody wait behind those who do nothing: who has stood still for
//! [`STANDSTILL`] gives way, the longest first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// So many places.
pub(super) struct Places {
    most: usize,
    inner: Mutex<Inner>,
    free: Notify,
}

#[derive(Default)]
struct Inner {
    last: u64,
    held: BTreeMap<u64, Arc<Holder>>,
}

struct Holder {
    /// When it last moved. `None`: it is for us to move.
    moved: Mutex<Option<Instant>>,
    gone: Notify,
}

/// One of them, free again on drop.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    holder: Arc<Holder>,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, inner: Mutex::default(), free: Notify::new() })
    }

    /// Waits for a place; takes it from whoever stands still, if all are held.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        loop {
            let freed = self.free.notified();
            let patience = {
                let mut inner = self.inner();
                let idlest =
                    inner.held.iter().filter_map(|(&number, holder)| Some((holder.moved()?, number))).min();
                match idlest {
                    _ if inner.held.len() < self.most => return self.give(&mut inner),
                    Some((moved, number)) if moved.elapsed() >= STANDSTILL => {
                        if let Some(holder) = inner.held.remove(&number) {
                            holder.gone.notify_one();
                        }
                        return self.give(&mut inner);
                    }
                    Some((moved, _)) => moved + STANDSTILL,
                    None => Instant::now() + STANDSTILL,
                }
            };
            tokio::select! {
                () = freed => {}
                () = sleep_until(patience) => {}
            }
        }
    }

    fn give(self: &Arc<Self>, inner: &mut Inner) -> Place {
        inner.last += 1;
        let holder = Arc::new(Holder { moved: Mutex::new(Some(Instant::now())), gone: Notify::new() });
        inner.held.insert(inner.last, Arc::clone(&holder));
        Place { places: Arc::clone(self), number: inner.last, holder }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder {
    fn moved(&self) -> Option<Instant> {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Its holder has done something.
    pub(super) fn moved(&self) {
        self.set(Some(Instant::now()));
    }

    /// Its holder waits for us, until it moves again.
    pub(super) fn waits_for_us(&self) {
        self.set(None);
    }

    fn set(&self, moved: Option<Instant>) {
        *self.holder.moved.lock().unwrap_or_else(PoisonError::into_inner) = moved;
    }

    /// Waits until it is somebody else's.
    pub(super) async fn taken(&self) {
        self.holder.gone.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.inner().held.remove(&self.number);
        self.places.free.notify_waiters();
    }
}

/// How long a place may be held without a move while others wait.
const STANDSTILL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    fn is_ready(future: impl Future<Output = ()>) -> bool {
        let mut future = std::pin::pin!(future);
        future.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn a_place_that_is_let_go_is_anothers() {
        runtime().block_on(async {
            let places = Places::new(2);
            let (first, _second) = (places.take().await, places.take().await);
            let waits = tokio::spawn({
                let places = Arc::clone(&places);
                async move { places.take().await.number }
            });
            tokio::task::yield_now().await;
            assert!(!waits.is_finished());
            drop(first);
            assert_eq!(waits.await.unwrap(), 3);
        });
    }

    #[test]
    fn who_waits_for_us_does_not_stand_still() {
        runtime().block_on(async {
            let places = Places::new(2);
            let (first, second) = (places.take().await, places.take().await);
            first.waits_for_us();
            second.set(Some(Instant::now() - Duration::from_secs(2)));
            let third = places.take().await;
            assert_eq!([&first, &second].map(|place| is_ready(place.taken())), [false, true]);
            third.waits_for_us();
            let fourth = tokio::time::timeout(Duration::from_millis(10), places.take()).await;
            assert!(fourth.is_err(), "both are at work");
        });
    }

    #[test]
    fn who_stands_still_the_longest_gives_way_and_who_moves_does_not() {
        runtime().block_on(async {
            let places = Places::new(3);
            let held = [places.take().await, places.take().await, places.take().await];
            let back = |ms| Some(Instant::now() - Duration::from_millis(ms));
            held.iter().zip([1500, 1600, 900]).for_each(|(place, ms)| place.set(back(ms)));
            let _fourth = places.take().await;
            assert_eq!(held.each_ref().map(|place| is_ready(place.taken())), [false, true, false]);
            held[0].moved();
            let began = Instant::now();
            let _fifth = places.take().await;
            assert_eq!(held.each_ref().map(|place| is_ready(place.taken())), [false, false, true]);
            assert!(began.elapsed() < Duration::from_millis(900), "the one that moved was waited for");
            // The place of one who was sent away isn't freed a second time.
            drop(held);
            assert_eq!(places.inner().held.len(), 2);
        });
    }
}
