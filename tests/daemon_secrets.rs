//! A daemon's clients send values, tokens and rubbish with values in it: they come to light nowhere.
//!
//! Each way of sending one has a random marker of its own. It is looked for in the log at its finest level, in what the
//! daemon prints, in every answer but the one that may have it, in the environment, the command line and the memory of
//! the process, at rest and stopped amid its calls, and in every file below the root. Clients come by a Unix socket and by
//! TLS, in both its versions. The control: a definition's description, which is no secret, is found in memory and on disk
//! by the same looks. What the kernel holds of a connection is not the process's memory. Leans on `support::markers`; root reads the memory of others.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/pki.rs"]
mod pki;
mod support;
#[path = "support/tls.rs"]
mod tls;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pki::Certificates;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::process::{Pid, Signal, kill_process};
use support::daemon::{Daemon, PATIENCE};
use support::markers::Needles;
use support::wire::{self, Client, KEEPALIVE, Packet, REMOTE, Xdr, number};
use support::{Dice, Place, note};
use uuid::Uuid;

const STOPS: usize = 30;
const OPEN: Uuid = Uuid::from_u128(1);
const PRIVATE: Uuid = Uuid::from_u128(2);

#[test]
fn nothing_that_clients_send_comes_to_light() {
    let mut stage = Stage::set();
    let daemon = stage.serve();
    stage.add_keys();
    let (mut answers, mut held) = (Vec::new(), Vec::new());
    for way in Way::ALL {
        answers.extend(stage.play_by_the_rules(way));
        held.extend(stage.begin_and_stop(way));
    }
    answers.extend(stage.break_the_rules());

    let pid = daemon.pid();
    let memory = stage.needles.in_process(pid);
    let mut found = memory.found;
    assert_eq!(memory.secret, 1, "one mapping of secret memory, which can't be read");
    for about in ["environ", "cmdline"] {
        found.extend(stage.needles.in_file(Path::new(&format!("/proc/{pid}/{about}"))));
    }
    assert!(answers.len() > 40, "only {} answers", answers.len());
    let seen =
        stage.needles.in_bytes(&answers.concat()).into_keys().map(|name| format!("{name}: in an answer"));
    found.extend(seen);
    assert!(!stage.control.in_process(pid).found.is_empty(), "the control was not found in memory");
    let scanned = memory.scanned;
    drop(held);
    assert!(daemon.stop().success());
    for file in stage.files() {
        found.extend(stage.needles.in_file(&file));
    }
    let log = std::fs::read_to_string(stage.place.daemon_log()).unwrap();
    assert!(log.contains(": debug : strongroom::server"), "the log is not at its finest level");
    let controls = stage.files().iter().filter(|file| !stage.control.in_file(file).is_empty()).count();
    assert!(controls > 0, "the control was found in no file");
    assert_eq!(found, [""; 0]);
    note(&format!(
        "{} answers, {} lines of the log, {} KiB of memory",
        answers.len(),
        log.lines().count(),
        scanned >> 10
    ));
}

