//! A daemon killed at any moment, under load, over and over: what it acknowledged is there when the next one serves.
//!
//! As in kill.rs, but through the sockets: writers announce each change, note its answer, and are cut off amid their
//! calls by SIGKILL. The next daemon has to take the dead one's place (sockets, pid file, driver.pid), the writers
//! connect again, and every secret is held against what was answered. Leans on `support`.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::daemon::{Daemon, PATIENCE};
use support::wire::Client;
use support::{Dice, Place, note};
use uuid::Uuid;

const KILLS: usize = 60;
const WRITERS: u64 = 4;
const SECRETS_A_WRITER: u64 = 6;

#[test]
fn a_killed_daemon_keeps_what_it_answered() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let (started, seed) = (Instant::now(), Dice::seed());
    let mut dice = Dice(seed);
    let mut writers: Vec<Writer> = (0..WRITERS).map(|number| Writer::new(number, seed)).collect();
    let mut tally = Tally::default();
    let mut daemon = place.serve("");
    let mut before = socket_of(&place);
    for kill in 0..KILLS {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in &mut writers {
                let (place, ended) = (&place, &ended);
                scope.spawn(move || writer.write(place, ended));
            }
            // Amid its work; every sixth at once, while the first clients come.
            let wait = if kill % 6 == 5 { dice.roll(2_000) } else { 10_000 + dice.roll(90_000) };
            std::thread::sleep(Duration::from_micros(wait));
            daemon.kill();
            ended.store(true, Ordering::Relaxed);
        });
        daemon = place.serve("");
        let when = format!("seed {seed}, kill {kill}");
        let now = socket_of(&place);
        assert_ne!(now, before, "{when}: the stale socket is still there");
        before = now;
        for name in ["run/virtsecretd.pid", "run/secrets/driver.pid"] {
            let pid = std::fs::read_to_string(place.root().join(name)).unwrap();
            assert_eq!(pid.trim(), daemon.pid().to_string(), "{when}: {name}");
        }
        check(&daemon, &mut writers, &mut tally, &when);
    }
    assert!(daemon.stop().success());
    assert!(!place.socket().exists(), "a daemon that ends takes its sockets with it");
    let verified = place.open().verify().unwrap();
    let expected: usize = writers.iter().map(|writer| writer.model.len()).sum();
    assert_eq!(verified.sound, expected);
    tally.acknowledged = writers.iter().map(|writer| writer.acknowledged).sum();
    note(&format!("{:?}, seed {seed}: {KILLS} kills, {tally:?}", started.elapsed()));
    // Else the test was idle, and proved nothing.
    assert!(tally.acknowledged > 500 && tally.in_flight > 20, "{tally:?}");
}

#[test]
fn a_second_daemon_on_one_root_leaves_the_first_alone() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let first = place.serve("");
    let mut client = first.client();
    let uuid = client.define(&xml(Uuid::from_u128(1), 1)).unwrap().unwrap();
    let names = || {
        let mut names = support::files_below(&place.root());
        names.sort();
        names
    };
    let (before, socket) = (names(), socket_of(&place));
    let elsewhere = place.0.join("another.pid");
    // With the pid file that the first one holds; and with its own, so that only the keystore's lock is in the way.
    for arguments in [vec![], vec!["--pid-file", elsewhere.to_str().unwrap()]] {
        let status = place.command("").args(&arguments).status().unwrap();
        let said = first.output();
        assert!(!status.success(), "{arguments:?}: {said}");
        assert!(said.lines().last().unwrap().starts_with("hint: "), "{said}");
        assert!(said.contains(&format!("{}", first.pid())), "it names who is in the way: {said}");
        assert_eq!((names(), socket_of(&place)), (before.clone(), socket), "{arguments:?}");
        assert_eq!(first.client().list().unwrap(), [uuid], "the first one can still be reached");
        assert_eq!(client.list().unwrap(), [uuid]);
    }
    assert!(!elsewhere.exists());
    drop(client);
    assert!(first.stop().success());
}

/// What was seen, so that one knows that the test tests.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: u64,
    /// Changes under way when the kill came, and how many of them were found done.
    in_flight: u64,
    done_all_the_same: u64,
}

/// A secret as it is to be found: by which change it was defined, and by which its value was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    defined: u64,
    value: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Define,
    Set,
    Undefine,
}

/// A client that changes its own secrets, and remembers what was answered.
struct Writer {
    number: u64,
    dice: Dice,
    next: u64,
    model: BTreeMap<Uuid, State>,
    in_flight: Option<(Uuid, Option<State>)>,
    acknowledged: u64,
}

impl Writer {
    fn new(number: u64, seed: u64) -> Self {
        let dice = Dice(seed ^ (number + 1) << 56);
        Self { number, dice, next: 1, model: BTreeMap::new(), in_flight: None, acknowledged: 0 }
    }

