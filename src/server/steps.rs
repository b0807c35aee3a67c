//! Steps that are made for strangers: a handshake's signature, a look at a password. Few at once, fewer for one origin, on
//! threads of their own.
//!
//! So whoever isn't known yet takes no thread from the calls of those who are, however long a directory of users takes to
//! answer; and at the daemon's end nobody waits for them. Leans on `places` for whose turn it is, on `crew` for the threads.
//! Refuses to wait for ever: a step that takes longer than [`LONGEST`] is given up, and counts only among the threads, of
//! which there are so many.

use std::sync::Arc;
#[cfg(feature = "sasl")]
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

#[cfg(feature = "sasl")]
use super::clients::Client;
use super::crew::{Crew, Short};
#[cfg(feature = "sasl")]
use super::flood::Flood;
use super::origin::Origin;
use super::places::{Places, Terms};
#[cfg(feature = "sasl")]
use crate::net::peer::Peer;

/// So many may be made at once.
pub(super) struct Steps {
    turns: Arc<Places>,
    /// Those that go on although they were given up have a thread too.
    threads: Crew,
    longest: Duration,
}

/// Why a step came to no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unmade {
    /// By a fault of ours.
    BrokeOff,
    /// It takes too long.
    GivenUp,
    /// Too many that were given up still go on.
    Stuck,
}

impl Steps {
    /// `share`: the most for one origin.
    pub(super) fn new(most: usize, share: usize) -> Self {
        Self::lasting(most, share, LONGEST)
    }

    fn lasting(most: usize, share: usize, longest: Duration) -> Self {
        // Each who waits is a handshake's or a client's, and of those there are so many.
        let terms = Terms { most, share, waiting: usize::MAX, longest: Some(longest) };
        Self { turns: Places::new(terms), threads: Crew::new(most * THREADS, IDLE), longest }
    }

    /// Makes a step when it is its turn, where it may block. What it has taken along it keeps until it is made, or until
    /// nobody waits for its turn any more.
    pub(super) async fn make<T: Send + 'static>(
        &self,
        origin: Origin,
        step: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unmade> {
        let turn = self.turns.take(origin).await.ok_or(Unmade::BrokeOff)?;
        turn.waits_for_us();
        let (send, made) = oneshot::channel();
        let runtime = Handle::current();
        let outer = runtime.clone();
        let step = move || {
            let _runtime = runtime.enter(); // what it has for the log may be held back for a while
            step()
        };
        let after = move |made: Option<T>| {
            let _runtime = outer.enter();
            drop(turn);
            if let Some(made) = made {
                _ = send.send(made);
            }
        };
        self.threads.set_to(step, after).map_err(|short| match short {
            Short::Taken => Unmade::Stuck,
            Short::Refused => Unmade::BrokeOff,
        })?;
        match timeout(self.longest, made).await {
            Ok(made) => made.map_err(|_| Unmade::BrokeOff),
            Err(_) => Err(Unmade::GivenUp),
        }
    }
}

/// Steps of SASL, for each kind of client apart: who may come in by the main socket, or has a certificate, doesn't wait
/// behind those who guess passwords elsewhere.
#[cfg(feature = "sasl")]
pub(super) struct Negotiations {
    main: Steps,
    read_only: Steps,
    certified: Steps,
    strangers: Steps,
    refusals: Flood,
}

#[cfg(feature = "sasl")]
impl Negotiations {
    pub(super) fn new() -> Self {
        let steps = || Steps::new(MOST_AT_ONCE, MOST_OF_ONE);
        let [main, read_only, certified, strangers] = [steps(), steps(), steps(), steps()];
        Self { main, read_only, certified, strangers, refusals: Flood::default() }
    }

    /// Makes a step for a client. If it comes to no end the log hears of it.
    pub(super) async fn make<T: Send + 'static>(
        &self,
        client: &Client,
        step: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unmade> {
        let steps = match client.peer {
            Peer::Local(_) if client.read_only.load(Ordering::Relaxed) => &self.read_only,
            Peer::Local(_) => &self.main,
            Peer::Remote(_) if client.certified.is_some() => &self.certified,
            Peer::Remote(_) => &self.strangers,
        };
        let made = steps.make(Origin::of(&client.peer), step).await;
        let (id, peer) = (client.id, client.peer);
        match made {
            Err(Unmade::BrokeOff) => {
                tracing::error!("closing client {id}: a step of SASL broke off, by a fault of ours");
            }
            Err(unmade @ (Unmade::GivenUp | Unmade::Stuck)) => {
                self.refusals.warn(&format!("refused {peer}: {unmade}; {ASK_THE_DIRECTORY}"));
            }
            Ok(_) => {}
        }
        made
    }
}

impl std::fmt::Display for Unmade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BrokeOff => f.write_str("a step broke off"),
            Self::GivenUp => write!(f, "a step took longer than {} s", LONGEST.as_secs()),
            Self::Stuck => f.write_str("too many steps have come to no end"),
        }
    }
}

