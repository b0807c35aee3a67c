//! Values and keys are in secret memory and, sealed, on disk; in no file, no other memory, no core, no message.
//!
//! Random markers are planted and looked for, sixteen bytes in a row, from outside and as root. The keys to look for come
//! from the second reader. Every look has its control: a process that does copy its value to the heap is caught. Leans on
//! `/proc/PID/mem`, on `memfd_secret(2)` and on gdb's gcore; fails where they are missing.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::{ExposeSecret, ExposeSecretMut};
use strongroom::memory::{SecretBytes, harden_process};
use strongroom::{Connection, Secret};
use support::markers::Needles;
use support::{Dice, Other, Place, note, say};

const XML: &str = "<secret><usage type='ceph'><name>client.marker</name></usage></secret>";
const STOPS: u64 = 50;

#[test]
fn no_file_holds_a_value_or_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let (place, marker) = (Place(directory.path().into()), marker());
    let connection = Connection::over(place.open().keystore());
    let secret = connection.define_xml(XML, 0).unwrap();
    secret.set_value(&marker).unwrap();
    let looked_at = look_through_files(&place, &marker);
    // Overwritten, undefined, closed: nothing of it comes to light then.
    secret.set_value(b"another").unwrap();
    secret.undefine().unwrap();
    drop((connection, secret));
    look_through_files(&place, &marker);
    assert!(looked_at >= 4, "keyring, log, copy, anchor: only {looked_at} files");
    std::fs::write(place.root().join("control"), [b"..", &marker[8..24], b".."].concat()).unwrap();
    let caught = std::panic::catch_unwind(|| look_through_files(&place, &marker));
    assert!(caught.is_err(), "the control was not found");
}

/// Looks at every file but the key file itself.
fn look_through_files(place: &Place, marker: &[u8; 32]) -> usize {
    let mut needles = Needles::new();
    needles.add_written("the value", marker);
    for (name, key) in keys(place) {
        needles.add_written(&name, &key);
    }
    let files = support::files_below(&place.0);
    let found: Vec<String> = files
        .iter()
        .filter(|file| **file != place.key_file())
        .flat_map(|file| needles.in_file(file))
        .collect();
    assert_eq!(found, [""; 0]);
    files.len() - 1
}

#[test]
fn only_secret_memory_holds_a_value_or_a_key() {
    if let Some(role) = support::role() {
        return hold(&role);
    }
    let directory = tempfile::tempdir().unwrap();
    let (place, marker) = (Place(directory.path().into()), marker());
    let mut child = start("only_secret_memory_holds_a_value_or_a_key", "hold", &place, &marker);
    let mut needles = needles(&place, &marker);
    for secret in place.read().secrets.values() {
        needles.add("the record's key", &secret.frame_key);
    }
    let memory = needles.in_process(child.process.id());
    assert_eq!(memory.found, [""; 0]);
    assert_eq!(memory.secret, 1, "one mapping of secret memory, which can't be read");
    let (core, core_len) = core_of(&child, directory.path());
    assert_eq!(needles.in_file(&core), [""; 0]);
    child.give(b"d");
    child.expect("dropped");
    let after = needles.in_process(child.process.id());
    assert_eq!(after.found, [""; 0]);
    note(&format!(
        "memory scanned: {} and {} KiB; core: {} KiB",
        memory.scanned >> 10,
        after.scanned >> 10,
        core_len >> 10
    ));
}

#[test]
fn the_same_looks_find_a_value_on_the_heap() {
    if let Some(role) = support::role() {
        return hold(&role);
    }
    let directory = tempfile::tempdir().unwrap();
    let (place, marker) = (Place(directory.path().into()), marker());
    let child = start("the_same_looks_find_a_value_on_the_heap", "control", &place, &marker);
    let needles = needles(&place, &marker);
    let memory = needles.in_process(child.process.id());
    assert!(memory.found.iter().any(|found| found.starts_with("the value: in ")), "{:?}", memory.found);
    let core = needles.in_file(&core_of(&child, directory.path()).0);
    assert!(core.iter().any(|found| found.starts_with("the value")), "{core:?}");
}

#[test]
fn a_process_stopped_amid_its_calls_holds_them_nowhere_else() {
    if let Some(role) = support::role() {
        return work(&role);
    }
    let directory = tempfile::tempdir().unwrap();
    let (place, marker) = (Place(directory.path().into()), marker());
    let mut child =
        start("a_process_stopped_amid_its_calls_holds_them_nowhere_else", "work", &place, &marker);
    let needles = needles(&place, &marker);
    let (mut dice, mut scanned) = (Dice(Dice::seed()), 0);
    let stops = std::env::var("STOPS").map_or(STOPS, |stops| stops.parse().unwrap());
    let mut found = Vec::new();
    for _ in 0..stops {
        std::thread::sleep(Duration::from_micros(dice.roll(5_000)));
        stop(&child);
        let memory = needles.in_process(child.process.id());
        found.extend(memory.found);
        assert_eq!(memory.secret, 1);
        scanned += memory.scanned;
        kill_process(Pid::from_child(&child.process), Signal::CONT).unwrap();
    }
    assert_eq!(found, [""; 0], "in {stops} stops");
    child.give(b"e");
    let said: Vec<String> = child.lines.iter().collect();
    let calls: Option<u64> = said.last().and_then(|said| said.strip_prefix("calls ")?.parse().ok());
    assert!(calls > Some(stops), "it did nothing: {said:?}");
    note(&format!("{stops} stops amid {} calls, {} MiB scanned", calls.unwrap(), scanned >> 20));
}

