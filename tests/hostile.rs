//! Enemies on every socket, and one client that works on as if they weren't there.
//!
//! Sixteen hostile clients do everything in [`attacks`], each at least once, mixed by a seed; ten thousand more sit
//! idle. A good client defines, sets, gets, lists and undefines all the while and checks every answer. Then all is
//! let go, and the daemon is held against what it was before. Leans on /proc. Where the system allows less than ten
//! thousand connections, there are as many as it allows, and the test says how many.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "hostile/attacks.rs"]
mod attacks;
mod support;

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use attacks::{Attack, Enemy};
use rustix::fs::Uid;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::set_thread_res_uid;
use support::daemon::{Daemon, PATIENCE};
use support::wire::{Client, number, open_body};
use support::{Dice, Place, note};
use uuid::Uuid;

const ENEMIES: usize = 16;
const IDLE: usize = 10_000;
const SIEGE: Duration = Duration::from_secs(12);

/// What the daemon may grow by. In transit it holds 64 MiB of ordinary memory at most; twenty calls at work hold a
/// definition of 4 MiB each in several forms (the text, what was read of it, the copy, the frame); each of ten thousand
/// connections has its task. Without limits a single enemy is worth more than this: it sends 32 MiB packets, and calls
/// for far more than it will read.
const MOST_GROWTH: usize = 768 << 20;

#[test]
fn a_good_client_is_served_among_enemies() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    drop(place.open());
    let idle_count = IDLE.min(descriptor_limit().saturating_sub(3_000));
    // A sensible operator allows as many clients as there are, and some.
    let mut daemon =
        place.serve("max_clients = 14000\nmax_queued_clients = 4096\nmax_anonymous_clients = 0\n");
    let mut good = Good::new(daemon.client(), 0);
    let large = secret(&mut good.client, 1_000, &vec![0x5A; 65_536]);
    let own: Vec<_> = (0..ENEMIES).map(|enemy| secret(&mut good.client, 2_000 + enemy, b"own")).collect();
    (0..200).for_each(|_| good.round());
    let (memory, descriptors) = (daemon.memory(), daemon.descriptors_at_rest());
    let seed = Dice::seed();

    let idle = sit_idle(&place, idle_count);
    let with_idle = daemon.memory();
    let until = Instant::now() + SIEGE;
    let tally = Mutex::new(BTreeMap::new());
    let mut most = with_idle;
    (good.waits, good.rounds) = (BTreeMap::new(), 0);
    std::thread::scope(|scope| {
        for (number, &own) in own.iter().enumerate() {
            let (place, tally) = (&place, &tally);
            scope.spawn(move || besiege(place, number, seed, large, own, until, tally));
        }
        while Instant::now() < until {
            good.round();
            most = most.max(daemon.memory());
        }
        // One that comes in the midst of it gets in too.
        let mut late = Good::new(daemon.client(), 1);
        (0..5).for_each(|_| late.round());
    });
    assert!(daemon.is_alive(), "{}", daemon.output());
    let tally = tally.into_inner().unwrap();
    assert_eq!(tally.len(), Attack::ALL.len(), "not every attack was made: {tally:?}");
    drop(idle);
    let left = settle(&daemon, descriptors);
    good.round();
    note(&format!(
        "seed {seed}: {} idle, {} attacks, {} rounds of the good client, its longest waits {:?}; MiB: {} at first, {} with \
         the idle, {} at most, {} in the end",
        idle_count,
        tally.values().sum::<usize>(),
        good.rounds,
        good.waits,
        memory >> 20,
        with_idle >> 20,
        most >> 20,
        daemon.memory() >> 20,
    ));
    assert_eq!(left, descriptors, "descriptors are left open");
    assert!(most < memory + MOST_GROWTH, "{} MiB at most", most >> 20);
    // Its changes wait for the same disk as the enemies' largest definitions; that each is answered is asserted in `timed`.
    assert!(good.rounds > 0);
    drop(good);
    assert_it_ends_well(daemon, &place);
}

#[test]
fn one_user_can_not_lock_out_the_daemons_own() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    drop(place.open());
    let daemon = place.serve("max_clients = 40\nmax_queued_clients = 10\nmax_anonymous_clients = 0\n");
    for passage in [place.0.clone(), place.root(), place.root().join("run")] {
        std::fs::set_permissions(passage, Permissions::from_mode(0o755)).unwrap();
    }
    let descriptors = daemon.descriptors_at_rest();
    std::thread::scope(|scope| {
        let (crowd_is_there, wait_for_crowd) = channel();
        let (end, wait_for_end) = channel::<()>();
        let socket = place.read_only_socket();
        scope.spawn(move || {
            let nobody = Uid::from_raw(65_534);
            set_thread_res_uid(nobody, nobody, nobody)
                .expect("this test takes another user's id: run it as root");
            let mut guests: Vec<_> = (0..30).map(|_| Client::open(&socket, PATIENCE).unwrap()).collect();
            let crowd: Vec<_> = (0..200).map(|_| UnixStream::connect(&socket).unwrap()).collect();
            crowd_is_there.send(()).unwrap();
            _ = wait_for_end.recv();
            guests.iter_mut().for_each(|guest| assert!(guest.list().unwrap().is_empty()));
            // Whoever waits gets in when somebody leaves.
            guests.pop();
            let mut waited = crowd.into_iter().next().map(Client::over).unwrap();
            waited.call(number::OPEN, &open_body("secret:///system")).unwrap().unwrap();
        });
        wait_for_crowd.recv().unwrap();
        let mut good = Good::new(daemon.client(), 0);
        let _more: Vec<_> = (0..8).map(|_| daemon.client()).collect();
        (0..5).for_each(|_| good.round());
        end.send(()).unwrap();
    });
    assert_eq!(settle(&daemon, descriptors), descriptors, "descriptors are left open");
    assert!(daemon.stop().success());
}

