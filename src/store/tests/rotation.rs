//! Rotation: what it leaves behind opens nothing, and it neither loses a record nor ends too early.

use super::*;
use crate::administration::Rotation;
use crate::seal::{HEAD_LEN, Head, Kind, LockedKeyring, SALT};
use crate::store::{Known, LOG, repair};

/// Seven secrets, all but the last with a value.
fn filled() -> (SimulatedDisk, Store) {
    let (disk, store) = new_store();
    for secret in 1..=7 {
        define(&store, secret, "before").unwrap();
    }
    for secret in 1..=6 {
        set(&store, secret, format!("value {secret}").as_bytes()).unwrap();
    }
    (disk, store)
}

fn rotate(store: &Store) {
    store.begin_rotation(7).unwrap();
    while store.rotate_some().unwrap().is_some() {}
    assert!(store.end_rotation().unwrap());
}

/// A secret and its value, as a record has them.
type Record = (u8, Option<Vec<u8>>);

/// Opens every record of a log under a keyring, whatever a store would say to the two of them. Gives those that open, and how
/// many there are.
fn records(log: &[u8], keyring: &[u8]) -> (Vec<Record>, usize) {
    let locked = LockedKeyring::parse(keyring).unwrap();
    let keyring = locked.unlock(&[Opener::HostKey(host_key(1))]).unwrap().keyring;
    let (mut opened, mut count, mut at) = (Vec::new(), 0, 0);
    while let Some(head) = log.get(at..at + HEAD_LEN) {
        let head = Head::decode(head.try_into().unwrap()).unwrap();
        let frame = &log[at..at + head.frame_len()];
        at += head.frame_len();
        let Kind::Put { has_value } = head.kind else { continue };
        if head.is_wiped() {
            continue;
        }
        count += 1;
        // By the key that its head asks for, and by every other one that is there.
        for cipher in keyring.epochs().map(|epoch| keyring.cipher(epoch).unwrap()) {
            let mut definition = frame[head.definition()].to_vec();
            let value = SecretBytes::copy_of(&frame[head.value()]).unwrap();
            let value = cipher.open_value(&head, value).ok().filter(|_| has_value);
            if cipher.proves(&head)
                || cipher.open_definition(&head, &mut definition).is_ok()
                || value.is_some()
            {
                let value = value.map(|value| value.expose_secret().to_vec());
                opened.push((head.uuid.as_bytes()[0], value));
            }
        }
    }
    opened.sort_unstable();
    (opened, count)
}

#[test]
fn a_saved_copy_of_the_old_log_and_the_new_keyring_open_nothing() {
    let (disk, store) = filled();
    let (old_log, old_keyring) =
        (disk.with_file(LOG, |log| log.clone()), disk.with_file("keyring", |keyring| keyring.clone()));
    let expected = secrets(&store);
    rotate(&store);
    assert_eq!(secrets(&store), expected);
    drop(store);
    let new_keyring = disk.with_file("keyring", |keyring| keyring.clone());

    // The control: with the keyring of its time, every record of the copy opens.
    let (opened, count) = records(&old_log, &old_keyring);
    let all: Vec<_> = expected.iter().map(|(secret, (_, value))| (*secret, value.clone())).collect();
    assert_eq!((opened, count), (all.clone(), 7));
    assert_eq!(records(&old_log, &new_keyring), (Vec::new(), 7));
    // And the other way about: what is written now opens under the new keyring alone.
    let new_log = disk.with_file(LOG, |log| log.clone());
    assert_eq!(records(&new_log, &new_keyring), (all, 7));
    assert_eq!(records(&new_log, &old_keyring), (Vec::new(), 7));

    // As files in their places they open nothing either.
    disk.with_file(LOG, |log| *log = old_log);
    assert!(matches!(boot(&disk), Err(StoreError::LogUnreadable(_))));
}

#[test]
fn what_the_old_key_needs_is_not_on_the_disk_any_more() {
    let (disk, store) = filled();
    let log = disk.with_file(LOG, |log| log.clone());
    let mut salts = Vec::new();
    let mut at = 0;
    while let Some(head) = log.get(at..at + HEAD_LEN) {
        let decoded = Head::decode(head.try_into().unwrap()).unwrap();
        if matches!(decoded.kind, Kind::Put { .. }) && !decoded.is_wiped() {
            salts.push(head[SALT].to_vec());
        }
        at += decoded.frame_len();
    }
    let keyring = disk.with_file("keyring", |keyring| keyring.clone());
    let wrapped = &keyring[64 + 224 + 16..][..112];
    assert!(salts.len() == 7 && salts.iter().all(|salt| disk.has_bytes(salt)) && disk.has_bytes(wrapped));
    rotate(&store);
    assert!(!salts.iter().any(|salt| disk.has_bytes(salt)), "a salt of the old epoch is still there");
    assert!(!disk.has_bytes(wrapped), "the old epoch's key is still there, wrapped");
}