#[cfg(feature = "sasl")]
const ASK_THE_DIRECTORY: &str =
    "does that which knows the users answer (pwcheck_method in /etc/sasl2/libvirt.conf)?";

/// Steps of SASL at once, for a kind of client. They wait for others more than they compute.
#[cfg(feature = "sasl")]
const MOST_AT_ONCE: usize = 8;

/// And for one address or user.
#[cfg(feature = "sasl")]
const MOST_OF_ONE: usize = 2;

/// How long a step may take.
const LONGEST: Duration = Duration::from_secs(30);

/// How long a thread stays that has nothing to do.
const IDLE: Duration = Duration::from_secs(10);

/// So many times as many threads as steps at once, so that some may be stuck.
const THREADS: usize = 4;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::server::transit::Transit;

    #[test]
    fn few_steps_are_made_at_once_they_count_and_calls_have_their_threads() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (steps, transit) = (Arc::new(Steps::new(2, 2)), Arc::new(Transit::default()));
            let (begun, begins) = mpsc::channel();
            let (ends, end) = mpsc::channel::<()>();
            let end = Arc::new(std::sync::Mutex::new(end));
            let made: Vec<_> = (0..5)
                .map(|_| {
                    let (steps, load) = (Arc::clone(&steps), transit.secret(1000));
                    let (begun, end) = (begun.clone(), Arc::clone(&end));
                    tokio::spawn(async move {
                        let step = move || {
                            begun.send(()).unwrap();
                            end.lock().unwrap().recv().unwrap();
                            drop(load);
                        };
                        steps.make(SOMEBODY, step).await
                    })
                })
                .collect();
            // As often as they need to come to their turns, and a call's answer in between.
            for _ in 0..20 {
                assert_eq!(tokio::task::spawn_blocking(|| 7).await.unwrap(), 7);
            }
            for _ in 0..2 {
                begins.recv_timeout(Duration::from_secs(20)).unwrap();
            }
            assert!(begins.recv_timeout(Duration::from_millis(50)).is_err(), "a third has begun");
            assert_eq!(transit.held(), (5000, 0));
            (0..5).for_each(|_| ends.send(()).unwrap());
            for made in made {
                assert_eq!(made.await.unwrap(), Ok(()));
            }
            assert_eq!(transit.held(), (0, 0));
        });
    }

    #[test]
    fn a_step_that_panics_is_told_from_one_that_ends_and_gives_its_turn_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let steps = Steps::new(1, 1);
            assert_eq!(
                steps.make(SOMEBODY, || -> u8 { panic!("as this test wants it") }).await,
                Err(Unmade::BrokeOff)
            );
            assert_eq!(steps.make(SOMEBODY, || 7).await, Ok(7));
        });
    }

    #[test]
    fn who_comes_alone_waits_for_no_crowd() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let steps = Arc::new(Steps::new(1, 1));
            let (made, seen) = mpsc::channel();
            let (begin, begins) = mpsc::channel::<()>();
            let make = |user, step: Box<dyn FnOnce() + Send>| {
                let steps = Arc::clone(&steps);
                tokio::spawn(async move { steps.make(Origin::User(user), step).await })
            };
            let mut all = vec![make(0, Box::new(move || _ = begins.recv()))];
            all.extend([1, 1, 1, 2].map(|user| {
                let made = made.clone();
                make(user, Box::new(move || made.send(user).unwrap()))
            }));
            tokio::time::sleep(Duration::from_millis(10)).await; // all are in line
            drop(begin);
            for step in all {
                assert_eq!(step.await.unwrap(), Ok(()));
            }
            assert_eq!(seen.try_iter().collect::<Vec<_>>(), [1, 2, 1, 1]);
        });
    }

    #[test]
    fn steps_that_hang_are_given_up_and_others_are_made_until_there_are_too_many() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let steps = Steps::lasting(2, 1, Duration::from_millis(200));
            let (ends, end) = mpsc::channel::<()>();
            let end = Arc::new(std::sync::Mutex::new(end));
            let hang = |user| {
                let end = Arc::clone(&end);
                steps.make(Origin::User(user), move || _ = end.lock().unwrap().recv())
            };
            for user in 0..2 * THREADS - 1 {
                assert_eq!(hang(user as u32).await, Err(Unmade::GivenUp));
                assert_eq!(steps.make(SOMEBODY, || 7).await, Ok(7), "after {user}");
            }
            assert_eq!(hang(99).await, Err(Unmade::GivenUp));
            assert_eq!(steps.make(SOMEBODY, || 7).await, Err(Unmade::Stuck));
            drop(ends);
            let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
            while steps.make(SOMEBODY, || 7).await != Ok(7) {
                assert!(tokio::time::Instant::now() < deadline, "they have ended, and count all the same");
                tokio::task::yield_now().await;
            }
        });
    }

    const SOMEBODY: Origin = Origin::User(1000);
}
