//! Keys for life: slots come and go while the keystore serves, and it never ends up with none that works.

use super::*;
use crate::administration::{Key, SlotStatus};
use crate::driver::KeyringRestored;

fn bytes(bytes: &[u8]) -> SecretBytes {
    SecretBytes::copy_of(bytes).unwrap()
}

fn passphrase(text: &str) -> Key {
    Key::Passphrase(bytes(text.as_bytes()))
}

fn host(byte: u8) -> Key {
    Key::Host(bytes(&[byte; 32]))
}

fn host_key(root: &Path) -> Key {
    Key::Host(bytes(&fs::read(root.join("host.key")).unwrap()))
}

fn id(slot: &SlotStatus) -> uuid::Uuid {
    slot.id.parse().unwrap()
}

fn slots(driver: &Driver) -> Vec<String> {
    driver.status().slots.iter().map(|slot| format!("{} {}", slot.kind, slot.label)).collect()
}

/// What opens a new start of this keystore, and nothing else at hand.
fn opens(root: &Path, keys: Keys) -> bool {
    let keys = Keys { host_key: Some(root.join("nowhere.key")), ..keys };
    let driver = Driver::open(Root::embed(&root.join("root")).unwrap(), "secret:///system".into(), &keys);
    connect(&driver.unwrap()).locked().is_none()
}

#[test]
fn a_slot_of_each_kind_is_added_and_opens_the_next_start() {
    let root = tempfile::tempdir().unwrap();
    let recovery = RecoveryKey::random().unwrap().text().unwrap();
    {
        let driver = driver(root.path());
        let added = driver.add_key(&passphrase("open sesame"), "the door").unwrap();
        assert_eq!((&*added.kind, added.label.as_str()), ("passphrase", "the door"));
        assert!(added.argon2id.is_some());
        driver.add_key(&Key::Recovery(recovery.try_clone().unwrap()), "").unwrap();
        driver.add_key(&Key::Credential(bytes(&[7; 32])), "unit").unwrap();
        driver.add_key(&host(8), "spare").unwrap();
        assert_eq!(
            slots(&driver)[1..],
            ["passphrase the door", "recovery key ", "credential unit", "host key spare"]
        );
        connect(&driver).define_xml(xml(ONE, "", "a"), 0).unwrap();
    }
    let root = root.path();
    assert!(opens(root, Keys { passphrase: Some(bytes(b"open sesame")), ..Keys::default() }));
    assert!(opens(root, Keys { recovery_key: Some(recovery), ..Keys::default() }));
    assert!(opens(root, Keys { host_key_bytes: Some(bytes(&[7; 32])), ..Keys::default() }));
    assert!(opens(root, Keys { host_key_bytes: Some(bytes(&[8; 32])), ..Keys::default() }));
    assert!(!opens(root, Keys { host_key_bytes: Some(bytes(&[9; 32])), ..Keys::default() }));
}

#[test]
fn a_key_that_cannot_be_right_is_refused_with_its_own_words() {
    let root = tempfile::tempdir().unwrap();
    let driver = driver(root.path());
    let before = driver.keyring().unwrap();
    let refused = |key: &Key, label: &str| driver.add_key(key, label).unwrap_err().to_string();
    assert!(refused(&passphrase("short"), "").contains("at least 8"));
    let mut text = RecoveryKey::random().unwrap().text().unwrap().expose_secret().to_vec();
    text[0] = if text[0] == b'A' { b'B' } else { b'A' };
    assert!(refused(&Key::Recovery(bytes(&text)), "").contains("typing error"));
    assert!(refused(&Key::Host(bytes(&[1; 33])), "").contains("33 bytes"));
    assert!(refused(&host(1), &"x".repeat(65)).contains("65 bytes"));
    assert!(refused(&host(1), "two\nlines").contains("control character"));
    let same = driver.add_key(&host_key(root.path()), "again").unwrap_err();
    assert!(same.to_string().contains("opens a slot already: host key '"), "{same}");
    assert_eq!(driver.keyring().unwrap(), before);
}

#[test]
fn a_slot_is_changed_in_its_place_and_the_key_before_opens_no_more() {
    let root = tempfile::tempdir().unwrap();
    let driver = driver(root.path());
    let door = driver.add_key(&passphrase("open sesame"), "door").unwrap();
    driver.add_key(&host(5), "spare").unwrap();
    let taken = driver.change_key(id(&door), &host(5), "").unwrap_err();
    assert!(taken.to_string().contains("'spare'"), "{taken}");
    let changed = driver.change_key(id(&door), &passphrase("open barley"), "back door").unwrap();
    assert_eq!(slots(&driver)[1..], ["passphrase back door", "host key spare"]);
    assert!(
        driver.test_key(&passphrase("open sesame")).unwrap_err().to_string().contains("wrong passphrase")
    );
    assert_eq!(driver.test_key(&passphrase("open barley")).unwrap().id, changed.id);
    let same = driver.change_key(id(&changed), &passphrase("open barley"), "relabelled").unwrap();
    assert_ne!(same.id, changed.id);
    let gone = driver.change_key(id(&changed), &host(6), "").unwrap_err();
    assert!(gone.to_string().contains("no slot") && gone.advice().unwrap().contains("key list"), "{gone}");
}

