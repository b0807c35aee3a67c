//! Backup, restore and repair of real roots, with calls going on.

use std::path::PathBuf;

use super::*;
use crate::administration::{Backup, Finding};
use crate::driver::{RestoreOptions, verify_backup};

fn bytes(bytes: &[u8]) -> SecretBytes {
    SecretBytes::copy_of(bytes).unwrap()
}

fn write_out(mut backup: Box<dyn Backup>, file: &Path) {
    let mut whole = Vec::new();
    while let Some(piece) = backup.next_piece().unwrap() {
        whole.extend(piece);
    }
    assert_eq!(whole.len() as u64, backup.total());
    fs::write(file, whole).unwrap();
}

/// A keystore with a passphrase, two secrets, one of them private, and a backup of it.
fn backed_up(root: &Path) -> (Arc<Driver>, Connection, PathBuf) {
    let place = Root::embed(&root.join("root")).unwrap();
    let keys = Keys { host_key: Some(root.join("host.key")), ..Keys::default() };
    let new = NewStore { passphrase: Some(bytes(b"open sesame")), ..NewStore::default() };
    Driver::init(&place, &keys, &new).unwrap();
    let driver = driver(root);
    let connection = connect(&driver);
    connection.define_xml(xml(ONE, "", "a"), 0).unwrap().set_value(b"one").unwrap();
    connection.define_xml(xml(TWO, "private='yes'", "b"), 0).unwrap().set_value(b"two").unwrap();
    let file = root.join("backup");
    write_out(driver.backup().unwrap(), &file);
    (driver, connection, file)
}

/// By the passphrase alone, as on another host.
fn by_passphrase(root: &Path) -> Keys {
    let passphrase = Some(bytes(b"open sesame"));
    Keys { host_key: Some(root.join("no.key")), passphrase, ..Keys::default() }
}

#[test]
fn a_backup_opens_on_another_host_by_its_passphrase() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (driver, connection, file) = backed_up(here.path());
    connection.define_xml(xml(ONE, "ephemeral='yes'", "a"), 0).unwrap();
    drop((connection, driver));
    let keys = by_passphrase(there.path());
    assert_eq!(verify_backup(&file, &keys).unwrap().sound, 2);
    let root = Root::embed(&there.path().join("root")).unwrap();
    let restored = Driver::restore(&root, &file, &keys, RestoreOptions::default()).unwrap();
    assert_eq!((restored.restored, restored.slots.len(), restored.aside.len()), (2, 2, 0));
    assert!(root.etc.join(format!("{ONE}.xml")).exists());
    let driver = Driver::open(root.clone(), "secret:///system".into(), &keys).unwrap();
    let connection = connect(&driver);
    assert_eq!(value(&connection.lookup_by_usage(UsageType::Ceph, "a").unwrap()), b"one");
    let elevated = connection.elevated().unwrap();
    assert_eq!(value(&elevated.lookup_by_usage(UsageType::Ceph, "b").unwrap()), b"two");
    let in_use = Driver::restore(&root, &file, &keys, RestoreOptions::default()).unwrap_err();
    assert!(in_use.to_string().contains("in use"), "{in_use}");
    drop((connection, elevated, driver));
    let there_already = Driver::restore(&root, &file, &keys, RestoreOptions::default()).unwrap_err();
    assert!(there_already.advice().unwrap().contains("--replace"), "{there_already}");
}

#[test]
fn a_wrong_key_or_file_touches_no_root() {
    let here = tempfile::tempdir().unwrap();
    let (_driver, _connection, file) = backed_up(here.path());
    let root = Root::embed(&here.path().join("elsewhere")).unwrap();
    let wrong = Keys { passphrase: Some(bytes(b"open barley")), ..by_passphrase(here.path()) };
    let refuse = |file: &Path, keys: &Keys| {
        let error = Driver::restore(&root, file, keys, RestoreOptions::default()).unwrap_err();
        assert!(!root.etc.exists());
        format!("{error} {}", error.advice().unwrap())
    };
    let told = refuse(&file, &wrong);
    assert!(told.contains("doesn't open: wrong passphrase") && told.contains("backup"), "{told}");
    let keys = by_passphrase(here.path());
    assert!(refuse(&here.path().join("nothing"), &keys).contains("mind the spelling"));
    assert!(refuse(&here.path().join("host.key"), &keys).contains("no backup"));
    let mut spoilt = fs::read(&file).unwrap();
    let middle = spoilt.len() * 3 / 4;
    spoilt[middle..middle + 40].fill(7);
    fs::write(here.path().join("spoilt"), spoilt).unwrap();
    assert!(refuse(&here.path().join("spoilt"), &keys).contains("--partial"));
}

