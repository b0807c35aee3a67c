//! Locking and unlocking while calls, sessions and subscriptions go on.

use super::*;
use crate::driver::Reloaded;

const PASSPHRASE: &[u8] = b"open sesame";

/// A keystore that a passphrase opens, and nothing else; locked.
fn with_passphrase(root: &Path) -> Arc<Driver> {
    let place = Root::embed(&root.join("root")).unwrap();
    let new = NewStore { without_host_key: true, passphrase: Some(bytes(PASSPHRASE)), ..NewStore::default() };
    Driver::init(&place, &Keys::default(), &new).unwrap();
    driver(root)
}

fn bytes(bytes: &[u8]) -> SecretBytes {
    SecretBytes::copy_of(bytes).unwrap()
}

fn passphrase(text: &[u8]) -> Keys {
    Keys { passphrase: Some(bytes(text)), ..Keys::default() }
}

#[test]
fn locking_takes_the_values_and_leaves_the_rest() {
    let root = tempfile::tempdir().unwrap();
    let driver = driver(root.path());
    let connection = connect(&driver);
    let secret = connection.define_xml(xml(ONE, "private='yes'", "a"), 0).unwrap();
    secret.set_value(b"stored").unwrap();
    let ephemeral = connection.define_xml(xml(TWO, "ephemeral='yes'", "b"), 0).unwrap();
    ephemeral.set_value(b"in memory").unwrap();
    let events = connection.events(EventKind::ValueChanged, None).unwrap();

    driver.lock().unwrap();
    let why = connection.locked().unwrap();
    assert!(
        why.to_string().contains("locked on purpose") && why.to_string().contains("strongroom unlock"),
        "{why}"
    );
    let elevated = connection.elevated().unwrap().lookup_by_usage(UsageType::Ceph, "a").unwrap();
    assert_eq!(elevated.value().unwrap_err(), why);
    assert_eq!(secret.set_value(b"x").unwrap_err(), why);
    assert_eq!(secret.undefine().unwrap_err(), why);
    assert!(secret.xml_desc().unwrap().contains("private='yes'"));
    assert_eq!(connection.num_of_secrets().unwrap(), 2);
    ephemeral.set_value(b"changed").unwrap();
    assert_eq!((value(&ephemeral), driver.ephemeral_count()), (b"changed".to_vec(), 1));
    assert_eq!(driver.status().slots.len(), 1);
    assert!(
        Connection::open(&uri(root.path())).unwrap_err().to_string().contains("in use"),
        "the root stays ours"
    );

    // The key is at hand, and still nothing but `unlock` uses it.
    assert_eq!(driver.reload().unwrap(), Reloaded::Locked(why));
    assert!(secret.set_value(b"x").is_err());
    driver.unlock(&Keys::default()).unwrap();
    driver.unlock(&Keys::default()).unwrap();
    assert_eq!(connection.locked(), None);
    assert_eq!(value(&connection.elevated().unwrap().lookup_by_uuid(secret.uuid()).unwrap()), b"stored");
    assert_eq!(value(&ephemeral), b"changed");
    secret.set_value(b"again").unwrap();
    let told: Vec<_> = std::iter::from_fn(|| events.next_within(std::time::Duration::ZERO)).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(driver.verify().unwrap().findings.is_empty());
}

#[test]
fn a_restart_opens_what_was_locked_on_purpose() {
    let root = tempfile::tempdir().unwrap();
    let driver_before = driver(root.path());
    driver_before.lock().unwrap();
    drop(driver_before);
    assert_eq!(connect(&driver(root.path())).locked(), None);
}

#[test]
fn a_wrong_passphrase_is_called_wrong_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let driver = with_passphrase(root.path());
    let connection = connect(&driver);
    let before = connection.locked().unwrap();
    let error = driver.unlock(&passphrase(b"open barley")).unwrap_err();
    assert_eq!(error.detail(), "the keystore is locked: wrong passphrase");
    assert!(error.advice().unwrap().contains("passphrase"));
    assert!(driver.unlock(&Keys::default()).is_err());
    assert_eq!(connection.locked(), Some(before));
    driver.unlock(&passphrase(PASSPHRASE)).unwrap();
    connection.define_xml(xml(ONE, "", "a"), 0).unwrap().set_value(b"v").unwrap();
    assert!(driver.status().key.unwrap().slot.kind.contains("passphrase"));
}

