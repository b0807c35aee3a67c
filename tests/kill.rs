//! Killed at any moment, a keystore loses nothing that was acknowledged, and no change is found half done.
//!
//! A child process changes secrets from four threads at once and says `begin` before and `done` after each change; it
//! is killed with SIGKILL after a random time, and the store is opened and held against what it said. A thousand
//! times; fifty kills wear one store, so that recovery is over recovered stores, and values are overwritten often
//! enough that compaction is hit too. Leans on `support` for the second process. A kill keeps the page cache: what a
//! power cut loses is power_cut.rs's matter.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use strongroom::{Connection, ErrorCode};
use support::{Dice, Place, note, say};
use uuid::Uuid;

const KILLS: usize = 1000;
const KILLS_A_STORE: usize = 50;
const THREADS: u64 = 4;
const SECRETS_A_THREAD: u64 = 8;

#[test]
fn a_killed_keystore_keeps_what_it_acknowledged() {
    if let Some(role) = support::role() {
        return change_for_ever(&Place(role[0].clone().into()), role[1].parse().unwrap());
    }
    let (started, seed) = (Instant::now(), Dice::seed());
    let stores = AtomicU64::new(0);
    let worker = || {
        let mut tally = Tally::default();
        loop {
            let store = stores.fetch_add(1, Ordering::Relaxed);
            if store >= (KILLS / KILLS_A_STORE) as u64 {
                return tally;
            }
            live(seed.wrapping_add(store), &mut tally);
        }
    };
    let tally = std::thread::scope(|scope| {
        let other = scope.spawn(worker);
        worker().and(&other.join().unwrap())
    });
    note(&format!("{} s, seed {seed}: {tally:?}", started.elapsed().as_secs()));
    assert_eq!(tally.kills, KILLS as u64);
    // Else the test was idle, and proved nothing.
    assert!(tally.acknowledged > 3_000 && tally.in_flight > 300 && tally.compactions > 3, "{tally:?}");
}

/// What was seen, so that one knows that the test tests.
#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    acknowledged: u64,
    /// Changes under way when the kill came, and how many of them were found done.
    in_flight: u64,
    done_all_the_same: u64,
    compactions: u64,
    torn_tails: u64,
    copies_mended: u64,
}

impl Tally {
    fn and(mut self, other: &Self) -> Self {
        self.kills += other.kills;
        self.acknowledged += other.acknowledged;
        self.in_flight += other.in_flight;
        self.done_all_the_same += other.done_all_the_same;
        self.compactions += other.compactions;
        self.torn_tails += other.torn_tails;
        self.copies_mended += other.copies_mended;
        self
    }
}

/// A secret as it is to be found: by which change it was defined, and by which its value was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    defined: u64,
    value: Option<u64>,
}

type Model = BTreeMap<Uuid, State>;

/// One change, as the child announces it.
#[derive(Debug, Clone, Copy)]
struct Op {
    number: u64,
    uuid: Uuid,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Define,
    Set,
    Undefine,
}

impl Op {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (number, uuid) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let kind = match words.next()? {
            "Define" => Kind::Define,
            "Set" => Kind::Set,
            "Undefine" => Kind::Undefine,
            _ => return None,
        };
        Some(Self { number, uuid, kind })
    }

    fn after(&self, before: Option<State>) -> Option<State> {
        match (self.kind, before) {
            (Kind::Undefine, _) => None,
            (Kind::Define, before) => {
                Some(State { defined: self.number, value: before.and_then(|state| state.value) })
            }
            (Kind::Set, Some(state)) => Some(State { value: Some(self.number), ..state }),
            (Kind::Set, None) => panic!("{self:?} of a secret that isn't there"),
        }
    }
}

/// One store through fifty kills.
fn live(seed: u64, tally: &mut Tally) {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    drop(place.open());
    let (mut dice, mut model, mut next) = (Dice(seed), Model::new(), 1);
    let mut log = identity_of_the_log(&place);
    for kill in 0..KILLS_A_STORE {
        let mut child = support::again(
            "a_killed_keystore_keeps_what_it_acknowledged",
            &[path(&directory), &next.to_string()],
        );
        // Every tenth is killed at a random moment of its start, most likely while it recovers; the others in their work.
        if kill % 10 != 9 {
            child.expect("open");
        }
        std::thread::sleep(Duration::from_micros(1000 + dice.roll(39_000)));
        let in_flight = take_in(&child.kill(), &mut model, &mut next, tally);
        tally.kills += 1;
        check(&place, &mut model, &in_flight, tally, &format!("seed {seed}, kill {kill}"));
        let log_now = identity_of_the_log(&place);
        tally.compactions += u64::from(log_now != log);
        log = log_now;
    }
}

/// Puts what was acknowledged into the model, and gives what was not.
fn take_in(lines: &[String], model: &mut Model, next: &mut u64, tally: &mut Tally) -> BTreeMap<Uuid, Op> {
    let mut begun: BTreeMap<Uuid, Op> = BTreeMap::new();
    for line in lines {
        match line.split_once(' ') {
            Some(("begin", rest)) => {
                let op = Op::parse(rest).unwrap_or_else(|| panic!("the child said: {line}"));
                *next = (*next).max(op.number + 1);
                assert!(begun.insert(op.uuid, op).is_none(), "a secret has one change at a time");
            }
            Some(("done", rest)) => {
                let op = begun.remove(&rest.parse().unwrap()).unwrap();
                match op.after(model.get(&op.uuid).copied()) {
                    Some(state) => _ = model.insert(op.uuid, state),
                    None => _ = model.remove(&op.uuid),
                }
                tally.acknowledged += 1;
            }
            _ => assert_eq!(line, "open", "the child said more:\n{}", lines.join("\n")),
        }
    }
    tally.in_flight += begun.len() as u64;
    begun
}