#[test]
fn a_slot_goes_only_if_another_one_is_known_to_work() {
    let root = tempfile::tempdir().unwrap();
    let driver = driver(root.path());
    let first: uuid::Uuid = driver.status().slots[0].id.parse().unwrap();
    let last = driver.remove_key(first, &[]).unwrap_err();
    assert!(last.to_string().contains("last slot"), "{last}");
    drop(driver);

    // Opened by the host key; the door was not tried since.
    {
        let driver = self::driver(root.path());
        driver.add_key(&passphrase("open sesame"), "door").unwrap();
    }
    let driver = self::driver(root.path());
    fs::rename(root.path().join("host.key"), root.path().join("away")).unwrap();
    let refused = driver.remove_key(first, &[]).unwrap_err();
    assert!(refused.to_string().contains("passphrase 'door'"), "{refused}");
    assert!(refused.advice().unwrap().contains("strongroom key test"));
    assert!(driver.remove_key(first, &[passphrase("open barley")]).is_err());
    assert_eq!(slots(&driver).len(), 2);
    driver.test_key(&passphrase("open sesame")).unwrap();
    driver.remove_key(first, &[]).unwrap();
    assert_eq!(slots(&driver), ["passphrase door"]);

    let spare = driver.add_key(&host(3), "spare").unwrap();
    driver.remove_key(id(&spare), &[]).unwrap(); // the door was tested
    drop(driver);
    assert!(opens(root.path(), Keys { passphrase: Some(bytes(b"open sesame")), ..Keys::default() }));
}

#[test]
fn a_key_that_is_given_or_in_its_place_proves_a_slot_too() {
    let root = tempfile::tempdir().unwrap();
    let recovery = RecoveryKey::random().unwrap().text().unwrap();
    let recovery = || Key::Recovery(recovery.try_clone().unwrap());
    {
        let driver = driver(root.path());
        driver.add_key(&passphrase("open sesame"), "door").unwrap();
        driver.add_key(&recovery(), "").unwrap();
    }
    let driver = driver(root.path());
    let slot = |driver: &Driver, at: usize| driver.status().slots[at].id.parse().unwrap();
    driver.remove_key(slot(&driver, 0), &[recovery()]).unwrap();
    assert_eq!(slots(&driver), ["passphrase door", "recovery key "]);
    driver.add_key(&host_key(root.path()), "back").unwrap();
    driver.lock().unwrap();
    driver.unlock(&Keys { passphrase: Some(bytes(b"open sesame")), ..Keys::default() }).unwrap();
    driver.remove_key(slot(&driver, 0), &[]).unwrap();
    assert_eq!(slots(&driver), ["recovery key ", "host key back"]);
}

#[test]
fn a_key_is_tested_while_the_keystore_is_locked_and_it_stays_so() {
    let root = tempfile::tempdir().unwrap();
    let driver = driver(root.path());
    driver.lock().unwrap();
    assert_eq!(&*driver.test_key(&host_key(root.path())).unwrap().kind, "host key");
    assert!(driver.test_key(&host(9)).unwrap_err().to_string().contains("wrong host key"));
    let error = driver.test_key(&passphrase("open sesame")).unwrap_err().to_string();
    assert!(error.contains("none of the keystore's slots takes a passphrase"), "{error}");
    assert!(driver.status().locked.is_some());
    assert!(driver.add_key(&host(9), "").unwrap_err().to_string().contains("locked"));
    assert!(!driver.keyring().unwrap().is_empty(), "a copy can be had all the same");
}

