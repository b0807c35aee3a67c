//! The time in which a client from the network hasn't authenticated yet: it is on one of few places, and may have to give it
//! to others.
//!
//! Leans on `places` for whose turn it is. Refuses to send somebody away who has authenticated just in time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::flood::Flood;
use super::places::{Place, Taken};
use crate::net::peer::Peer;

/// One client's.
pub(super) struct Sojourn {
    /// `None`: it has authenticated, or is gone.
    place: Mutex<Option<Place>>,
    taken: Taken,
    /// What the log hears of those who had to go.
    sent_away: Arc<Flood>,
}

impl Sojourn {
    pub(super) fn new(place: Place, sent_away: &Arc<Flood>) -> Self {
        place.moved();
        let taken = place.watcher();
        Self { place: Mutex::new(Some(place)), taken, sent_away: Arc::clone(sent_away) }
    }

    /// The client has said something. `at_work`: it is for us to answer.
    pub(super) fn heard(&self, at_work: bool) {
        match self.place().as_ref() {
            Some(place) if at_work => place.waits_for_us(),
            Some(place) => place.moved(),
            None => {}
        }
    }

    /// The place isn't needed any more.
    pub(super) fn settle(&self) {
        let place = self.place().take();
        drop(place);
    }

    /// Waits until somebody else has its place; who has settled waits for ever.
    pub(super) async fn has_to_go(&self, id: u64, peer: &Peer) {
        self.taken.wait().await;
        if self.place().is_none() {
            std::future::pending::<()>().await;
        }
        self.sent_away
            .warn(&format!("closing client {id} ({peer}): it hasn't authenticated, and others wait"));
    }

    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::server::origin::Origin;
    use crate::server::places::{Places, Terms};

    #[test]
    fn who_stays_too_long_has_to_go_but_not_when_it_has_settled() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let longest = Some(Duration::from_millis(20));
            let places = Places::new(Terms { most: 1, share: 1, waiting: 1, longest });
            let (flood, peer) = (Arc::default(), Peer::new(None, 7, 7));
            for settles in [false, true] {
                let sojourn = Sojourn::new(places.take(Origin::User(1)).await.unwrap(), &flood);
                sojourn.heard(true);
                sleep(Duration::from_millis(30)).await;
                drop(places.take(Origin::User(2)).await.unwrap());
                if settles {
                    sojourn.settle();
                }
                let goes = timeout(Duration::from_millis(10), sojourn.has_to_go(1, &peer)).await;
                assert_eq!(goes.is_err(), settles);
            }
        });
    }
}
