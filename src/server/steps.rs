//! Steps that are made for strangers: a handshake's signature, a look at a password. Few at once, each on a thread of its
//! own.
//!
//! So whoever isn't known yet takes no thread from the calls of those who are, however long a directory of users takes to
//! answer; and at the daemon's end nobody waits for them. Leans on tokio for whose turn it is. Refuses nothing: who comes
//! later waits.

use std::sync::Arc;
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

/// So many may be made at once.
pub(super) struct Steps(Arc<Semaphore>);

/// A step came to no end, by a fault of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BrokeOff;

impl Steps {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }

    /// Makes a step when it is its turn, where it may block. What it has taken along it keeps until it is made, or until
    /// nobody waits for its turn any more.
    pub(super) async fn make<T: Send + 'static>(
        &self,
        step: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BrokeOff> {
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(|_| BrokeOff)?;
        let (send, made) = oneshot::channel();
        let runtime = Handle::current();
        let run = move || {
            let _permit = permit;
            let _runtime = runtime.enter(); // what it has for the log may be held back for a while
            _ = send.send(step());
        };
        thread::Builder::new().name("stranger".to_owned()).spawn(run).map_err(|_| BrokeOff)?;
        made.await.map_err(|_| BrokeOff)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::server::transit::Transit;

    #[test]
    fn few_steps_are_made_at_once_they_count_and_calls_have_their_threads() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let (steps, transit) = (Arc::new(Steps::new(2)), Arc::new(Transit::default()));
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
                        steps.make(step).await
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
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let steps = Steps::new(1);
            assert_eq!(steps.make(|| -> u8 { panic!("as this test wants it") }).await, Err(BrokeOff));
            assert_eq!(steps.make(|| 7).await, Ok(7));
        });
    }
}
