//! Threads for what may block. Each stays a short while for more, so that a crowd doesn't cost a thread a step.
//!
//! There are so many at most, those included in which something hangs: such a thread is nobody's until it comes back, and
//! is of use again then. A panic ends what panicked, and no thread. Leans on std's threads and channels, and on
//! `memory` to wipe what a step leaves on a stack. Refuses to let anything wait: when all threads are taken, it says so.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crate::memory::scrubbed;

/// So many threads, made when they are needed. Nobody waits for them at the end.
pub(super) struct Crew {
    roll: Arc<Mutex<Roll>>,
    most: usize,
    /// How long a thread stays that has nothing to do.
    patience: Duration,
}

/// Why nothing was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// All threads are taken.
    Taken,
    /// The system gives us no thread.
    Refused,
}

#[derive(Default)]
struct Roll {
    /// Idle and at work.
    threads: usize,
    /// The way to each that is idle, by a number that it never has again. Who was the last to come back is the next to go:
    /// so those too many come to their end.
    idle: Vec<(u64, Sender<Work>)>,
    last: u64,
}

/// What takes its time; and what is left to do then, which doesn't.
type Work = Box<dyn FnOnce() -> Rest + Send>;
type Rest = Box<dyn FnOnce()>;

impl Crew {
    pub(super) fn new(most: usize, patience: Duration) -> Self {
        Self { roll: Arc::default(), most, patience }
    }

    /// Does this on a thread, and then `after` with what came of it; `None`: it panicked. By then the thread counts as idle, so
    /// whoever `after` makes room for finds one.
    pub(super) fn set_to<T: 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        after: impl FnOnce(Option<T>) + Send + 'static,
    ) -> Result<(), Short> {
        let work: Work = Box::new(move || {
            // The stack stays when the thread does; without this, until something else has used it.
            let made = scrubbed(|| catch_unwind(AssertUnwindSafe(work)).ok());
            Box::new(move || after(made))
        });
        let mut roll = lock(&self.roll);
        if let Some((_, idle)) = roll.idle.pop() {
            return idle.send(work).map_err(|_| Short::Refused); // it is there: who ends takes itself off first
        }
        if roll.threads >= self.most {
            return Err(Short::Taken);
        }
        roll.threads += 1;
        drop(roll);
        let (weak, patience) = (Arc::downgrade(&self.roll), self.patience);
        let spawned =
            thread::Builder::new().name("stranger".to_owned()).spawn(move || serve(&weak, work, patience));
        spawned.map(drop).map_err(|_| {
            lock(&self.roll).threads -= 1;
            Short::Refused
        })
    }
}

/// A thread's life. It ends when it has nothing to do, or the crew is gone.
fn serve(roll: &Weak<Mutex<Roll>>, first: Work, patience: Duration) {
    let mut work = Some(first);
    while let Some(now) = work {
        let rest = now();
        let idle = sign_in(roll);
        _ = catch_unwind(AssertUnwindSafe(rest));
        work = idle.and_then(|(number, works)| {
            works.recv_timeout(patience).ok().or_else(|| match sign_off(roll, number) {
                true => None,
                false => works.recv().ok(), // it was just sent some
            })
        });
    }
}

/// Puts a thread among the idle, and says what as, and where its work comes in.
fn sign_in(roll: &Weak<Mutex<Roll>>) -> Option<(u64, Receiver<Work>)> {
    let roll = roll.upgrade()?;
    let mut roll = lock(&roll);
    let (send, works) = channel();
    roll.last += 1;
    let number = roll.last;
    roll.idle.push((number, send));
    Some((number, works))
}

/// Takes it off, and out of the crew, if it is still idle.
fn sign_off(roll: &Weak<Mutex<Roll>>, number: u64) -> bool {
    let Some(roll) = roll.upgrade() else { return true };
    let mut roll = lock(&roll);
    let Some(at) = roll.idle.iter().position(|(idle, _)| *idle == number) else { return false };
    roll.idle.remove(at);
    roll.threads -= 1;
    true
}