#[test]
fn it_goes_on_after_a_restart_and_beside_changes() {
    let (disk, store) = filled();
    assert_eq!(store.rotation(), None);
    store.begin_rotation(7).unwrap();
    assert_eq!(store.rotation(), Some(Rotation { epoch: 2, done: 0, total: 7 }));
    set(&store, 7, b"changed meanwhile").unwrap();
    undefine(&store, 1).unwrap();
    define(&store, 8, "new").unwrap();
    store.rotate_some().unwrap();
    let so_far = store.rotation().unwrap();
    assert!(so_far.done > 2 && so_far.done < so_far.total, "{so_far:?}");
    assert!(!store.end_rotation().unwrap(), "records are left");
    let expected = secrets(&store);
    drop(store);

    let store = boot(&disk).unwrap().unwrap();
    assert_eq!(store.rotation(), Some(so_far));
    store.begin_rotation(9).unwrap(); // nothing to begin: it goes on
    assert_eq!(store.keyring().epochs().collect::<Vec<_>>(), [1, 2]);
    while let Some(progress) = store.rotate_some().unwrap() {
        assert_eq!(store.rotation(), Some(progress));
    }
    assert!(store.end_rotation().unwrap());
    assert_eq!((secrets(&store), store.rotation()), (expected, None));
    assert_eq!(store.keyring().epochs().collect::<Vec<_>>(), [2]);
    assert_eq!(store.rotate_some().unwrap(), None);
    assert!(store.end_rotation().unwrap(), "there is nothing to end");
}

#[test]
fn a_record_that_does_not_open_keeps_the_old_key_until_it_is_healed() {
    let (disk, store) = filled();
    let place = store.contents().index.entry(uuid(3)).unwrap().place;
    disk.with_file(LOG, |log| log[usize::try_from(place.at).unwrap() + place.frame_len as usize - 1] ^= 1);
    store.begin_rotation(7).unwrap();
    let error = loop {
        match store.rotate_some() {
            Ok(progress) => assert!(progress.is_some(), "it must not come to an end"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, StoreError::Unrotated(damaged) if *damaged == [uuid(3)]), "{error}");
    assert!(error.to_string().contains(&uuid(3).to_string()), "{error}");
    assert_eq!(store.rotation(), Some(Rotation { epoch: 2, done: 6, total: 7 }));
    assert!(!store.end_rotation().unwrap());
    set(&store, 3, b"healed").unwrap();
    rotate(&store);
    assert_eq!(secrets(&store)[&3].1.as_deref(), Some(&b"healed"[..]));
    assert_eq!(store.keyring().epochs().collect::<Vec<_>>(), [2]);
}

#[test]
fn a_store_that_takes_no_changes_is_not_rotated() {
    let (disk, store) = filled();
    drop(store);
    disk.with_file(LOG, |log| log[HEAD_LEN + 3] ^= 1);
    let store = boot(&disk).unwrap().unwrap();
    assert!(store.condition().read_only.is_some());
    assert!(matches!(store.begin_rotation(7), Err(StoreError::ReadOnly(_))));
    assert_eq!(store.rotation(), None);
}

#[test]
fn a_full_disk_ends_it_for_now_and_loses_nothing() {
    let (disk, store) = filled();
    let expected = secrets(&store);
    store.begin_rotation(7).unwrap();
    disk.set_full(true);
    assert!(matches!(store.rotate_some(), Err(StoreError::NoSpace(_))));
    disk.set_full(false);
    while store.rotate_some().unwrap().is_some() {}
    disk.set_full(true);
    assert!(store.end_rotation().is_err());
    assert_eq!((secrets(&store), store.keyring().epochs().count()), (expected.clone(), 2));
    disk.set_full(false);
    rotate(&store);
    assert_eq!((secrets(&store), store.keyring().epochs().count()), (expected, 1));
}

#[test]
fn writers_and_readers_go_on_beside_it() {
    let (_, store) = filled();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for epoch in 0..20 {
                rotate(&store);
                assert_eq!(store.keyring().epochs().collect::<Vec<_>>(), [epoch + 2]);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        scope.spawn(|| {
            let mut round = 0_u32;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                round += 1;
                set(&store, 1, format!("round {round}").as_bytes()).unwrap();
                let value = store.value(uuid(1)).unwrap().unwrap().1.unwrap();
                assert_eq!(value.expose_secret(), format!("round {round}").as_bytes());
            }
        });
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let value = store.value(uuid(2)).unwrap().unwrap().1.unwrap();
            assert_eq!(value.expose_secret(), b"value 2");
        }
    });
}