/// Opens the store and holds every secret against the model; what was under way may be done or not.
fn check(place: &Place, model: &mut Model, in_flight: &BTreeMap<Uuid, Op>, tally: &mut Tally, when: &str) {
    let embedded = place.open();
    let status = embedded.status();
    assert_eq!((status.locked, status.read_only), (None, None), "{when}");
    for finding in &status.findings {
        // A write that the kill cut short was never acknowledged; a copy is written after the log.
        let text = finding.to_string();
        tally.torn_tails += u64::from(text.contains("unfinished write"));
        tally.copies_mended += u64::from(text.contains("written anew"));
        assert!(text.contains("unfinished write") || text.contains("written anew"), "{when}: {text}");
    }
    let verified = embedded.verify().unwrap();
    let new: Vec<_> = verified.findings.iter().filter(|found| !status.findings.contains(found)).collect();
    let kept_tail = |text: String| text.starts_with("secrets.log.torn-");
    assert!(new.iter().all(|found| kept_tail(found.to_string())), "{when}: {new:?}");
    let connection = Connection::over(embedded.keystore()).elevated().unwrap();
    let mut found = Model::new();
    for secret in connection.list_all(0).unwrap() {
        found.insert(secret.uuid(), state_of(&secret, when));
    }
    assert_eq!(verified.sound, found.len(), "{when}");
    for op in in_flight.values() {
        let before = model.get(&op.uuid).copied();
        let (now, after) = (found.get(&op.uuid).copied(), op.after(before));
        assert!(now == before || now == after, "{when}: {op:?} left {now:?}; before it was {before:?}");
        tally.done_all_the_same += u64::from(now == after);
        match now {
            Some(state) => _ = model.insert(op.uuid, state),
            None => _ = model.remove(&op.uuid),
        }
    }
    assert_eq!(found, *model, "{when}");
}

/// Which changes a secret is the work of, if it is whole.
fn state_of(secret: &strongroom::Secret, when: &str) -> State {
    let xml = secret.xml_desc().unwrap();
    let defined = xml.split("<description>").nth(1).and_then(|rest| rest.split('<').next());
    let defined = defined.and_then(|number| number.parse().ok());
    let defined = defined.unwrap_or_else(|| panic!("{when}: no number in {xml}"));
    let value = match secret.value() {
        Ok(value) => {
            let bytes = value.expose_secret();
            let number = u64::from_le_bytes(*bytes.first_chunk().unwrap());
            assert_eq!(bytes, self::value(secret.uuid(), number), "{when}: half a value, or another's");
            Some(number)
        }
        Err(error) => {
            assert_eq!(error.code(), ErrorCode::NoSecret, "{when}: {error}");
            None
        }
    };
    State { defined, value }
}

/// The child's life.
fn change_for_ever(place: &Place, first: u64) {
    let connection = Connection::over(place.open().keystore());
    say("open");
    let next = AtomicU64::new(first);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (connection, next) = (&connection, &next);
            scope.spawn(move || {
                let mut dice = Dice(first ^ thread << 56);
                loop {
                    let uuid = Uuid::from_u64_pair(thread + 1, dice.roll(SECRETS_A_THREAD) + 1);
                    change(connection, uuid, next.fetch_add(1, Ordering::Relaxed), &mut dice);
                }
            });
        }
    });
}

fn change(connection: &Connection, uuid: Uuid, number: u64, dice: &mut Dice) {
    let secret = connection.lookup_by_uuid(uuid).ok();
    let (kind, secret) = match (dice.roll(10), secret) {
        (_, None) => (Kind::Define, None),
        (0, secret) => (Kind::Undefine, secret),
        (1 | 2, _) => (Kind::Define, None),
        (_, secret) => (Kind::Set, secret),
    };
    say(&format!("begin {number} {uuid} {kind:?}"));
    match (kind, secret) {
        (Kind::Set, Some(secret)) => secret.set_value(&value(uuid, number)).unwrap(),
        (Kind::Undefine, Some(secret)) => secret.undefine().unwrap(),
        _ => {
            let usage = format!("<usage type='ceph'><name>{uuid}</name></usage>");
            let xml =
                format!("<secret><uuid>{uuid}</uuid><description>{number}</description>{usage}</secret>");
            connection.define_xml(xml, 0).unwrap();
        }
    }
    say(&format!("done {uuid}"));
}

/// The value that a change sets: its number, then bytes that no other value has; small or large.
fn value(uuid: Uuid, number: u64) -> Vec<u8> {
    let mut dice = Dice(number ^ uuid.as_u64_pair().0 << 48 ^ uuid.as_u64_pair().1 << 40);
    let len = match dice.roll(16) {
        0 => 40_000,
        1..=4 => 12_000,
        _ => dice.roll(500),
    };
    let mut value = number.to_le_bytes().to_vec();
    value.extend((0..len.div_ceil(8)).flat_map(|_| dice.roll(u64::MAX).to_le_bytes()));
    value
}

/// Compaction puts another file in the log's place.
fn identity_of_the_log(place: &Place) -> (u64, Option<std::time::SystemTime>) {
    let about = std::fs::metadata(place.etc().join("secrets.log")).unwrap();
    (about.ino(), about.created().ok())
}

fn path(directory: &tempfile::TempDir) -> &str {
    directory.path().to_str().unwrap()
}
