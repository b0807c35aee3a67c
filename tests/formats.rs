//! Old keystores, through the library's public face: what an earlier version wrote, this one reads.
//!
//! `tests/data/store-v1` is a store of the first format, `tests/data/backup-v1` a backup of it; each README says what
//! is in it. Leans on the library alone. Refuses to let a fixture change: a new format gets a new folder.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::ExposeSecret;
use strongroom::driver::{Driver, Keys, RestoreOptions, Root, verify_backup};
use strongroom::memory::SecretBytes;
use strongroom::{Connection, OpenOptions};

const BACKUP: &str = "tests/data/backup-v1/backup";

/// The fixture as a root that can be opened.
fn root() -> tempfile::TempDir {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store-v1");
    let root = tempfile::tempdir().unwrap();
    for folder in ["etc/secrets", "run/secrets"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    for (file, place) in [
        ("keyring", "etc/secrets/keyring"),
        ("secrets.log", "etc/secrets/secrets.log"),
        ("anchor", "run/secrets/anchor"),
        ("host.key", "host.key"),
    ] {
        fs::copy(fixture.join(file), root.path().join(place)).unwrap();
        fs::set_permissions(root.path().join(place), PermissionsExt::from_mode(0o600)).unwrap();
    }
    root
}

fn holds_what_was_written(connection: &Connection) {
    for (secret, description, value) in [
        (1, "1.2", Some("the last one")),
        (2, "2.2", Some("two")),
        (3, "3.2", Some("three again")),
        (4, "4.1", None),
    ] {
        let found = connection.lookup_by_uuid(uuid::Uuid::from_bytes([secret; 16])).unwrap();
        assert_eq!(found.usage_id(), format!("/volumes/{secret}"));
        assert!(found.xml_desc().unwrap().contains(&format!("<description>{description}</description>")));
        let held = found.value().ok();
        assert_eq!(
            held.as_ref().map(|held| held.expose_secret()),
            value.map(str::as_bytes),
            "secret {secret}"
        );
    }
    assert_eq!(connection.num_of_secrets().unwrap(), 4);
}

#[test]
fn the_first_format_opens_by_its_host_key() {
    let root = root();
    let shown = root.path().display();
    let uri = format!("secret:///embed?root={shown}&key={shown}/host.key");
    holds_what_was_written(&Connection::open(&uri).unwrap());
    // Once more: the first opening wiped what was superseded and wrote the .xml copies.
    holds_what_was_written(&Connection::open(&uri).unwrap());
    assert!(root.path().join("etc/secrets/04040404-0404-0404-0404-040404040404.xml").exists());
}

#[test]
fn the_first_format_opens_by_its_passphrase() {
    let root = root();
    let options = OpenOptions {
        key_file: Some(root.path().join("no.key")),
        passphrase: Some(SecretBytes::copy_of(b"open sesame").unwrap()),
        ..OpenOptions::default()
    };
    let uri = format!("secret:///embed?root={}", root.path().display());
    holds_what_was_written(&Connection::open_with(&uri, options).unwrap());
}

#[test]
fn a_backup_of_the_first_format_is_restored_by_its_host_key_and_by_its_passphrase() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(BACKUP);
    let fixture = root();
    let by_host_key = Keys { host_key: Some(fixture.path().join("host.key")), ..Keys::default() };
    let by_passphrase = Keys {
        host_key: Some(fixture.path().join("no.key")),
        passphrase: Some(SecretBytes::copy_of(b"open sesame").unwrap()),
        ..Keys::default()
    };
    for keys in [by_host_key, by_passphrase] {
        let verified = verify_backup(&file, &keys).unwrap();
        assert_eq!((verified.sound, verified.findings), (4, Vec::new()));
        let place = tempfile::tempdir().unwrap();
        let root = Root::embed(place.path()).unwrap();
        let restored = Driver::restore(&root, &file, &keys, RestoreOptions::default()).unwrap();
        assert_eq!((restored.restored, restored.made_at), (4, MADE_AT));
        let shown = (place.path().display(), fixture.path().display());
        let uri = format!("secret:///embed?root={}&key={}/host.key", shown.0, shown.1);
        holds_what_was_written(&Connection::open(&uri).unwrap());
    }
}

/// Made once, and frozen.
const MADE_AT: u64 = 1_795_328_757;