    /// Connects, and works until the daemon is gone.
    fn write(&mut self, place: &Place, ended: &AtomicBool) {
        while !ended.load(Ordering::Relaxed) {
            let Ok(mut client) = Client::connect(&place.socket(), PATIENCE) else { continue };
            let open = support::wire::open_body("secret:///system");
            if !matches!(client.call(support::wire::number::OPEN, &open), Ok(Ok(_))) {
                continue;
            }
            while self.change(&mut client) {}
            return;
        }
    }

    /// One change; `false` if its answer never came.
    fn change(&mut self, client: &mut Client) -> bool {
        let uuid = Uuid::from_u64_pair(self.number + 1, self.dice.roll(SECRETS_A_WRITER) + 1);
        let before = self.model.get(&uuid).copied();
        let change = match (self.dice.roll(10), before) {
            (_, None) | (1 | 2, _) => Change::Define,
            (0, Some(_)) => Change::Undefine,
            _ => Change::Set,
        };
        let number = self.next;
        self.next += 1;
        let after = match (change, before) {
            (Change::Undefine, _) => None,
            (Change::Define, _) => Some(State { defined: number, value: before.and_then(|it| it.value) }),
            (Change::Set, before) => Some(State { value: Some(number), ..before.unwrap() }),
        };
        self.in_flight = Some((uuid, after));
        let answer = match change {
            Change::Undefine => client.undefine(uuid),
            Change::Define => client.define(&xml(uuid, number)).map(|answer| answer.map(drop)),
            Change::Set => client.set(uuid, &value(uuid, number)),
        };
        let Ok(answer) = answer else { return false };
        answer.unwrap_or_else(|fault| panic!("{change:?} of {uuid}: {}", fault.message));
        self.in_flight = None;
        self.acknowledged += 1;
        put(&mut self.model, uuid, after);
        true
    }
}

/// Holds every secret against the writers' models; what was under way may be done or not.
fn check(daemon: &Daemon, writers: &mut [Writer], tally: &mut Tally, when: &str) {
    let mut client = daemon.client();
    let found: BTreeMap<Uuid, State> =
        client.list().unwrap().into_iter().map(|uuid| (uuid, state_of(&mut client, uuid, when))).collect();
    let mut expected = BTreeMap::new();
    for writer in writers {
        if let Some((uuid, after)) = writer.in_flight.take() {
            let (before, now) = (writer.model.get(&uuid).copied(), found.get(&uuid).copied());
            assert!(
                now == before || now == after,
                "{when}: {uuid} was {before:?}, became {after:?}, is {now:?}"
            );
            tally.in_flight += 1;
            tally.done_all_the_same += u64::from(now == after);
            put(&mut writer.model, uuid, now);
        }
        expected.extend(writer.model.clone());
    }
    assert_eq!(found, expected, "{when}");
}

fn put(model: &mut BTreeMap<Uuid, State>, uuid: Uuid, state: Option<State>) {
    match state {
        Some(state) => _ = model.insert(uuid, state),
        None => _ = model.remove(&uuid),
    }
}

/// Which changes a secret is the work of, if it is whole.
fn state_of(client: &mut Client, uuid: Uuid, when: &str) -> State {
    let xml = client.xml(uuid).unwrap().unwrap();
    let defined = xml.split("<description>").nth(1).and_then(|rest| rest.split('<').next());
    let defined = defined.and_then(|number| number.parse().ok());
    let defined = defined.unwrap_or_else(|| panic!("{when}: no number in {xml}"));
    let value = match client.get(uuid).unwrap() {
        Ok(bytes) => {
            let number = u64::from_le_bytes(*bytes.first_chunk().unwrap());
            assert!(bytes == value(uuid, number), "{when}: half a value, or another's");
            Some(number)
        }
        Err(fault) => {
            assert_eq!(fault.code, 66, "{when}: {}", fault.message);
            None
        }
    };
    State { defined, value }
}

fn xml(uuid: Uuid, number: u64) -> String {
    let usage = format!("<usage type='ceph'><name>{uuid}</name></usage>");
    format!("<secret><uuid>{uuid}</uuid><description>{number}</description>{usage}</secret>")
}

/// The value that a change sets: its number, then bytes that no other value has; small or large.
fn value(uuid: Uuid, number: u64) -> Vec<u8> {
    let mut dice = Dice(number ^ uuid.as_u64_pair().0 << 48 ^ uuid.as_u64_pair().1 << 40);
    let length = if dice.roll(16) == 0 { 60_000 } else { dice.roll(500) };
    let mut value = number.to_le_bytes().to_vec();
    value.extend((0..length.div_ceil(8)).flat_map(|_| dice.roll(u64::MAX).to_le_bytes()));
    value
}

/// Which file the socket is. An inode's number can come again, its time of birth not.
fn socket_of(place: &Place) -> (u64, Option<std::time::SystemTime>) {
    let about = std::fs::metadata(place.socket()).unwrap();
    (about.ino(), about.created().ok())
}
