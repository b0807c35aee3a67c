//! Who gets a place, who has to go for it, and who doesn't.
//!
//! What has gone by is set, and not waited for. Leans on the clocks of those who hold places. Refuses to wait longer than the
//! second that is meant.

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

/// It has moved then; `None`: it is for us to move.
fn set(place: &Place, moved: Option<Instant>) {
    let mut clock = place.holder.clock();
    clock.ours = moved.is_none().then(Instant::now);
    clock.moved = moved.unwrap_or(clock.moved);
}

/// It has had its place for so long, and so much of that was ours.
fn age(place: &Place, seconds: u64, were_ours: u64) {
    let mut clock = place.holder.clock();
    clock.since = Instant::now() - Duration::from_secs(seconds);
    clock.were_ours = Duration::from_secs(were_ours);
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
        set(&second, ago(2000));
        let third = places.take(origin).await.unwrap();
        assert_eq!([&first, &second].map(|place| is_ready(place.taken())), [false, true]);
        third.waits_for_us();
        assert!(has_to_wait(&places, origin).await, "both are at work");
        third.holder.clock().ours = ago(1100);
        third.holder.clock().moved = ago(1500).unwrap();
        third.has_stood_still();
        assert!(has_to_wait(&places, origin).await, "it has stood still for 0.4 s");
        third.holder.clock().moved -= Duration::from_secs(1);
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
        held.iter().zip([1500, 1600, 900]).for_each(|(place, ms)| set(place, ago(ms)));
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
        set(&others, ago(3000));
        set(&held[1], ago(2000));
        set(&held[0], None);
        let next = waits.remove(0).await.unwrap();
        assert_eq!([&held[0], &held[1], &others].map(|place| is_ready(place.taken())), [false, true, false]);
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
        set(&one, ago(3000));
        assert!(has_to_wait(&places, crowd).await, "a crowd drives nobody away who holds less");
        set(&two[1], ago(1100));
        places.take(other).await.unwrap();
        assert!(is_ready(two[1].taken()) && !is_ready(one.taken()));
        set(&one, ago(6000));
        set(&two[0], None);
        let _third = places.take(crowd).await.unwrap();
        let _fourth = places.take(crowd).await.unwrap();
        assert!(is_ready(one.taken()), "but for ever it doesn't stand there");
    });
}

#[test]
fn no_crowd_sends_somebody_away_who_holds_less_however_soon_it_comes_again() {
    runtime().block_on(async {
        let terms = Terms { most: 3, share: 2, waiting: 9, longest: Some(Duration::from_secs(60)) };
        let places = Places::lending(terms, Loan { talk: Duration::from_secs(5), reserve: 0 });
        let [crowd, person, other] = ["192.0.2.1", "198.51.100.1", "203.0.113.1"].map(at);
        let one = places.take(person).await.unwrap();
        let two = [places.take(crowd).await.unwrap(), places.take(crowd).await.unwrap()];
        age(&one, 6, 0);
        assert!(has_to_wait(&places, crowd).await, "it holds more");
        age(&one, 6, 2);
        assert!(has_to_wait(&places, other).await, "two seconds were ours");
        age(&one, 6, 0);
        set(&one, None);
        assert!(has_to_wait(&places, other).await, "and these are too");
        set(&two[0], None);
        age(&two[0], 6, 6);
        drop(places.take(other).await.unwrap());
        assert!(is_ready(two[0].taken()), "but not for crowds");
        let _two = places.take(crowd).await.unwrap();
        set(&one, ago(0));
        drop(places.take(other).await.unwrap());
        assert!(is_ready(one.taken()), "its time is over");
        let one = places.take(person).await.unwrap();
        age(&one, 61, 61);
        assert!(!has_to_wait(&places, crowd).await && is_ready(one.taken()), "for everybody's");
    });
}

#[test]
fn more_than_its_share_is_an_origins_until_others_want_it() {
    runtime().block_on(async {
        let terms = Terms { most: 8, share: 2, waiting: 9, longest: None };
        let places = Places::lending(terms, Loan { talk: Duration::from_secs(5), reserve: 0 });
        let [many, other] = ["192.0.2.1", "192.0.2.2"].map(at);
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(places.take(many).await.unwrap());
            held.iter().for_each(|place| set(place, ago(4000)));
        }
        assert!(!held.iter().any(|place| is_ready(place.taken())), "there was room");
        held[1..].iter().for_each(|place| set(place, None));
        set(&held[0], ago(0));
        let mut others = vec![places.take(other).await.unwrap()];
        assert!(is_ready(held[0].taken()), "at once");
        for _ in 0..3 {
            others.push(places.take(other).await.unwrap()); // even of those at work
        }
        assert!(has_to_wait(&places, other).await, "they hold as much");
        assert_eq!(held.iter().filter(|place| is_ready(place.taken())).count(), 3);
    });
}

#[test]
fn what_is_kept_for_newcomers_costs_nobody_a_place() {
    runtime().block_on(async {
        let terms = Terms { most: 6, share: 1, waiting: 9, longest: None };
        let places = Places::lending(terms, Loan { talk: Duration::from_secs(10), reserve: 2 });
        let [many, two, three, four] = ["192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1"].map(at);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(places.take(many).await.unwrap());
            held.iter().for_each(|place| set(place, ago(900)));
        }
        assert!(has_to_wait(&places, many).await, "the others are for others");
        let others = [places.take(two).await.unwrap(), places.take(three).await.unwrap()];
        assert!(has_to_wait(&places, four).await, "all go on");
        assert!(!held.iter().chain(&others).any(|place| is_ready(place.taken())));
        set(&held[0], ago(1000));
        set(&others[0], ago(9000));
        let _four = places.take(four).await.unwrap();
        assert!(is_ready(held[0].taken()), "of the crowd first, who stands still");
        drop(others);
        assert!(!has_to_wait(&places, two).await);
        assert!(has_to_wait(&places, many).await, "nobody else's place is for it");
        set(&held[1], ago(1000));
        let _own = places.take(many).await.unwrap();
        assert!(is_ready(held[1].taken()), "but its own are");
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
        let gone = |crowd: &[tokio::task::JoinHandle<_>]| crowd.iter().filter(|it| it.is_finished()).count();
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
