//! Lines for the log that anybody on the network can cause: so many in a period, then how many more there were.
//!
//! Leans on tokio to tell at the period's end. Refuses to be silent about what it holds back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

/// The counter of one kind of line.
#[derive(Debug)]
pub(super) struct Flood {
    most: u32,
    period: Duration,
    count: Arc<Mutex<Count>>,
}

#[derive(Debug, Default)]
struct Count {
    /// Lines since the period began; 0: none has begun.
    all: u32,
    held_back: u64,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It is the first of a period.
    First,
    Told,
    HeldBack,
}

impl Default for Flood {
    fn default() -> Self {
        Self::new(MOST_LINES, PERIOD)
    }
}

impl Flood {
    fn new(most: u32, period: Duration) -> Self {
        Self { most, period, count: Arc::default() }
    }

    /// Warns, unless too much was warned of lately. Before there is a runtime nobody can have come: all is told.
    pub(super) fn warn(&self, line: &str) {
        let Ok(runtime) = Handle::try_current() else { return tracing::warn!("{line}") };
        let fate = lock(&self.count).next(self.most);
        if fate != Fate::HeldBack {
            tracing::warn!("{line}");
        }
        if fate == Fate::First {
            let (count, period) = (Arc::clone(&self.count), self.period);
            runtime.spawn(async move {
                tokio::time::sleep(period).await;
                let held_back = std::mem::take(&mut *lock(&count)).held_back;
                if held_back > 0 {
                    tracing::warn!(
                        "{held_back} more were refused or complained of in the last {} s, for which there are no lines",
                        period.as_secs()
                    );
                }
            });
        }
    }
}

#[cfg(test)]
impl Flood {
    /// How many lines were held back in this period.
    pub(super) fn held_back(&self) -> u64 {
        lock(&self.count).held_back
    }
}

impl Count {
    fn next(&mut self, most: u32) -> Fate {
        self.all = self.all.saturating_add(1);
        match self.all {
            1 => Fate::First,
            all if all <= most => Fate::Told,
            _ => {
                self.held_back += 1;
                Fate::HeldBack
            }
        }
    }
}

fn lock(count: &Mutex<Count>) -> MutexGuard<'_, Count> {
    count.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines that the log gets one by one, in a period.
const MOST_LINES: u32 = 20;

const PERIOD: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_a_new_period_begins_with_a_line() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let flood = Flood::new(2, Duration::from_millis(20));
            (0..7).for_each(|_| flood.warn("x"));
            assert_eq!(flood.held_back(), 5);
            tokio::time::sleep(Duration::from_millis(60)).await; // behind the period's own timer
            assert_eq!(lock(&flood.count).next(2), Fate::First);
            assert_eq!(lock(&flood.count).next(2), Fate::Told);
            assert_eq!(lock(&flood.count).next(2), Fate::HeldBack);
        });
    }
}
