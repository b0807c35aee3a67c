//! Places for newcomers who have yet to finish something, such as a handshake: bounded in number, in all and for one
//! origin, and taken from whoever stands still when others wait.
//!
//! Who finds no place stands in the line of its own origin. A place goes to the origin that holds the least, so nobody waits
//! behind another's crowd; when too many wait, the last of the longest line goes. Leans on tokio for waiting. Refuses to let
//! anybody wait behind those who do nothing: who has stood still for [`STANDSTILL`] gives way, of the largest crowd first.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use super::origin::{Origin, Tally};

/// So many places.
pub(super) struct Places(Mutex<Inner>);

/// How many, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) most: usize,
    /// The most that one origin may hold.
    pub(super) share: usize,
    /// Those who may wait for one.
    pub(super) waiting: usize,
    /// Who has held one for so long gives way even if it moves, and even if it is for us to move.
    pub(super) longest: Option<Duration>,
}

struct Inner {
    terms: Terms,
    last: u64,
    held: BTreeMap<u64, Arc<Holder>>,
    holding: Tally,
    lines: BTreeMap<Origin, Line>,
    waiting: Tally,
    /// Somebody looks after them while time passes.
    is_watched: bool,
}

/// Those of an origin who wait.
struct Line {
    /// Of lines that are alike otherwise the one with the lowest is next; then it is behind them all.
    turn: u64,
    /// In the order in which they came.
    waiting: BTreeMap<u64, oneshot::Sender<Place>>,
}

struct Holder {
    origin: Origin,
    since: Instant,
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

/// Knows whether a place is somebody else's now.
#[derive(Clone)]
pub(super) struct Taken(Arc<Holder>);

impl Places {
    pub(super) fn new(terms: Terms) -> Arc<Self> {
        let inner = Inner {
            terms,
            last: 0,
            held: BTreeMap::new(),
            holding: Tally::default(),
            lines: BTreeMap::new(),
            waiting: Tally::default(),
            is_watched: false,
        };
        Arc::new(Self(Mutex::new(inner)))
    }

    /// Waits for a place; takes it from whoever stands still, if all are held, or all that one origin may hold. `None`: too
    /// many wait.
    pub(super) async fn take(self: &Arc<Self>, origin: Origin) -> Option<Place> {
        let mut waiting = self.stand_in_line(origin);
        (&mut waiting.given).await.ok()
    }

    /// Changes their number; nobody who holds one has to leave.
    pub(super) fn set(self: &Arc<Self>, most: usize, share: usize) {
        let mut inner = self.inner();
        (inner.terms.most, inner.terms.share) = (most, share);
        inner.seat(self);
    }

