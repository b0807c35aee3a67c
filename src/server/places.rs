//! Places for newcomers who have yet to finish something, such as a handshake: bounded in number, in all and for one
//! address, and taken from whoever stands still when others wait.
//!
//! Who finds no place stands in the line of its own address. Leans on tokio for waiting. Refuses to let anybody wait behind
//! those who do nothing: who has stood still for [`STANDSTILL`] gives way, the longest first; and behind another
//! address' crowd.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// So many places.
pub(super) struct Places {
    most: usize,
    /// For one address.
    share: usize,
    inner: Mutex<Inner>,
    free: Notify,
}

#[derive(Default)]
struct Inner {
    last: u64,
    held: BTreeMap<u64, Arc<Holder>>,
    /// Those of one address who wait hold it; the first of them holds the lock too.
    lines: BTreeMap<IpAddr, Weak<Line>>,
}

type Line = tokio::sync::Mutex<()>;

struct Holder {
    address: IpAddr,
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
    /// `share`: the most that one address may hold.
    pub(super) fn new(most: usize, share: usize) -> Arc<Self> {
        Arc::new(Self { most, share, inner: Mutex::default(), free: Notify::new() })
    }

    /// Waits for a place; takes it from whoever stands still, if all are held, or all that one address may hold. `None`:
    /// too many wait.
    pub(super) async fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let line = self.inner().line(address)?;
        let _first = line.lock().await;
        loop {
            let freed = self.free.notified();
            let patience = {
                let mut inner = self.inner();
                let full = inner.held.len() >= self.most;
                let own = inner.held.values().filter(|holder| holder.address == address).count();
                if !full && own < self.share {
                    return Some(self.give(&mut inner, address));
                }
                let in_the_way =
                    inner.held.iter().filter(|(_, holder)| own < self.share || holder.address == address);
                let idlest = in_the_way.filter_map(|(&number, holder)| Some((holder.moved()?, number))).min();
                match idlest {
                    Some((moved, number)) if moved.elapsed() >= STANDSTILL => {
                        if let Some(holder) = inner.held.remove(&number) {
                            holder.gone.notify_one();
                        }
                        return Some(self.give(&mut inner, address));
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

    fn give(self: &Arc<Self>, inner: &mut Inner, address: IpAddr) -> Place {
        inner.last += 1;
        let moved = Mutex::new(Some(Instant::now()));
        let holder = Arc::new(Holder { address, moved, gone: Notify::new() });
        inner.held.insert(inner.last, Arc::clone(&holder));
        Place { places: Arc::clone(self), number: inner.last, holder }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The line of an address.
    fn line(&mut self, address: IpAddr) -> Option<Arc<Line>> {
        self.lines.retain(|_, line| line.strong_count() > 0);
        let waiting: usize = self.lines.values().map(Weak::strong_count).sum();
        let line = self.lines.entry(address).or_default();
        if waiting >= MOST_WAITING || line.strong_count() >= LONGEST_LINE {
            return None;
        }
        Some(line.upgrade().unwrap_or_else(|| {
            let begun = Arc::default();
            *line = Arc::downgrade(&begun);
            begun
        }))
    }
}

/// What counts as one address: whoever has one of IPv6 has the 64 bits behind it too.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
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

/// Those who may wait for a place, in all.
const MOST_WAITING: usize = 4096;

/// And of one address.
const LONGEST_LINE: usize = 1024;

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
            let places = Places::new(2, 2);
            let (first, _second) =
                (places.take(AN_ADDRESS).await.unwrap(), places.take(AN_ADDRESS).await.unwrap());
            let waits = tokio::spawn({
                let places = Arc::clone(&places);
                async move { places.take(AN_ADDRESS).await.unwrap().number }
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
            let places = Places::new(2, 2);
            let (first, second) =
                (places.take(AN_ADDRESS).await.unwrap(), places.take(AN_ADDRESS).await.unwrap());
            first.waits_for_us();
            second.set(Some(Instant::now() - Duration::from_secs(2)));
            let third = places.take(AN_ADDRESS).await.unwrap();
            assert_eq!([&first, &second].map(|place| is_ready(place.taken())), [false, true]);
            third.waits_for_us();
            let fourth = tokio::time::timeout(Duration::from_millis(10), places.take(AN_ADDRESS)).await;
            assert!(fourth.is_err(), "both are at work");
        });
    }

    #[test]
    fn who_stands_still_the_longest_gives_way_and_who_moves_does_not() {
        runtime().block_on(async {
            let places = Places::new(3, 3);
            let held = [
                places.take(AN_ADDRESS).await.unwrap(),
                places.take(AN_ADDRESS).await.unwrap(),
                places.take(AN_ADDRESS).await.unwrap(),
            ];
            let back = |ms| Some(Instant::now() - Duration::from_millis(ms));
            held.iter().zip([1500, 1600, 900]).for_each(|(place, ms)| place.set(back(ms)));
            let _fourth = places.take(AN_ADDRESS).await.unwrap();
            assert_eq!(held.each_ref().map(|place| is_ready(place.taken())), [false, true, false]);
            held[0].moved();
            let began = Instant::now();
            let _fifth = places.take(AN_ADDRESS).await.unwrap();
            assert_eq!(held.each_ref().map(|place| is_ready(place.taken())), [false, false, true]);
            assert!(began.elapsed() < Duration::from_millis(900), "the one that moved was waited for");
            // The place of one who was sent away isn't freed a second time.
            drop(held);
            assert_eq!(places.inner().held.len(), 2);
        });
    }

    #[test]
    fn an_address_that_holds_its_share_stands_in_nobody_elses_way() {
        runtime().block_on(async {
            let places = Places::new(5, 2);
            let [crowd, other] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
            let held = [places.take(crowd).await.unwrap(), places.take(crowd).await.unwrap()];
            let mut waits: Vec<_> = (0..3)
                .map(|_| {
                    let places = Arc::clone(&places);
                    tokio::spawn(async move { places.take(crowd).await.unwrap() })
                })
                .collect();
            tokio::task::yield_now().await;
            let others = places.take(other).await.unwrap(); // at once
            assert!(waits.iter().all(|wait| !wait.is_finished()));
            // One of its own gives way, though another's has stood still for longer.
            others.set(Some(Instant::now() - Duration::from_secs(3)));
            held[1].set(Some(Instant::now() - Duration::from_secs(2)));
            held[0].set(None);
            places.free.notify_waiters();
            let next = waits.remove(0).await.unwrap();
            assert_eq!(
                [&held[0], &held[1], &others].map(|place| is_ready(place.taken())),
                [false, true, false]
            );
            drop(next);
            waits.remove(0).await.unwrap();
            waits.remove(0).await.unwrap();
            drop(held);
            drop(others);
            places.take(other).await.unwrap();
            assert_eq!(places.inner().lines.len(), 1, "lines that nobody stands in are forgotten");
        });
    }

    #[test]
    fn lines_have_an_end() {
        runtime().block_on(async {
            let places = Places::new(1, 1);
            let _held = places.take(AN_ADDRESS).await.unwrap();
            let line: Vec<_> = (0..LONGEST_LINE).map(|_| places.inner().line(AN_ADDRESS).unwrap()).collect();
            assert!(places.take(AN_ADDRESS).await.is_none());
            assert!(places.inner().line(network("192.0.2.7".parse().unwrap())).is_some());
            drop(line);
            assert!(places.inner().line(AN_ADDRESS).is_some());
        });
    }

    #[test]
    fn what_one_holder_of_addresses_has_counts_as_one() {
        let is = |one: &str, other: &str| network(one.parse().unwrap()) == network(other.parse().unwrap());
        assert!(is("2001:db8::1", "2001:db8::2:0:0:1") && !is("2001:db8::1", "2001:db8:0:1::1"));
        assert!(is("::ffff:192.0.2.1", "192.0.2.1") && !is("192.0.2.1", "192.0.2.2"));
    }

    const AN_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
}
