//! What the one who runs a keystore types works on one in a directory and on a daemon's alike: the same script, the same
//! answers.
//!
//! The script is lived through twice, in this process's way and over the admin socket; what is said is compared word
//! for word, save ids and times. Then what only a daemon can do: go on where it was killed, and serve meanwhile.
//! Leans on `strongroom` itself for all of it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use strongroom::{Connection, ExposeSecret};
use support::Place;

/// What is typed: the words, what is given on standard input, and the status that it ends with. `DIR` is the test's own directory.
const SCRIPT: &[(&str, &str, i32)] = &[
    ("key add passphrase --from-fd 0 --label on-call", "correct horse battery\n", 0),
    ("key add passphrase --from-fd 0", "short\n", 1),
    ("key add passphrase --from-fd 0", "correct horse battery\n", 1), // opens a slot already
    ("key add host-key DIR/second.key", "", 0),
    ("key list", "", 0),
    ("key test --passphrase-fd 0", "correct horse battery\n", 0),
    ("key test --passphrase-fd 0", "wrong horse battery\n", 1),
    ("key test", "", 1),
    ("key change on-call --from-fd 0", "another horse\n", 0),
    ("key test --passphrase-fd 0", "correct horse battery\n", 1),
    ("key remove nothing-of-this-name", "", 1),
    ("key remove on-call", "", 0),
    ("key backup DIR/keyring-copy-WHICH", "", 0),
    ("key backup DIR/keyring-copy-WHICH", "", 1), // nothing is written over
    ("rotate", "", 0),
    ("rekey --forget DIR/second.key", "", 0),
    ("rekey", "", 0),
    ("rotate", "", 0),
    ("backup DIR/backup-WHICH", "", 0),
    ("verify", "", 0),
    ("verify --json", "", 0),
    ("verify --repair", "", 0),
    ("-r rotate", "", 1),
    ("-r key remove on-call", "", 1),
];

#[test]
fn a_daemons_keystore_is_administered_as_one_in_a_directory_is() {
    let embedded = transcript("embedded");
    let served = transcript("served");
    for (embedded, served) in embedded.iter().zip(&served) {
        assert_eq!(embedded, served);
    }
    for (said, (words, _, status)) in embedded.iter().zip(SCRIPT) {
        assert!(said.ends_with(&format!("status {status}\n")), "{words}: {said}");
        assert!(!said.contains("horse"), "{words}: {said}");
    }
}

fn transcript(which: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().canonicalize().unwrap());
    fill(&place, 20);
    let (uri, daemon) = match which {
        "embedded" => (place.uri(), None),
        _ => (socket_uri(&place), Some(place.serve(""))),
    };
    let said = SCRIPT.iter().map(|(words, typed, _)| {
        let words = words.replace("DIR", place.0.to_str().unwrap()).replace("WHICH", "copy");
        let said = strongroom(&place, &uri, &words, typed);
        format!("$ {words}\n{}", masked(&said)).replace(place.0.to_str().unwrap(), "DIR")
    });
    let said = said.collect();
    if let Some(daemon) = daemon {
        assert!(daemon.stop().success());
    }
    // All that was there is there.
    let connection = place.open();
    let connection = Connection::over(connection.keystore());
    assert_eq!(connection.list_all(0).unwrap().len(), 20);
    for secret in connection.list_all(0).unwrap() {
        assert!(secret.value().unwrap().expose_secret().starts_with(b"value "));
    }
    said
}

#[test]
fn a_rotation_goes_on_where_the_daemon_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().canonicalize().unwrap());
    fill(&place, 3000);
    let uri = socket_uri(&place);
    let mut epoch = 1;
    // Until a kill came amid one: the keyring, as docs/format.md has it, holds two epochs then.
    loop {
        epoch += 1;
        assert!(epoch < 20, "no kill came amid a rotation");
        let daemon = place.serve("");
        let said = strongroom(&place, &uri, "rotate --no-wait", "");
        assert!(said.ends_with("status 0\n"), "{said}");
        daemon.kill();
        let keyring = std::fs::read(place.etc().join("keyring")).unwrap();
        if keyring[50..52] == [2, 0] {
            break;
        }
    }
    let daemon = place.serve("");
    // Nobody asks it to: the new one goes on by itself. This only waits until it is done, or begins none anew.
    let epochs = || {
        let status: serde_json::Value = serde_json::from_str(
            strongroom(&place, &uri, "status --json", "").strip_suffix("status 0\n").unwrap(),
        )
        .unwrap();
        (status["epochs"].clone(), status["rotation"].clone())
    };
    let patience = std::time::Instant::now() + support::daemon::PATIENCE;
    while !epochs().1.is_null() {
        assert!(std::time::Instant::now() < patience, "{:?}", epochs());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(epochs().0, serde_json::json!([epoch]));
    assert_eq!(Connection::open(&uri).unwrap().num_of_secrets().unwrap(), 3000);
    let verified = strongroom(&place, &uri, "verify", "");
    assert!(verified.contains("secrets ok: 3000, problems: 0"), "{verified}");
    drop(daemon);
}

fn fill(place: &Place, secrets: usize) {
    let keystore = place.open();
    let connection = Connection::over(keystore.keystore());
    for n in 0..secrets {
        let xml = format!(
            "<secret><uuid>00000000-0000-4000-8000-{n:012}</uuid><usage type='ceph'><name>{n}</name></usage></secret>"
        );
        connection.define_xml(&xml, 0).unwrap().set_value(format!("value {n}").as_bytes()).unwrap();
    }
}

fn socket_uri(place: &Place) -> String {
    format!("secret:///system?socket={}", place.socket().display())
}

/// What it says on its outputs, and how it ends.
fn strongroom(place: &Place, uri: &str, words: &str, typed: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command.args(["-c", uri]).args(words.split(' ')).current_dir(&place.0);
    command.env("LANG", "C.UTF-8").env("STRONGROOM_KEY_FILE", place.key_file());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    format!("{}{}status {}\n", text(stdout), text(stderr), status.code().unwrap())
}

/// Without what differs from one keystore to the next: ids, and what calibration came to.
fn masked(said: &str) -> String {
    let mut masked = String::new();
    let mut rest = said;
    while let Some(at) = rest.find(|it: char| it.is_ascii_hexdigit()) {
        let (before, from) = rest.split_at(at);
        masked.push_str(before);
        let len = from.find(|it: char| !(it.is_ascii_hexdigit() || it == '-')).unwrap_or(from.len());
        let (word, behind) = from.split_at(len);
        let is_uuid = word.len() == 36 && word.matches('-').count() == 4 && !word.starts_with("00000000-");
        masked.push_str(if is_uuid { "UUID" } else { word });
        rest = behind;
    }
    masked.push_str(rest);
    let cost = |line: &str| match line.split_once("Argon2id ") {
        Some((before, _)) => format!("{before}Argon2id …"),
        None => line.to_owned(),
    };
    masked.lines().map(cost).collect::<Vec<_>>().join("\n") + "\n"
}