#[test]
fn calls_are_answered_while_somebody_tries_a_passphrase() {
    let root = tempfile::tempdir().unwrap();
    let driver = with_passphrase(root.path());
    let connection = connect(&driver);
    std::thread::scope(|scope| {
        // As if one were trying: a second one waits, and whoever doesn't unlock doesn't.
        let trying = driver.changing();
        let second = scope.spawn(|| driver.unlock(&passphrase(PASSPHRASE)));
        let secret = connection.define_xml(xml(ONE, "ephemeral='yes'", ""), 0).unwrap();
        secret.set_value(b"e").unwrap();
        assert_eq!((value(&secret), connection.num_of_secrets().unwrap()), (b"e".to_vec(), 1));
        assert!(driver.status().locked.is_some() && driver.verify().is_err());
        assert!(!second.is_finished());
        drop(trying);
        second.join().unwrap().unwrap();
    });
    assert_eq!(connection.locked(), None);
}

#[test]
fn a_reload_finds_the_host_key_that_came_back() {
    let root = tempfile::tempdir().unwrap();
    let (key, away) = (root.path().join("host.key"), root.path().join("away"));
    let secret = open(root.path()).define_xml(xml(ONE, "", "a"), 0).unwrap();
    secret.set_value(b"x").unwrap();
    drop(secret);
    fs::rename(&key, &away).unwrap();
    let driver = driver(root.path());
    let Reloaded::Locked(why) = driver.reload().unwrap() else { panic!() };
    assert!(why.to_string().contains("no key file"), "{why}");
    fs::write(&key, [7; 32]).unwrap();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let Reloaded::Locked(why) = driver.reload().unwrap() else { panic!() };
    assert!(why.to_string().contains("not this keystore's"), "{why}");
    assert_eq!(connect(&driver).locked(), Some(why));
    fs::rename(&away, &key).unwrap();
    assert_eq!(driver.reload().unwrap(), Reloaded::Unlocked);
    assert_eq!(value(&connect(&driver).lookup_by_uuid_string(ONE).unwrap()), b"x");

    let copy = root.path().join(format!("root/etc/secrets/{ONE}.xml"));
    fs::remove_file(&copy).unwrap();
    assert_eq!(driver.reload().unwrap(), Reloaded::Open { copies: 1, at_risk: None });
    assert_eq!(driver.reload().unwrap(), Reloaded::Open { copies: 0, at_risk: None });
    assert!(copy.exists());
}

