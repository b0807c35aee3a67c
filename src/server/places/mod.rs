//! Places for newcomers who have yet to finish something, such as a handshake: bounded in number, in all and for one
//! origin, and taken from whoever stands still when others wait.
//!
//! Who finds no place stands in the line of its own origin. A place goes to the origin that holds the least, so nobody waits
//! behind another's crowd; when too many wait, the last of the longest line goes. Leans on tokio for waiting. Refuses to let
//! anybody wait behind those who do nothing: who has stood still for [`STANDSTILL`] gives way, of the largest crowd first.
//! And refuses to let a crowd send somebody away who holds less, or anybody go for time that was ours.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use super::origin::{Count, Origin, Tally};

/// So many places.
pub(super) struct Places(Mutex<Inner>);

/// How many, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) most: usize,
    /// The most that one origin may hold; of places that are lent, the most that others leave it.
    pub(super) share: usize,
    /// Those who may wait for one.
    pub(super) waiting: usize,
    /// Who has held one for so long gives way even if it moves, and even if it is for us to move.
    pub(super) longest: Option<Duration>,
}

/// What holds for places that are lent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loan {
    /// How long one is left to somebody, time of ours apart, while others wait who hold no more.
    pub(super) talk: Duration,
    /// So many are lent to nobody who has its share: newcomers find them free, and nobody has to go for them. If there are
    /// none, what somebody has of more than its share is asked back at once, even from who waits for us.
    pub(super) reserve: usize,
}

struct Inner {
    terms: Terms,
    loan: Option<Loan>,
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
    clock: Mutex<Clock>,
    gone: Notify,
}

/// Whose time it was.
#[derive(Clone, Copy)]
struct Clock {
    since: Instant,
    /// When it last moved, later by what was ours since then.
    moved: Instant,
    /// Since when it is for us to move.
    ours: Option<Instant>,
    /// What was ours before.
    were_ours: Duration,
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
        Self::with(terms, None)
    }

    /// Such as an origin may have more of than its share, as long as nobody who holds less wants them.
    pub(super) fn lending(terms: Terms, loan: Loan) -> Arc<Self> {
        Self::with(terms, Some(loan))
    }

    fn with(terms: Terms, loan: Option<Loan>) -> Arc<Self> {
        let inner = Inner {
            terms,
            loan,
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
                let for_anybody = |holder| self.gives_way(holder, Count::default(), now);
                let soonest = self.held.values().map(Arc::as_ref).filter_map(for_anybody).min();
                if soonest.is_none_or(|soonest| soonest > now) {
                    return soonest;
                }
            }
            // There may be thousands of lines: so they are looked through once, and not sorted. Whom the first can't send away
            // the others can't either; except such as have their share, of whom there are few: they are in their own way.
            let (mut first, mut sated) = (None, Vec::new());
            for (&origin, line) in &self.lines {
                let turn = (self.holding.of(origin), line.turn, origin);
                if turn.0.near >= self.terms.share && self.is_lent() {
                    sated.push((turn, true));
                } else if first.is_none_or(|(first, _)| turn < first) {
                    first = Some((turn, false));
                }
            }
            sated.sort_unstable();
            let (mut again, mut next) = (None::<Instant>, None);
            for ((holds, _, origin), has_its_share) in first.into_iter().chain(sated) {
                if !has_its_share && !self.is_full() {
                    next = Some((origin, None));
                    break;
                }
                let in_the_way =
                    self.held.iter().filter(|(_, holder)| !has_its_share || holder.origin == origin);
                let by_hour = in_the_way.filter_map(|(&number, holder)| {
                    Some((self.gives_way(holder, holds, now)?, self.holding.of(holder.origin), number))
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

    /// Whether who has its share gets no more but from its own.
    fn is_lent(&self) -> bool {
        let none_left = |loan: Loan| loan.reserve > 0 && self.held.len() + loan.reserve >= self.terms.most;
        self.loan.is_none_or(none_left)
    }

    fn is_full(&self) -> bool {
        self.held.len() >= self.terms.most
    }

    /// When somebody has to go for one who holds so many. Never later for one who holds less.
    fn gives_way(&self, holder: &Holder, holds: Count, now: Instant) -> Option<Instant> {
        let (crowd, clock) = (self.holding.of(holder.origin), *holder.clock());
        let is_its_turn = clock.ours.is_none();
        let patience = if crowd >= holds { STANDSTILL } else { LONG_STANDSTILL };
        let stands_still = is_its_turn.then(|| clock.moved + patience);
        let lent = self.loan.and_then(|Loan { talk, reserve }| match crowd.is_well_above(holds) {
            true if crowd.near > self.terms.share && reserve == 0 => {
                Some(if is_its_turn { clock.moved } else { now })
            }
            true => Some(clock.since + talk), // a crowd keeps us at work as long as it likes
            false => (is_its_turn && crowd >= holds).then(|| clock.since + clock.were_ours + talk),
        });
        let ends = self.terms.longest.map(|longest| clock.since + longest);
        [stands_still, lent, ends].into_iter().flatten().min()
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
        let clock = Clock { since: now, moved: now, ours: None, were_ours: Duration::ZERO };
        let holder = Arc::new(Holder { origin, clock: Mutex::new(clock), gone: Notify::new() });
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
    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock {
    /// It isn't for us to move any more.
    fn is_its_turn(&mut self) {
        let ours = self.ours.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.were_ours += ours;
        self.moved += ours;
    }
}

impl Place {
    /// Its holder has done something.
    pub(super) fn moved(&self) {
        let mut clock = self.holder.clock();
        clock.is_its_turn();
        clock.moved = Instant::now();
    }

    /// Its holder waits for us, until it moves again.
    pub(super) fn waits_for_us(&self) {
        self.holder.clock().ours.get_or_insert_with(Instant::now);
    }

    /// What it waited for was nothing: its holder stands still as it did before, and what we took isn't counted.
    pub(super) fn has_stood_still(&self) {
        self.holder.clock().is_its_turn();
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
mod tests;