/// The disk as it is now, with this keyring, and without what the host remembers.
fn with_keyring(disk: &SimulatedDisk, keyring: &[u8]) -> SimulatedDisk {
    let disk = copy(disk);
    disk.with_file("keyring", |bytes| *bytes = keyring.to_vec());
    disk.forget(1, "anchor");
    disk
}

fn keyring_of(disk: &SimulatedDisk) -> Vec<u8> {
    disk.with_file("keyring", |keyring| keyring.clone())
}

#[test]
fn a_keyring_from_before_a_rotation_opens_nothing_cuts_nothing_and_repairs_nothing() {
    let (disk, store) = filled();
    let older = keyring_of(&disk);
    let mut stages = Vec::new();
    store.begin_rotation(7).unwrap();
    stages.push(("one commit", 0, copy(&disk)));
    define(&store, 8, "in epoch 2").unwrap();
    stages.push(("one record", 1, copy(&disk)));
    store.rotate_some().unwrap();
    store.rotate_some().unwrap();
    stages.push(("mid-way", 5, copy(&disk)));
    rotate(&store);
    stages.push(("over", 8, copy(&disk)));
    for (stage, sealed, at_that_time) in stages {
        let disk = with_keyring(&at_that_time, &older);
        let log = disk.with_file(LOG, |log| log.clone());
        let refused = boot(&disk).map(drop).unwrap_err();
        let is_right = |error: &StoreError| matches!(error, StoreError::EpochMissing { epoch: 2, records } if *records == sealed);
        assert!(is_right(&refused), "{stage}: {refused}");
        let locked = LockedKeyring::parse(&older).unwrap();
        let opened = locked.unlock(&[Opener::HostKey(host_key(1))]).unwrap();
        let refused = repair(&disk.disk(), &opened.keyring, &Known::default()).unwrap_err();
        assert!(is_right(&refused), "{stage}, repaired: {refused}");
        assert_eq!(disk.with_file(LOG, |log| log.clone()), log, "{stage}");
        assert!(disk.has(0, &format!("{}.xml", uuid(1))), "{stage}");
        let right = with_keyring(&disk, &keyring_of(&at_that_time));
        let secrets = secrets(&boot(&right).unwrap().unwrap());
        assert_eq!(secrets.len(), if sealed == 0 { 7 } else { 8 }, "{stage}");
    }
}

#[test]
fn a_log_under_keys_that_the_keyring_lacks_is_not_repaired_away() {
    let (disk, store) = filled();
    let older = copy(&disk);
    rotate(&store);
    drop(store);
    let disk = with_keyring(&older, &keyring_of(&disk));
    let log = disk.with_file(LOG, |log| log.clone());
    let locked = read_keyring(&disk.disk()).unwrap().unwrap();
    let opened = locked.unlock(&[Opener::HostKey(host_key(1))]).unwrap();
    let refused = repair(&disk.disk(), &opened.keyring, &Known::default()).unwrap_err();
    assert!(matches!(refused, StoreError::EpochMissing { epoch: 1, records: 7 }), "{refused}");
    assert!(disk.with_file(LOG, |bytes| *bytes == log) && disk.has(0, &format!("{}.xml", uuid(1))));
}

#[test]
fn a_second_name_of_the_keyring_keeps_its_bytes() {
    let (disk, store) = filled();
    let before = keyring_of(&disk);
    disk.disk().etc.link("keyring", "keyring.bak").unwrap();
    rotate(&store);
    assert_ne!(keyring_of(&disk), before);
    assert_eq!(disk.with_file("keyring.bak", |kept| kept.clone()), before);
}

#[test]
fn a_real_file_knows_whether_it_has_a_name() {
    let directory = tempfile::tempdir().unwrap();
    let real = crate::store::open_directory(directory.path()).unwrap();
    let file = real.create("keyring").unwrap();
    real.link("keyring", "keyring.bak").unwrap();
    real.remove("keyring").unwrap();
    assert!(file.is_named().unwrap());
    real.remove("keyring.bak").unwrap();
    assert!(!file.is_named().unwrap());
}