#[test]
fn a_reload_warns_of_a_host_key_that_the_next_start_would_miss() {
    let root = tempfile::tempdir().unwrap();
    let (key, away) = (root.path().join("host.key"), root.path().join("away"));
    let driver = driver(root.path());
    let reload = || match driver.reload().unwrap() {
        Reloaded::Open { copies: 0, at_risk } => at_risk,
        other => panic!("{other:?}"),
    };
    assert_eq!(reload(), None);
    fs::rename(&key, &away).unwrap();
    let why = reload().unwrap();
    let expected = format!("a new start would find it locked: no key file '{}'", key.display());
    assert_eq!(why.detail(), expected);
    assert!(why.advice().unwrap().starts_with("put the key back before this process ends"), "{why:?}");
    connect(&driver).define_xml(xml(ONE, "", "a"), 0).unwrap().set_value(b"x").unwrap();
    fs::write(&key, [7; 32]).unwrap();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(reload().unwrap().detail().contains("is not this keystore's"), "another key took its place");
    fs::set_permissions(&away, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    fs::rename(&away, &key).unwrap();
    assert!(reload().unwrap().detail().contains("can be read or changed by others"));
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(reload(), None);
}

#[test]
fn a_keystore_that_a_passphrase_opened_misses_no_host_key() {
    let root = tempfile::tempdir().unwrap();
    let driver = with_passphrase(root.path());
    driver.unlock(&passphrase(PASSPHRASE)).unwrap();
    assert_eq!(driver.reload().unwrap(), Reloaded::Open { copies: 0, at_risk: None });
}

/// A keystore with the private secret `ONE` (usage `a`), locked, whose copy is gone: nothing tells of the secret.
fn locked_and_forgotten(root: &Path) -> (Arc<Driver>, Connection) {
    let driver = driver(root);
    let connection = connect(&driver);
    let secret = connection.define_xml(xml(ONE, "private='yes'", "a"), 0).unwrap();
    secret.set_value(b"the private one").unwrap();
    drop((connection, secret, driver));
    fs::rename(root.join("host.key"), root.join("away")).unwrap();
    fs::remove_file(root.join(format!("root/etc/secrets/{ONE}.xml"))).unwrap();
    let driver = super::driver(root);
    let connection = connect(&driver);
    (driver, connection)
}

fn bring_back_the_key(root: &Path, driver: &Driver) {
    fs::rename(root.join("away"), root.join("host.key")).unwrap();
    assert_eq!(driver.reload().unwrap(), Reloaded::Unlocked);
}

#[test]
fn an_ephemeral_secret_of_the_same_uuid_hides_the_stored_one_and_gets_nothing_of_it() {
    let root = tempfile::tempdir().unwrap();
    let (driver, connection) = locked_and_forgotten(root.path());
    let ephemeral = connection.define_xml(xml(ONE, "ephemeral='yes'", "b"), 0).unwrap();
    bring_back_the_key(root.path(), &driver);

    assert_eq!(connection.num_of_secrets().unwrap(), 1);
    let ask = |attributes: &str, usage: &str| connection.define_xml(xml(ONE, attributes, usage), 0);
    assert!(ephemeral.value().unwrap_err().to_string().contains("does not have a value"));
    for usage in ["a", "b"] {
        ask("", usage).unwrap_err(); // it would become persistent, with the other's value
    }
    assert!(ask("", "b").unwrap_err().to_string().contains("hides a stored one"));
    ask("ephemeral='yes'", "b").unwrap();
    assert!(ephemeral.value().unwrap_err().to_string().contains("does not have a value"));
    ephemeral.set_value(b"its own").unwrap();
    assert_eq!(value(&ephemeral), b"its own");
    let by_usage = |id: &str| connection.lookup_by_usage(UsageType::Ceph, id);
    assert!(by_usage("a").is_err(), "the hidden one's usage must not lead to the other's value");
    assert_eq!(value(&by_usage("b").unwrap()), b"its own");
    let taken = connection.define_xml(xml(TWO, "", "a"), 0).unwrap_err();
    assert!(taken.to_string().contains(&format!("{ONE} already defined for use with a")), "{taken}");

    // Locked and opened again, it is the same.
    driver.lock().unwrap();
    assert_eq!((value(&ephemeral), connection.num_of_secrets().unwrap()), (b"its own".to_vec(), 1));
    assert!(ask("", "b").unwrap_err().to_string().contains("locked"));
    driver.unlock(&Keys::default()).unwrap();

    ephemeral.undefine().unwrap();
    let stored = by_usage("a").unwrap();
    assert_eq!(stored.value().unwrap_err().to_string(), "Invalid secret: secret is private");
    let stored = connection.elevated().unwrap().lookup_by_uuid(stored.uuid()).unwrap();
    assert_eq!(value(&stored), b"the private one");
}

#[test]
fn an_ephemeral_secret_with_a_stored_ones_usage_is_found_by_it_but_never_stored_beside_it() {
    let root = tempfile::tempdir().unwrap();
    let (driver, connection) = locked_and_forgotten(root.path());
    let ephemeral = connection.define_xml(xml(TWO, "ephemeral='yes'", "a"), 0).unwrap();
    ephemeral.set_value(b"in its place").unwrap();
    bring_back_the_key(root.path(), &driver);

    assert_eq!(connection.num_of_secrets().unwrap(), 2);
    let by_usage = || connection.lookup_by_usage(UsageType::Ceph, "a").unwrap();
    assert_eq!(value(&by_usage()), b"in its place");
    let error = connection.define_xml(xml(TWO, "", "a"), 0).unwrap_err().to_string();
    assert!(error.ends_with(&format!("{ONE} already defined for use with a")), "{error}");
    ephemeral.undefine().unwrap();
    assert_eq!(by_usage().uuid_string(), ONE);
}

#[test]
fn locking_in_the_middle_of_it_all_fails_cleanly_or_not_at_all() {
    let root = tempfile::tempdir().unwrap();
    let driver = driver(root.path());
    let connection = connect(&driver);
    let acknowledged = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4_u8)
            .map(|thread| {
                let connection = &connection;
                scope.spawn(move || {
                    let mut last = None;
                    let uuid = format!("{thread:02x}000000-0000-0000-0000-000000000000");
                    for round in 0..40_u8 {
                        let set = connection
                            .define_xml(xml(&uuid, "", &uuid), 0)
                            .and_then(|secret| secret.set_value(&[thread, round]));
                        match set {
                            Ok(()) => last = Some(round),
                            Err(error) => assert!(error.to_string().contains("locked on purpose"), "{error}"),
                        }
                    }
                    (uuid, thread, last)
                })
            })
            .collect();
        for _ in 0..10 {
            driver.lock().unwrap();
            driver.unlock(&Keys::default()).unwrap();
        }
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    driver.lock().unwrap();
    driver.unlock(&Keys::default()).unwrap();
    for (uuid, thread, last) in acknowledged {
        let Some(round) = last else { continue };
        assert_eq!(value(&connection.lookup_by_uuid_string(&uuid).unwrap()), [thread, round]);
    }
    assert!(driver.verify().unwrap().findings.is_empty());
}