    fn stand_in_line(self: &Arc<Self>, origin: Origin) -> Waiting {
        let (give, given) = oneshot::channel();
        let mut inner = self.inner();
        inner.last += 1;
        let number = inner.last;
        let begun = || Line { turn: number, waiting: BTreeMap::new() };
        inner.lines.entry(origin).or_insert_with(begun).waiting.insert(number, give);
        inner.waiting.add(origin);
        inner.seat(self);
        if inner.waiting.all() > inner.terms.waiting {
            inner.shorten_the_longest_line();
        }
        if inner.waiting.all() > 0 && !inner.is_watched {
            inner.is_watched = true;
            tokio::spawn(watch(Arc::clone(self)));
        }
        Waiting { places: Arc::clone(self), origin, number, given }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees to it that those who stand still give way when their time has come, as long as anybody waits.
async fn watch(places: Arc<Places>) {
    loop {
        let again = {
            let mut inner = places.inner();
            let again = inner.seat(&places);
            if inner.waiting.all() == 0 {
                inner.is_watched = false;
                return;
            }
            again
        };
        // Who moves, or has waited for us, may have its time sooner than it seems now.
        let soon = Instant::now() + STANDSTILL / 4;
        sleep_until(again.map_or(soon, |again| again.min(soon))).await;
    }
}

impl Inner {
    /// Gives places to those who wait, as long as there are any to be had. Says when it may be worth while to look again.
    fn seat(&mut self, places: &Arc<Places>) -> Option<Instant> {
        loop {
            let now = Instant::now();
            if self.is_full() {
                // Often nothing can be done, whoever waits.
                let soonest =
                    self.held.values().filter_map(|holder| self.gives_way(holder, STANDSTILL)).min();
                if soonest.is_none_or(|soonest| soonest > now) {
                    return soonest;
                }
            }
            let by_turn = |(&origin, line): (&Origin, &Line)| (self.holding.of(origin), line.turn, origin);
            let mut firsts: Vec<_> = self.lines.iter().map(by_turn).collect();
            firsts.sort_unstable();
            let (mut again, mut seen) = (None::<Instant>, false);
            let mut next = None;
            for (holds, _, origin) in firsts {
                let has_its_share = holds.near >= self.terms.share;
                if !has_its_share && std::mem::replace(&mut seen, self.is_full()) {
                    continue; // whom the first of these can't send away the others can't either
                }
                if !has_its_share && !self.is_full() {
                    next = Some((origin, None));
                    break;
                }
                let in_the_way =
                    self.held.iter().filter(|(_, holder)| !has_its_share || holder.origin == origin);
                let by_hour = in_the_way.filter_map(|(&number, holder)| {
                    let crowd = self.holding.of(holder.origin);
                    let patience = if crowd >= holds { STANDSTILL } else { LONG_STANDSTILL };
                    Some((self.gives_way(holder, patience)?, crowd, number))
                });
                let (late, in_time): (Vec<_>, Vec<_>) = by_hour.partition(|(when, ..)| *when <= now);
                if let Some((.., number)) =
                    late.into_iter().max_by_key(|(when, crowd, _)| (*crowd, Reverse(*when)))
                {
                    next = Some((origin, Some(number)));
                    break;
                }
                again = in_time.into_iter().map(|(when, ..)| when).chain(again).min();
            }
            let Some((origin, instead_of)) = next else { return again };
            if let Some(number) = instead_of
                && let Some(holder) = self.leave(number)
            {
                holder.gone.notify_one();
            }
            self.give(places, origin);
        }
    }

    fn is_full(&self) -> bool {
        self.held.len() >= self.terms.most
    }

    /// When somebody has to go if others wait.
    fn gives_way(&self, holder: &Holder, patience: Duration) -> Option<Instant> {
        let stands_still = holder.moved().map(|moved| moved + patience);
        let ends = self.terms.longest.map(|longest| holder.since + longest);
        stands_still.into_iter().chain(ends).min()
    }

    /// Gives a place to the first in this line. It is there: who goes leaves the line first.
    fn give(&mut self, places: &Arc<Places>, origin: Origin) {
        let Some(line) = self.lines.get_mut(&origin) else { return };
        let first = line.waiting.pop_first();
        self.last += 1;
        line.turn = self.last;
        if line.waiting.is_empty() {
            self.lines.remove(&origin);
        }
        let Some((number, give)) = first else { return };
        self.waiting.remove(origin);
        let now = Instant::now();
        let holder = Holder { origin, since: now, moved: Mutex::new(Some(now)), gone: Notify::new() };
        let holder = Arc::new(holder);
        self.held.insert(number, Arc::clone(&holder));
        self.holding.add(origin);
        _ = give.send(Place { places: Arc::clone(places), number, holder });
    }

    /// The one with this number holds nothing any more.
    fn leave(&mut self, number: u64) -> Option<Arc<Holder>> {
        let holder = self.held.remove(&number)?;
        self.holding.remove(holder.origin);
        Some(holder)
    }

    /// Sends the last of the longest line away. Of lines as long it is who came last.
    fn shorten_the_longest_line(&mut self) {
        let lasts =
            self.lines.iter().filter_map(|(&origin, line)| Some((origin, *line.waiting.last_key_value()?.0)));
        let longest = lasts.max_by_key(|&(origin, last)| (self.waiting.of(origin), last));
        if let Some((origin, last)) = longest {
            self.forget(origin, last);
        }
    }

    /// The one with this number doesn't wait any more.
    fn forget(&mut self, origin: Origin, number: u64) {
        let Some(line) = self.lines.get_mut(&origin) else { return };
        if line.waiting.remove(&number).is_some() {
            self.waiting.remove(origin);
        }
        if line.waiting.is_empty() {
            self.lines.remove(&origin);
        }
    }
}

/// Somebody in a line; leaves it on drop.
struct Waiting {
    places: Arc<Places>,
    origin: Origin,
    number: u64,
    given: oneshot::Receiver<Place>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.places.inner().forget(self.origin, self.number);
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

    /// Its holder waits for us, until it moves again. Says since when it has stood still.
    pub(super) fn waits_for_us(&self) -> Option<Instant> {
        self.set(None)
    }

    /// It was nothing: its holder has stood still since then.
    pub(super) fn has_stood_still(&self, since: Option<Instant>) {
        self.set(since);
    }

    fn set(&self, moved: Option<Instant>) -> Option<Instant> {
        std::mem::replace(&mut *self.holder.moved.lock().unwrap_or_else(PoisonError::into_inner), moved)
    }

    /// Who knows whether it is somebody else's.
    pub(super) fn watcher(&self) -> Taken {
        Taken(Arc::clone(&self.holder))
    }

    /// Waits until it is somebody else's.
    pub(super) async fn taken(&self) {
        self.holder.gone.notified().await;
    }
}

impl Taken {
    /// Waits until the place is somebody else's.
    pub(super) async fn wait(&self) {
        self.0.gone.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.places.inner();
        if inner.leave(self.number).is_some() {
            inner.seat(&self.places);
        }
    }
}

/// How long a place may be held without a move while others wait who hold no more.
const STANDSTILL: Duration = Duration::from_secs(1);

/// And while those wait who hold more.
const LONG_STANDSTILL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    fn places(most: usize, share: usize) -> Arc<Places> {
        Places::new(Terms { most, share, waiting: 100, longest: None })
    }

    fn at(address: &str) -> Origin {
        Origin::of(&crate::net::peer::Peer::Remote((address.parse::<std::net::IpAddr>().unwrap(), 7).into()))
    }

    fn is_ready(future: impl Future<Output = ()>) -> bool {
        let mut future = std::pin::pin!(future);
        future.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    fn ago(ms: u64) -> Option<Instant> {
        Some(Instant::now() - Duration::from_millis(ms))
    }

    async fn has_to_wait(places: &Arc<Places>, origin: Origin) -> bool {
        tokio::time::timeout(Duration::from_millis(10), places.take(origin)).await.is_err()
    }

    /// So many who wait, in the order in which they came.
    async fn wait(
        places: &Arc<Places>,
        origin: Origin,
        number: usize,
    ) -> Vec<tokio::task::JoinHandle<Option<Place>>> {
        let wait = |_| {
            let places = Arc::clone(places);
            tokio::spawn(async move { places.take(origin).await })
        };
        let waiting = (0..number).map(wait).collect();
        tokio::time::sleep(Duration::from_millis(5)).await;
        waiting
    }

    #[test]
    fn a_place_that_is_let_go_is_anothers() {
        runtime().block_on(async {
            let places = places(2, 2);
            let origin = at("192.0.2.1");
            let (first, _second) = (places.take(origin).await.unwrap(), places.take(origin).await.unwrap());
            let waits = wait(&places, origin, 1).await.remove(0);
            assert!(!waits.is_finished());
            drop(first);
            assert!(waits.await.unwrap().is_some());
        });
    }

    #[test]
    fn who_waits_for_us_does_not_stand_still() {
        runtime().block_on(async {
            let places = places(2, 2);
            let origin = at("192.0.2.1");
            let (first, second) = (places.take(origin).await.unwrap(), places.take(origin).await.unwrap());
            first.waits_for_us();
            second.set(ago(2000));
            let third = places.take(origin).await.unwrap();
            assert_eq!([&first, &second].map(|place| is_ready(place.taken())), [false, true]);
            let stood = third.waits_for_us();
            assert!(has_to_wait(&places, origin).await, "both are at work");
            third.has_stood_still(stood.map(|since| since - Duration::from_secs(1)));
            assert!(!has_to_wait(&places, origin).await, "what it waited for was nothing");
        });
    }

    #[test]
    fn who_stands_still_the_longest_gives_way_and_who_moves_does_not() {
        runtime().block_on(async {
            let places = places(3, 3);
            let origin = at("192.0.2.1");
            let held = [
                places.take(origin).await.unwrap(),
                places.take(origin).await.unwrap(),
                places.take(origin).await.unwrap(),
            ];
            held.iter().zip([1500, 1600, 900]).for_each(|(place, ms)| _ = place.set(ago(ms)));
            let _fourth = places.take(origin).await.unwrap();
            assert_eq!(held.each_ref().map(|place| is_ready(place.taken())), [false, true, false]);
            held[0].moved();
            let began = Instant::now();
            let _fifth = places.take(origin).await.unwrap();
            assert_eq!(held.each_ref().map(|place| is_ready(place.taken())), [false, false, true]);
            assert!(began.elapsed() < Duration::from_millis(900), "the one that moved was waited for");
            // The place of one who was sent away isn't freed a second time.
            drop(held);
            let inner = places.inner();
            assert_eq!((inner.held.len(), inner.holding.all()), (2, 2));
        });
    }

    #[test]
    fn who_has_had_its_time_gives_way_even_if_it_moves() {
        runtime().block_on(async {
            let longest = Some(Duration::from_millis(50));
            let places = Places::new(Terms { most: 1, share: 1, waiting: 1, longest });
            let first = places.take(at("192.0.2.1")).await.unwrap();
            first.waits_for_us();
            tokio::time::sleep(Duration::from_millis(60)).await;
            assert!(!is_ready(first.taken()), "nobody waits");
            let _second = places.take(at("192.0.2.2")).await.unwrap();
            assert!(is_ready(first.taken()));
        });
    }

    #[test]
    fn an_origin_that_holds_its_share_stands_in_nobody_elses_way() {
        runtime().block_on(async {
            let places = places(5, 2);
            let [crowd, other] = ["192.0.2.1", "192.0.2.2"].map(at);
            let held = [places.take(crowd).await.unwrap(), places.take(crowd).await.unwrap()];
            let mut waits = wait(&places, crowd, 3).await;
            let others = places.take(other).await.unwrap(); // at once
            assert!(waits.iter().all(|wait| !wait.is_finished()));
            // One of its own gives way, though another's has stood still for longer.
            others.set(ago(3000));
            held[1].set(ago(2000));
            held[0].set(None);
            let next = waits.remove(0).await.unwrap();
            assert_eq!(
                [&held[0], &held[1], &others].map(|place| is_ready(place.taken())),
                [false, true, false]
            );
            drop(next);
            _ = waits.remove(0).await.unwrap();
            _ = waits.remove(0).await.unwrap();
            let inner = places.inner();
            assert!(
                inner.lines.is_empty() && inner.waiting.all() == 0,
                "lines that nobody stands in are forgotten"
            );
        });
    }

    #[test]
    fn a_place_goes_to_the_origin_that_holds_the_least() {
        runtime().block_on(async {
            let places = places(4, 4);
            let [crowd, other] = ["192.0.2.1", "198.51.100.1"].map(at);
            let mut held = Vec::new();
            for _ in 0..4 {
                held.push(places.take(crowd).await.unwrap());
            }
            let crowds = wait(&places, crowd, 9).await;
            let others = wait(&places, other, 2).await;
            held.truncate(2);
            tokio::time::sleep(Duration::from_millis(5)).await;
            let seated =
                |waits: &[tokio::task::JoinHandle<_>]| waits.iter().filter(|it| it.is_finished()).count();
            assert_eq!((seated(&crowds), seated(&others)), (0, 2), "who came later, and from elsewhere");
        });
    }

    #[test]
    fn of_those_who_stand_still_the_largest_crowd_gives_way() {
        runtime().block_on(async {
            let places = places(3, 3);
            let [crowd, slow, other] = ["192.0.2.1", "198.51.100.1", "203.0.113.1"].map(at);
            let one = places.take(slow).await.unwrap();
            let two = [places.take(crowd).await.unwrap(), places.take(crowd).await.unwrap()];
            one.set(ago(3000));
            assert!(has_to_wait(&places, crowd).await, "a crowd drives nobody away who holds less");
            two[1].set(ago(1100));
            places.take(other).await.unwrap();
            assert!(is_ready(two[1].taken()) && !is_ready(one.taken()));
            one.set(ago(6000));
            two[0].set(None);
            let _third = places.take(crowd).await.unwrap();
            let _fourth = places.take(crowd).await.unwrap();
            assert!(is_ready(one.taken()), "but for ever it doesn't stand there");
        });
    }

    #[test]
    fn who_is_alone_finds_the_line_open_however_many_wait() {
        runtime().block_on(async {
            let places = Places::new(Terms { most: 2, share: 1, waiting: 6, longest: None });
            let _held = places.take(at("2001:db8:0:1::1")).await.unwrap();
            let _also = places.take(at("2001:db8:0:2::1")).await.unwrap();
            // A host that has many networks of 64 bits has neighbours alone.
            let mut crowd = Vec::new();
            for network in ["2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:3::1"] {
                crowd.append(&mut wait(&places, at(network), 3).await);
            }
            let gone =
                |crowd: &[tokio::task::JoinHandle<_>]| crowd.iter().filter(|it| it.is_finished()).count();
            assert_eq!(gone(&crowd), 3);
            let lonely = wait(&places, at("2001:db8:1::1"), 1).await;
            let neighbour = wait(&places, at("2001:db8:0:4::1"), 1).await;
            assert!(!lonely[0].is_finished() && !neighbour[0].is_finished());
            assert_eq!((gone(&crowd), places.inner().waiting.all()), (5, 6));
            // Whoever leaves by itself makes room too.
            let stays = crowd.into_iter().find(|it| !it.is_finished()).unwrap();
            stays.abort();
            _ = stays.await;
            assert_eq!(places.inner().waiting.all(), 5);
        });
    }
}