#[test]
fn a_new_root_key_keeps_the_slots_whose_keys_are_given() {
    let root = tempfile::tempdir().unwrap();
    let driver = driver(root.path());
    let secret = connect(&driver).define_xml(xml(ONE, "", "a"), 0).unwrap();
    secret.set_value(b"kept").unwrap();
    let door = driver.add_key(&passphrase("open sesame"), "door").unwrap();
    let spare = driver.add_key(&host(3), "spare").unwrap();
    let copy = driver.keyring().unwrap();
    let lacking = driver.rekey(&[passphrase("open sesame")], &[]).unwrap_err();
    assert!(lacking.to_string().contains("'spare'") && !lacking.to_string().contains("'door'"), "{lacking}");
    assert_eq!(driver.keyring().unwrap(), copy);
    let now = driver.rekey(&[passphrase("open sesame")], &[id(&spare)]).unwrap();
    assert_eq!((now.len(), &now[1].id, now[1].label.as_str()), (2, &door.id, "door"));
    assert!(driver.test_key(&host(3)).is_err());
    assert_eq!(value(&secret), b"kept");
    secret.set_value(b"changed").unwrap();
    drop((driver, secret));
    assert!(opens(root.path(), Keys { passphrase: Some(bytes(b"open sesame")), ..Keys::default() }));
    assert!(!opens(root.path(), Keys { host_key_bytes: Some(bytes(&[3; 32])), ..Keys::default() }));
    let secret = open(root.path()).lookup_by_uuid_string(ONE).unwrap();
    assert_eq!(value(&secret), b"changed");
}

#[test]
fn the_worst_day_costs_no_secret() {
    let root = tempfile::tempdir().unwrap();
    let recovery = RecoveryKey::random().unwrap().text().unwrap();
    let driver_before = driver(root.path());
    let secret = connect(&driver_before).define_xml(xml(ONE, "", "a"), 0).unwrap();
    secret.set_value(b"s3cret").unwrap();
    driver_before.add_key(&Key::Recovery(recovery.try_clone().unwrap()), "in the safe").unwrap();
    drop((driver_before, secret));
    fs::remove_file(root.path().join("host.key")).unwrap();

    let driver = driver(root.path());
    assert!(driver.status().advice.unwrap().contains("recovery key"));
    driver.unlock(&Keys { recovery_key: Some(recovery), ..Keys::default() }).unwrap();
    let lost: uuid::Uuid = driver.status().slots[0].id.parse().unwrap();
    driver.change_key(lost, &host(4), "the new host").unwrap();
    assert_eq!(slots(&driver), ["host key the new host", "recovery key in the safe"]);
    drop(driver);
    fs::write(root.path().join("host.key"), [4; 32]).unwrap();
    fs::set_permissions(root.path().join("host.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    assert_eq!(value(&open(root.path()).lookup_by_uuid_string(ONE).unwrap()), b"s3cret");
}

#[test]
fn a_kept_keyring_is_put_back_by_its_keys() {
    let root = tempfile::tempdir().unwrap();
    let place = Root::embed(&root.path().join("root")).unwrap();
    let keys = Keys { host_key: Some(root.path().join("host.key")), ..Keys::default() };
    let restore = |copy: &[u8], keys: &Keys, older| -> Result<KeyringRestored, _> {
        Driver::restore_keyring(&place, copy, keys, older)
    };
    let nothing = restore(b"SRKEYRNG", &keys, false).unwrap_err();
    assert!(nothing.to_string().contains("can't be used"), "{nothing}");
    let driver = driver(root.path());
    connect(&driver).define_xml(xml(ONE, "", "a"), 0).unwrap().set_value(b"v").unwrap();
    let copy = driver.keyring().unwrap();
    assert!(restore(&copy, &keys, false).unwrap_err().to_string().contains("in use"));
    let elsewhere = Root::embed(&root.path().join("nowhere")).unwrap();
    assert!(Driver::restore_keyring(&elsewhere, &copy, &keys, false).is_err() && !elsewhere.etc.exists());
    driver.add_key(&passphrase("open sesame"), "").unwrap();
    drop(driver);

    let wrong = Keys { passphrase: Some(bytes(b"open sesame")), ..Keys::default() };
    let error = restore(&copy, &wrong, true).unwrap_err();
    assert!(error.to_string().contains("copy of the keyring doesn't open"), "{error}");
    let error = restore(&copy, &keys, false).unwrap_err();
    assert!(error.to_string().contains("old copy") && error.advice().unwrap().contains("--older"), "{error}");
    let done = restore(&copy, &keys, true).unwrap();
    assert_eq!((done.kept_as.as_deref(), done.older_than), (Some("keyring.replaced-1"), Some(2)));
    assert_eq!(&*done.slot.kind, "host key");
    fs::remove_file(place.etc.join("keyring")).unwrap();
    let missing = Connection::open(&uri(root.path())).unwrap_err();
    assert!(missing.advice().unwrap().contains("strongroom key restore"), "{missing}");
    restore(&copy, &keys, true).unwrap();
    assert_eq!(value(&open(root.path()).lookup_by_uuid_string(ONE).unwrap()), b"v");
    assert!(!opens(root.path(), Keys { passphrase: Some(bytes(b"open sesame")), ..Keys::default() }));
}