fn lock(roll: &Mutex<Roll>) -> MutexGuard<'_, Roll> {
    roll.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread::ThreadId;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// The thread on which something was done, when its crew has it back.
    fn thread_of(crew: &Crew) -> ThreadId {
        let (send, made) = channel();
        crew.set_to(|| thread::current().id(), move |id| send.send(id.unwrap()).unwrap()).unwrap();
        made.recv_timeout(LONG).unwrap()
    }

    fn until(is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + LONG;
        while !is_so() {
            assert!(Instant::now() < deadline, "it isn't so");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn one_thread_does_what_comes_one_after_the_other() {
        let crew = Crew::new(1, LONG);
        let first = thread_of(&crew);
        for _ in 0..1000 {
            assert_eq!(thread_of(&crew), first);
        }
    }

    #[test]
    fn whoever_is_let_in_by_one_that_is_done_finds_its_thread() {
        let crew = Arc::new(Crew::new(1, LONG));
        let (send, made) = channel();
        for _ in 0..100 {
            let (next, send) = (Arc::clone(&crew), send.clone());
            let after = move |_| {
                let told = send.clone();
                send.send(next.set_to(|| (), move |_| told.send(Ok(())).unwrap())).unwrap();
            };
            crew.set_to(|| (), after).unwrap();
            assert_eq!([made.recv_timeout(LONG), made.recv_timeout(LONG)], [Ok(Ok(())); 2]);
        }
    }

    #[test]
    fn a_thread_outlives_a_panic_in_what_it_does_and_in_what_comes_after() {
        let crew = Crew::new(1, LONG);
        let first = thread_of(&crew);
        let (send, told) = channel();
        crew.set_to(|| panic!("as this test wants it"), move |made: Option<()>| send.send(made).unwrap())
            .unwrap();
        assert_eq!(told.recv_timeout(LONG), Ok(None));
        let (send, told) = channel();
        let after = move |made| {
            send.send(made).unwrap();
            panic!("as this test wants it")
        };
        crew.set_to(|| 7, after).unwrap();
        assert_eq!(told.recv_timeout(LONG), Ok(Some(7)));
        assert_eq!(thread_of(&crew), first);
    }

    #[test]
    fn a_thread_that_hangs_is_nobodys_until_it_comes_back() {
        let crew = Crew::new(2, LONG);
        let (end, ends) = channel::<()>();
        crew.set_to(move || _ = ends.recv(), drop).unwrap();
        let other = thread_of(&crew);
        assert_eq!(thread_of(&crew), other);
        let (stop, stops) = channel::<()>();
        crew.set_to(move || _ = stops.recv(), drop).unwrap();
        assert_eq!(crew.set_to(|| (), drop), Err(Short::Taken));
        drop(end);
        until(|| lock(&crew.roll).idle.len() == 1);
        assert_ne!(thread_of(&crew), other);
        drop(stop);
    }

    #[test]
    fn threads_that_have_nothing_to_do_end_and_so_do_a_crews_that_is_gone() {
        let crew = Crew::new(9, Duration::from_millis(20));
        let (begin, begins) = channel::<()>();
        let begins = Arc::new(Mutex::new(begins));
        for _ in 0..9 {
            let begins = Arc::clone(&begins);
            crew.set_to(move || _ = begins.lock().unwrap().recv(), drop).unwrap();
        }
        assert_eq!(lock(&crew.roll).threads, 9);
        drop(begin);
        until(|| lock(&crew.roll).threads == 0);
        // Work that comes when a thread is about to end is done all the same.
        for _ in 0..50 {
            thread_of(&crew);
            thread::sleep(Duration::from_millis(20));
        }
        let patient = Crew::new(1, LONG);
        thread_of(&patient);
        let roll = Arc::downgrade(&patient.roll);
        let (send, gone) = channel::<()>();
        let held = Held(send);
        patient.set_to(move || HELD.with(|it| _ = it.set(held)), drop).unwrap();
        until(|| lock(&patient.roll).idle.len() == 1);
        drop(patient);
        assert!(
            gone.recv_timeout(LONG / 2)
                .is_err_and(|error| error != std::sync::mpsc::RecvTimeoutError::Timeout)
        );
        assert!(roll.upgrade().is_none());
    }

    /// Gone when its thread is.
    struct Held(#[allow(dead_code, reason = "that it is dropped is what it is for")] Sender<()>);

    thread_local! {
        static HELD: std::cell::OnceCell<Held> = const { std::cell::OnceCell::new() };
    }
}