#[test]
fn a_daemon_stopped_amid_its_calls_holds_values_in_secret_memory_alone() {
    let mut stage = Stage::set();
    let daemon = stage.serve();
    stage.add_keys();
    let mut client = daemon.client();
    let small = stage.marker("a small value");
    let large = stage.marker("a large value").repeat(2_000);
    client.define(&stage.xml(OPEN, false)).unwrap().unwrap();
    client.define(&stage.xml(PRIVATE, true)).unwrap().unwrap();
    client.set(OPEN, &small).unwrap().unwrap();
    let token = std::fs::read(stage.token_file()).unwrap();
    let (ended, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let again = || !ended.load(Ordering::Relaxed) && calls.fetch_add(1, Ordering::Relaxed) < usize::MAX;
    let (mut found, mut scanned) = (Vec::new(), 0);
    let (stage, again, small, large, token) = (&stage, &again, &small, &large, &token);
    std::thread::scope(|scope| {
        for way in Way::ALL {
            scope.spawn(move || {
                let mut client = stage.client(way);
                while again() {
                    assert!(matches!(client.get(OPEN).unwrap().unwrap().len(), 32 | 64_000));
                }
            });
            scope.spawn(move || {
                let mut client = stage.client(way);
                while again() {
                    client.set(OPEN, small).unwrap().unwrap();
                    client.set(OPEN, large).unwrap().unwrap();
                }
            });
            scope.spawn(move || {
                let mut client = stage.client(way);
                client.identify(token).unwrap().unwrap();
                while again() {
                    client.identify(token).unwrap().unwrap();
                    client.set(PRIVATE, small).unwrap().unwrap();
                    assert_eq!(client.get(PRIVATE).unwrap().unwrap(), small);
                }
            });
        }
        let mut dice = Dice(Dice::seed());
        for _ in 0..STOPS {
            std::thread::sleep(Duration::from_micros(2_000 + dice.roll(8_000)));
            stop(&daemon);
            let memory = stage.needles.in_process(daemon.pid());
            found.extend(memory.found);
            scanned += memory.scanned;
            kill_process(Pid::from_child(&daemon.process), Signal::CONT).unwrap();
        }
        ended.store(true, Ordering::Relaxed);
    });
    assert_eq!(found, [""; 0], "in {STOPS} stops");
    // And when all is said and everybody is gone.
    daemon.descriptors_at_rest();
    assert_eq!(stage.needles.in_process(daemon.pid()).found, [""; 0], "at rest");
    let calls = calls.load(Ordering::Relaxed);
    assert!(calls > STOPS, "only {calls} rounds");
    note(&format!("{STOPS} stops amid {calls} rounds of calls, {} MiB scanned", scanned >> 20));
}

/// Over what a client speaks.
#[derive(Debug, Clone, Copy)]
enum Way {
    Unix,
    Tls13,
    Tls12,
}

impl Way {
    const ALL: [Self; 3] = [Self::Unix, Self::Tls13, Self::Tls12];
}

trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// A client, whatever it speaks over.
type AnyClient = Client<Box<dyn Stream>>;

/// How somebody comes.
type Door = fn(&Stage) -> AnyClient;

/// A keystore, and what to look for.
struct Stage {
    directory: tempfile::TempDir,
    certificates: Certificates,
    place: Place,
    needles: Needles,
    /// What is no secret, and can be found.
    control: Needles,
    description: String,
}

impl Stage {
    fn set() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = Place(directory.path().into());
        drop(place.open());
        let description: String = random().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut control = Needles::new();
        control.add("the control", description.as_bytes());
        let certificates = Certificates::new(&directory.path().join("pki"));
        Self { directory, certificates, place, needles: Needles::new(), control, description }
    }

    /// The daemon, on a Unix socket and on the network.
    fn serve(&self) -> Daemon {
        let lines =
            format!("listen_addr = \"127.0.0.1\"\ntls_port = \"0\"\n{}", self.certificates.settings());
        self.place.serve_with(&lines, &["--listen"])
    }

    /// Somebody who has come and opened the keystore.
    fn client(&self, way: Way) -> AnyClient {
        let by_tls = |version| {
            let client = tls::connect(self.place.listens("tls"), &self.certificates, version);
            Client::over(Box::new(client.stream) as Box<dyn Stream>)
        };
        let client = match way {
            Way::Unix => at(&self.place.socket()),
            Way::Tls13 => by_tls(&rustls::version::TLS13),
            Way::Tls12 => by_tls(&rustls::version::TLS12),
        };
        client.opened().unwrap()
    }

    /// The keystore's keys and the host's token are looked for too.
    fn add_keys(&mut self) {
        let store = self.place.read_keyring();
        self.needles.add_written("the host key", &std::fs::read(self.place.key_file()).unwrap());
        self.needles.add_written("the root key", &store.root_key);
        for (epoch, key) in store.epoch_keys {
            self.needles.add_written(&format!("the key of epoch {epoch}"), &key);
        }
        let token = std::fs::read(self.token_file()).unwrap();
        self.needles.add_written("the system token", &token);
    }

    fn token_file(&self) -> PathBuf {
        let files = support::files_below(&self.place.root());
        files.into_iter().find(|file| file.ends_with("common/system.token")).unwrap()
    }

    /// Bytes that nobody has ever seen, to be looked for under this name.
    fn marker(&mut self, name: &str) -> [u8; 32] {
        let marker = random();
        self.needles.add_written(name, &marker);
        marker
    }

    fn xml(&self, uuid: Uuid, private: bool) -> String {
        let private = if private { "yes" } else { "no" };
        format!(
            "<secret private='{private}'><uuid>{uuid}</uuid><description>{}</description></secret>",
            self.description
        )
    }

    /// All that is written: but for the key and the token themselves.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = support::files_below(self.directory.path());
        let (key, token) = (self.place.key_file(), self.token_file());
        files.retain(|file| file.is_file() && *file != key && *file != token); // sockets are none
        files
    }

    /// Values are set and read, tokens shown, right and wrong. Gives the answers in which there must be nothing.
    fn play_by_the_rules(&mut self, way: Way) -> Vec<Vec<u8>> {
        let mut client = self.client(way);
        let mut answers = Vec::new();
        client.define(&self.xml(OPEN, false)).unwrap().unwrap();
        client.define(&self.xml(PRIVATE, true)).unwrap().unwrap();
        let value = self.marker(&format!("a value, {way:?}"));
        client.set(OPEN, &value).unwrap().unwrap();
        assert_eq!(client.get(OPEN).unwrap().unwrap(), value);
        let large = self.marker(&format!("a large value, {way:?}")).repeat(2_048);
        client.set(OPEN, &large).unwrap().unwrap();
        assert_eq!(client.get(OPEN).unwrap().unwrap(), large);
        let private = self.marker(&format!("a private value, {way:?}"));
        client.set(PRIVATE, &private).unwrap().unwrap();
        answers.push(client.get(PRIVATE).unwrap().unwrap_err().body);
        let wrong: String = self
            .marker(&format!("a wrong token, {way:?}"))
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        client.identify(wrong.as_bytes()).unwrap().unwrap();
        self.needles.add("a wrong token, as it was sent", wrong.as_bytes());
        answers.push(client.get(PRIVATE).unwrap().unwrap_err().body);
        let token = std::fs::read(self.token_file()).unwrap();
        for parameters in [
            vec![("system.token", &token[..]), ("system.token", &token)],
            vec![("system.token", &token), ("shoe-size", &token)],
            vec![("unix-user-id", &token)],
            vec![("user-name", &token), ("selinux-context", &token), ("process-id", &token)],
        ] {
            let body = wire::identity_body(&parameters);
            answers.push(client.call(number::SET_IDENTITY, &body).unwrap().unwrap_err().body);
        }
        client.identify(&token).unwrap().unwrap();
        assert_eq!(client.get(PRIVATE).unwrap().unwrap(), private);
        client.undefine(PRIVATE).unwrap().unwrap();
        let late = self.marker(&format!("a value for a secret that is gone, {way:?}"));
        answers.push(client.set(PRIVATE, &late).unwrap().unwrap_err().body);
        client.define(&self.xml(PRIVATE, true)).unwrap().unwrap();
        answers
    }

    /// Packets that aren't as they should be, with a value in each. Gives whatever is answered.
    fn break_the_rules(&mut self) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        let doors: [(&str, Door); 6] = [
            ("main", |stage| stage.client(Way::Unix)),
            ("unopened", |stage| at(&stage.place.socket())),
            ("read-only", |stage| at(&stage.place.read_only_socket()).opened().unwrap()),
            ("admin", |stage| at(&stage.place.admin_socket())),
            ("TLS 1.3", |stage| stage.client(Way::Tls13)),
            ("TLS 1.2", |stage| stage.client(Way::Tls12)),
        ];
        for (where_to, come) in doors {
            for length in [1, 30, 640, 2_060, 3_000, 7_000] {
                let name = |what: &str| format!("{what} of {} bytes over the {where_to} socket", length * 32);
                let mut body = |what: &str| wire::set_body(OPEN, &self.marker(&name(what)).repeat(length));
                let mut cut = body("a value without its end");
                cut.0.truncate(cut.0.len() - 8);
                let mut flagged = body("a value with unknown flags");
                flagged.0.splice(flagged.0.len() - 4.., [0xFF; 4]);
                let packets = [
                    wire::call(number::SET_VALUE, 1, &cut),
                    wire::call(number::SET_VALUE, 2, &flagged),
                    wire::call(9_999, 3, &body("a value for no procedure")),
                    wire::call(19, 4, &body("a value for another driver")),
                    wire::call(number::NUM_OF_SECRETS, 5, &body("a value for a call without arguments")),
                    wire::packet(REMOTE, number::SET_VALUE, 0, 6, 1, &body("a value with a status").0),
                    wire::packet(REMOTE, number::SET_VALUE, 3, 7, 0, &body("a value as a stream").0),
                    wire::packet(REMOTE, number::SET_VALUE, 1, 8, 0, &body("a value as a reply").0),
                    wire::packet(0x1234_5678, number::SET_VALUE, 0, 9, 0, &body("a value for no program").0),
                    wire::packet(KEEPALIVE, 1, 2, 10, 0, &body("a value as a ping").0),
                    wire::packet(
                        REMOTE,
                        number::SET_VALUE,
                        4,
                        11,
                        0,
                        &Xdr::default().number(0).fixed(&body("a value with descriptors").0).0,
                    ),
                    wire::call(68, 12, &Xdr::default().opaque(b"PLAIN").fixed(&body("a value as SASL").0)),
                    wire::call(number::SET_IDENTITY, 13, &body("a value as an identity")),
                    wire::call(number::AUTH_LIST, 99, &Xdr::default()),
                ];
                answers.extend(exchange(come(self), &packets));
            }
        }
        answers
    }

    /// Values that are never sent to their end.
    fn begin_and_stop(&mut self, way: Way) -> Vec<AnyClient> {
        let mut held = Vec::new();
        for length in [100, 2_000] {
            let value = self.marker(&format!("half a value, {way:?}")).repeat(length);
            let packet = wire::call(number::SET_VALUE, 2, &wire::set_body(OPEN, &value));
            let mut client = self.client(way);
            client.stream.write_all(&packet[..packet.len() - 40]).unwrap();
            held.push(client);
        }
        // A call on another connection is answered when those halves have been looked at.
        let mut client = self.client(way);
        (0..100).for_each(|_| drop(client.list().unwrap()));
        held
    }
}

/// Somebody who has only connected.
fn at(socket: &Path) -> AnyClient {
    Client::over(Box::new(Client::connect(socket, PATIENCE).unwrap().stream))
}

/// Sends packets one after the other, and gives what is answered until the last of them is. The answers are short: they
/// wait where they are until all is sent.
fn exchange(mut client: AnyClient, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    packets.iter().for_each(|packet| client.stream.write_all(packet).unwrap());
    let mut answers = Vec::new();
    loop {
        let Packet { serial, body, .. } = client.receive().unwrap();
        answers.push(body);
        if serial == 99 {
            return answers;
        }
    }
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes
}

/// Stops every thread of the daemon, and waits until they stand.
fn stop(daemon: &Daemon) {
    kill_process(Pid::from_child(&daemon.process), Signal::STOP).unwrap();
    let tasks = format!("/proc/{}/task", daemon.pid());
    let stands = |task: &Path| {
        let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default(); // it may have ended
        stat.is_empty() || stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    };
    while !std::fs::read_dir(&tasks).unwrap().all(|task| stands(&task.unwrap().path())) {
        std::thread::yield_now();
    }
}