#[test]
fn the_binary_keeps_its_keys_in_secret_memory() {
    let directory = tempfile::tempdir().unwrap();
    let (place, marker) = (Place(directory.path().into()), marker());
    drop(place.open());
    let anchor = place.root().join("run/secrets/anchor");
    std::fs::remove_file(&anchor).unwrap();
    let process = Command::new(env!("CARGO_BIN_EXE_strongroom"))
        .args(["-c", &place.uri(), "secret-event", "--event", "lifecycle", "--loop"])
        .env("STRONGROOM_KEY_FILE", place.key_file())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut process = Killed(process);
    // The last thing that opening does is to write the anchor that isn't there.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !anchor.exists() {
        assert!(
            Instant::now() < deadline && process.0.try_wait().unwrap().is_none(),
            "it doesn't open the store"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    let memory = needles(&place, &marker).in_process(process.0.id());
    assert_eq!(memory.found, [""; 0]);
    assert_eq!(memory.secret, 1);
    process.0.kill().unwrap();
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A child that has taken in the marker, and says `ready`.
fn start(test: &str, role: &str, place: &Place, marker: &[u8; 32]) -> Other {
    let mut child = support::again(test, &[place.0.to_str().unwrap(), role]);
    child.give(marker);
    child.expect("ready");
    child
}

/// The child: it sets the marker as a value, reads it back, and holds it; the control copies it to the heap too.
fn hold(role: &[String]) {
    harden_process();
    let place = Place(role[0].clone().into());
    let connection = Connection::over(place.open().keystore());
    let secret = set_from_input(&connection);
    let value = secret.value().unwrap();
    let copy = (role[1] == "control").then(|| value.expose_secret().to_vec());
    say("ready");
    wait();
    std::hint::black_box(copy);
    drop((value, secret, connection));
    say("dropped");
    wait();
}

/// The child: it sets, reads and defines from three threads until it is told to end.
fn work(role: &[String]) {
    harden_process();
    let place = Place(role[0].clone().into());
    let connection = Connection::over(place.open().keystore());
    let secret = set_from_input(&connection);
    say("ready");
    let (mut calls, ended) = (0_u64, std::sync::atomic::AtomicBool::new(false));
    let again = || !ended.load(std::sync::atomic::Ordering::Relaxed);
    let uuid = secret.uuid();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while again() {
                drop(secret.value().unwrap());
            }
        });
        scope.spawn(|| {
            while again() {
                secret.set_secret_value(secret.value().unwrap()).unwrap();
                calls += 1;
            }
        });
        scope.spawn(|| {
            let mut round = 0;
            while again() {
                round += 1;
                let usage = "<usage type='ceph'><name>client.marker</name></usage>";
                let rest = format!("<uuid>{uuid}</uuid><description>{round}</description>{usage}");
                connection.define_xml(format!("<secret>{rest}</secret>"), 0).unwrap();
            }
        });
        wait();
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    say(&format!("calls {calls}"));
}

/// Reads the marker from the standard input into secret memory, by no other way, and sets it.
fn set_from_input(connection: &Connection) -> Secret {
    let mut value = SecretBytes::zeroed(32).unwrap();
    let read = rustix::io::read(rustix::stdio::stdin(), value.expose_secret_mut()).unwrap();
    assert_eq!(read, 32);
    let secret = connection.define_xml(XML, 0).unwrap();
    secret.set_secret_value(value).unwrap();
    secret
}

fn wait() {
    _ = rustix::io::read(rustix::stdio::stdin(), &mut [0; 1]).unwrap();
}

fn marker() -> [u8; 32] {
    let mut marker = [0; 32];
    SystemRandom::new().fill(&mut marker).unwrap();
    marker
}

fn keys(place: &Place) -> Vec<(String, [u8; 32])> {
    let store = place.read_keyring();
    let host_key = std::fs::read(place.key_file()).unwrap().try_into().unwrap();
    let mut keys = vec![("the host key".to_owned(), host_key), ("the root key".to_owned(), store.root_key)];
    keys.extend(store.epoch_keys.into_iter().map(|(epoch, key)| (format!("the key of epoch {epoch}"), key)));
    keys
}

fn needles(place: &Place, marker: &[u8; 32]) -> Needles {
    let mut needles = Needles::new();
    needles.add("the value", marker);
    keys(place).iter().for_each(|(name, key)| needles.add(name, key));
    needles
}

/// Stops every thread of the child, and waits until they stand.
fn stop(child: &Other) {
    kill_process(Pid::from_child(&child.process), Signal::STOP).unwrap();
    let tasks = format!("/proc/{}/task", child.process.id());
    let stands = |task: &Path| {
        let stat = std::fs::read_to_string(task.join("stat")).unwrap();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    };
    while !std::fs::read_dir(&tasks).unwrap().all(|task| stands(&task.unwrap().path())) {
        std::thread::yield_now();
    }
}

/// A core of the child with all that gdb can get: also mappings that the kernel would leave out.
fn core_of(child: &Other, directory: &Path) -> (PathBuf, u64) {
    let (prefix, pid) = (directory.join("core"), child.process.id().to_string());
    let output = Command::new("gcore")
        .args(["-a", "-o"])
        .arg(&prefix)
        .arg(&pid)
        .env_remove("DEBUGINFOD_URLS")
        .output();
    let output = output.expect("this test needs gcore (of gdb)");
    let core = directory.join(format!("core.{pid}"));
    let len = std::fs::metadata(&core).map_or(0, |about| about.len());
    assert!(len > 1 << 20, "no core: {}", String::from_utf8_lossy(&output.stderr));
    (core, len)
}