#[test]
fn a_backup_ends_when_the_keystore_is_locked_and_opened_again() {
    let root = tempfile::tempdir().unwrap();
    let (driver, _connection, _) = backed_up(root.path());
    let mut backup = driver.backup().unwrap();
    assert!(backup.next_piece().unwrap().is_some());
    driver.lock().unwrap();
    let error = backup.next_piece().unwrap_err();
    assert!(error.to_string().contains("not complete"), "{error}");
    assert!(driver.backup().err().unwrap().to_string().contains("locked on purpose"));
    driver.unlock(&Keys::default()).unwrap();
    assert!(backup.next_piece().is_err());
    write_out(driver.backup().unwrap(), &root.path().join("again"));
}

/// Spoils the last byte of the record of the secret whose UUID begins so: its value's.
fn spoil(root: &Path, byte: u8) {
    let log = root.join("root/etc/secrets/secrets.log");
    let mut bytes = fs::read(&log).unwrap();
    let heads = (0..bytes.len()).step_by(32).filter(|at| bytes[*at..].starts_with(b"SRf\n"));
    let ends: Vec<(usize, u8)> = heads.map(|at| (at, bytes[at + 48])).collect();
    let at = ends.iter().rposition(|(_, uuid)| *uuid == byte).unwrap();
    let end = ends.get(at + 1).map_or(bytes.len(), |(next, _)| *next);
    bytes[end - 1] ^= 1;
    fs::write(log, bytes).unwrap();
}

#[test]
fn a_keystore_is_repaired_while_it_is_served() {
    let root = tempfile::tempdir().unwrap();
    let (driver, connection, _) = backed_up(root.path());
    let ephemeral =
        connection.define_xml(xml("33333333-3333-3333-3333-333333333333", "ephemeral='yes'", "c"), 0);
    let ephemeral = ephemeral.unwrap();
    ephemeral.set_value(b"in memory").unwrap();
    let untouched = driver.repair().unwrap();
    assert_eq!((untouched.kept, untouched.aside.len(), untouched.copies), (2, 0, 0));

    spoil(root.path(), 0x11);
    let etc = root.path().join("root/etc/secrets");
    fs::remove_file(etc.join(format!("{TWO}.xml"))).unwrap();
    assert!(driver.verify().unwrap().findings.iter().any(Finding::is_damage));
    let repaired = driver.repair().unwrap();
    assert_eq!((repaired.kept, repaired.lost.len(), repaired.copies), (1, 0, 1));
    assert_eq!(repaired.without_value[0].usage.as_deref(), Some("ceph a"));
    assert_eq!(repaired.aside, ["secrets.log.damaged-1"]);
    assert!(etc.join("secrets.log.damaged-1").exists() && etc.join(format!("{TWO}.xml")).exists());

    assert!(!driver.verify().unwrap().findings.iter().any(Finding::is_damage));
    let healed = connection.lookup_by_uuid_string(ONE).unwrap();
    assert!(healed.value().unwrap_err().to_string().contains("does not have a value"));
    healed.set_value(b"healed").unwrap();
    assert_eq!((value(&healed), value(&ephemeral)), (b"healed".to_vec(), b"in memory".to_vec()));
}

#[test]
fn a_keystore_that_opens_no_more_is_repaired_as_far_as_it_goes() {
    let root = tempfile::tempdir().unwrap();
    let (driver, connection, file) = backed_up(root.path());
    let log = root.path().join("root/etc/secrets/secrets.log");
    let place = Root::embed(&root.path().join("root")).unwrap();
    let keys = by_passphrase(root.path());
    drop((connection, driver));
    fs::remove_file(&log).unwrap();
    assert!(Driver::open(place.clone(), String::new(), &keys).is_err());
    let repaired = Driver::repair_root(&place, &keys).unwrap();
    assert_eq!((repaired.kept, repaired.lost.len()), (0, 2));
    assert_eq!(repaired.lost[0].usage.as_deref(), Some("ceph a"));
    let driver = Driver::open(place.clone(), String::new(), &keys).unwrap();
    assert_eq!(connect(&driver).num_of_secrets().unwrap(), 0);
    drop(driver);

    let how = RestoreOptions { replace: true, ..RestoreOptions::default() };
    let restored = Driver::restore(&place, &file, &keys, how).unwrap();
    assert_eq!((restored.restored, restored.aside.len()), (2, 2));
    let driver = Driver::open(place, String::new(), &keys).unwrap();
    assert_eq!(value(&connect(&driver).lookup_by_uuid_string(ONE).unwrap()), b"one");
}