/// Attacks until it is time, and counts how often in which way.
fn besiege(
    place: &Place,
    number: usize,
    seed: u64,
    large: Uuid,
    own: Uuid,
    until: Instant,
    tally: &Mutex<BTreeMap<Attack, usize>>,
) {
    let mut enemy = Enemy::new(place, Dice(seed ^ (number as u64) << 32), large, own);
    let mut next = number;
    while Instant::now() < until {
        let attack = match next < Attack::ALL.len() {
            true => Attack::ALL[next],
            false => Attack::ALL[enemy.dice.roll(Attack::ALL.len() as u64) as usize],
        };
        next += ENEMIES;
        enemy.attack(attack);
        *tally.lock().unwrap().entry(attack).or_insert(0) += 1;
    }
}

/// A client that works, and checks every answer.
struct Good {
    client: Client,
    number: usize,
    rounds: usize,
    /// The longest of each call.
    waits: BTreeMap<&'static str, Duration>,
}

impl Good {
    fn new(client: Client, number: usize) -> Self {
        Self { client, number, rounds: 0, waits: BTreeMap::new() }
    }

    fn round(&mut self) {
        let mut dice = Dice((self.rounds as u64) << 8 | self.number as u64);
        let length = if dice.roll(5) == 0 { 65_536 } else { 1 + dice.roll(300) };
        let value: Vec<u8> = (0..length).map(|_| dice.roll(256) as u8).collect();
        let (uuid, xml) = (uuid_of(self.number), xml_of(self.number));
        let defined = self.timed("define", |client| client.define(&xml)).unwrap();
        assert_eq!(defined, uuid);
        self.timed("set", |client| client.set(uuid, &value)).unwrap();
        let got = self.timed("get", |client| client.get(uuid)).unwrap();
        assert!(got == value, "another value came back: {} bytes of {}", got.len(), value.len());
        assert!(self.timed("list", Client::list).contains(&uuid));
        self.timed("undefine", |client| client.undefine(uuid)).unwrap();
        let gone = self.timed("get", |client| client.get(uuid)).unwrap_err();
        assert_eq!(gone.code, 66, "{}", gone.message);
        self.rounds += 1;
    }

    fn timed<T>(&mut self, name: &'static str, call: impl FnOnce(&mut Client) -> std::io::Result<T>) -> T {
        let start = Instant::now();
        let answer = call(&mut self.client);
        let longest = self.waits.entry(name).or_default();
        *longest = start.elapsed().max(*longest);
        answer.unwrap_or_else(|error| {
            panic!("the good client got no answer after {:?}: {error}", start.elapsed())
        })
    }
}

fn uuid_of(number: usize) -> Uuid {
    Uuid::from_u64_pair(number as u64 + 1, 7)
}

fn xml_of(number: usize) -> String {
    let usage = format!("<usage type='ceph'><name>{}</name></usage>", uuid_of(number));
    format!("<secret><uuid>{}</uuid>{usage}</secret>", uuid_of(number))
}

fn secret(client: &mut Client, number: usize, value: &[u8]) -> Uuid {
    let uuid = client.define(&xml_of(number)).unwrap().unwrap();
    client.set(uuid, value).unwrap().unwrap();
    uuid
}

/// Connections that say nothing. Half of them over the read-only socket.
fn sit_idle(place: &Place, count: usize) -> Vec<UnixStream> {
    let connect = |number: usize| {
        let socket = if number.is_multiple_of(2) { place.socket() } else { place.read_only_socket() };
        UnixStream::connect(socket).unwrap()
    };
    (0..count).map(connect).collect()
}

/// As many descriptors as this process, and the daemon after it, can have.
fn descriptor_limit() -> usize {
    let wanted = Some(IDLE as u64 + 5_000);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if maximum.is_some() && maximum < wanted {
        _ = setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: wanted }); // root may
    }
    let maximum = getrlimit(Resource::Nofile).maximum;
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    }
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize)
}

/// Waits until the daemon has no more descriptors open than it had; gives how many it has.
fn settle(daemon: &Daemon, descriptors: usize) -> usize {
    let deadline = Instant::now() + PATIENCE;
    while daemon.descriptors() > descriptors && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon.descriptors()
}

fn assert_it_ends_well(daemon: Daemon, place: &Place) {
    let output = daemon.output();
    let status = daemon.stop();
    assert!(status.success(), "{status}: {output}");
    for file in [place.daemon_log(), place.daemon_output()] {
        let text = std::fs::read_to_string(&file).unwrap();
        let panic = text.lines().find(|line| line.contains("panicked") || line.contains("broke off"));
        assert_eq!(panic, None, "{}", file.display());
    }
    let embedded = place.open();
    let verified = embedded.verify().unwrap();
    assert!(verified.findings.is_empty(), "{:?}", verified.findings);
    assert!(verified.sound > 0);
}
