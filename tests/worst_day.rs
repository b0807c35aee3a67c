//! The worst day: the daemon's key is gone, and somebody has to get everything back without losing a secret.
//!
//! One script from beginning to end, with `strongroomd`, stock virsh and `strongroom` as an operator has them. Leans on
//! systemd's notification to know when the daemon is ready. Refuses to wait for anything by the clock.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use strongroom::{Connection, Embedded, ExposeSecret, NewStore, OpenOptions, RecoveryKey};
use support::Place;

const UUID: &str = "3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234";
const SECRETS: usize = 200;

#[test]
fn a_lost_key_costs_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().canonicalize().unwrap());
    let paper = move_in(&place);

    // The key is lost. The daemon starts all the same, serves what it can, and says what to do.
    fs::remove_file(place.key_file()).unwrap();
    let daemon = place.serve("");
    let host = Operator { place: &place };
    let listed = host.virsh(&["-q", "secret-list"]);
    assert_eq!(listed.lines().count(), SECRETS, "{listed}");
    let refused = host.virsh(&["secret-get-value", UUID]);
    assert!(refused.contains("the keystore is locked: no key file"), "{refused}");
    let sheet = host.strongroom(&["status"], "").0;
    assert!(
        sheet.contains("locked: no key file") && sheet.contains("the recovery key (--recovery-key)"),
        "{sheet}"
    );

    // What is lost can't be added to or taken from while it is locked; what is at hand can be tested.
    let (_, refused) = host.strongroom(&["key", "add", "host-key", "/nowhere"], "");
    assert!(refused.starts_with("error: "), "{refused}");
    let (tested, _) = host.strongroom(&["key", "test", "--recovery-key-fd", "0"], &paper);
    assert!(tested.starts_with("The recovery key opens the slot recovery key"), "{tested}");
    let wrong = "000000-000000-000000-000000-000000-000000\n";
    let (_, told) = host.strongroom(&["unlock", "--recovery-key-fd", "0"], wrong);
    assert!(told.contains("typing error"), "{told}");

    // The recovery key opens it; nobody is disconnected.
    assert_eq!(host.strongroom(&["unlock", "--recovery-key-fd", "0"], &paper).0, "Keystore unlocked\n");
    assert_eq!(host.virsh(&["-q", "secret-get-value", UUID]), "dmFsdWUgMA==");

    // A new host key, in the place where the daemon looks; the slot of the lost one goes.
    let key = place.key_file();
    let (added, told) = host.strongroom(&["key", "add", "host-key", key.to_str().unwrap()], "");
    assert!(added.starts_with("Slot added: host key"), "{added}{told}");
    let slots: serde_json::Value =
        serde_json::from_str(&host.strongroom(&["key", "list", "--json"], "").0).unwrap();
    let slots = slots.as_array().unwrap();
    assert_eq!(slots.len(), 3, "{slots:?}");
    let lost = slots.iter().find(|slot| slot["kind"] == "host key").unwrap()["id"].as_str().unwrap();
    let (removed, told) = host.strongroom(&["key", "remove", lost], "");
    assert!(removed.starts_with("Slot removed: host key"), "{removed}{told}");

    // From here on it opens by itself.
    assert!(daemon.stop().success());
    let daemon = place.serve("");
    let sheet = host.strongroom(&["status"], "").0;
    assert!(sheet.lines().any(|line| line.split_whitespace().eq(["State:", "open"])), "{sheet}");
    let connection = Connection::open(&host.uri()).unwrap();
    let values: Vec<_> =
        connection.list_all(0).unwrap().iter().map(|secret| secret.value().unwrap()).collect();
    let mut values: Vec<_> =
        values.iter().map(|value| String::from_utf8(value.expose_secret().to_vec()).unwrap()).collect();
    values.sort_by_key(|value| value[6..].parse::<usize>().unwrap());
    assert_eq!(values, (0..SECRETS).map(|n| format!("value {n}")).collect::<Vec<_>>());
    assert!(daemon.stop().success());
}

/// A keystore with secrets in it, and what is written on the paper.
fn move_in(place: &Place) -> String {
    let options = || OpenOptions { key_file: Some(place.key_file()), ..OpenOptions::default() };
    let recovery_key = RecoveryKey::random().unwrap();
    let paper = String::from_utf8(recovery_key.text().unwrap().expose_secret().to_vec()).unwrap() + "\n";
    let new = NewStore { recovery_key: Some(recovery_key), ..NewStore::default() };
    Embedded::init(&place.uri(), options(), &new).unwrap();
    let connection = Connection::open_with(&place.uri(), options()).unwrap();
    for n in 0..SECRETS {
        let uuid = if n == 0 { format!("<uuid>{UUID}</uuid>") } else { String::new() };
        let xml = format!("<secret>{uuid}<usage type='ceph'><name>client {n}</name></usage></secret>");
        connection.define_xml(&xml, 0).unwrap().set_value(format!("value {n}").as_bytes()).unwrap();
    }
    paper
}

struct Operator<'a> {
    place: &'a Place,
}

impl Operator<'_> {
    fn uri(&self) -> String {
        format!("secret:///system?socket={}", self.place.socket().display())
    }

    /// Runs stock virsh, and gives what it said, wherever.
    fn virsh(&self, arguments: &[&str]) -> String {
        let Output { stdout, stderr, .. } =
            Command::new("virsh").args(["-c", &self.uri()]).args(arguments).output().unwrap();
        (String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap()).trim().to_owned()
    }

    fn strongroom(&self, arguments: &[&str], typed: &str) -> (String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.args(["-c", &self.uri()]).args(arguments).env_remove("STRONGROOM_KEY_FILE");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
        let Output { stdout, stderr, .. } = child.wait_with_output().unwrap();
        (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }
}
