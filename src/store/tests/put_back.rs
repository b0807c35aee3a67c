//! A kept copy of the keyring is put back where it helps, and refused where it would lose records or open by old slots.

use super::*;
use crate::store::put_back_keyring;

fn keyring_file(disk: &SimulatedDisk) -> Vec<u8> {
    disk.with_file("keyring", |keyring| keyring.clone())
}

fn put_back(disk: &SimulatedDisk, copy: &[u8], older: bool) -> Result<crate::store::PutBack, StoreError> {
    put_back_keyring(&disk.disk(), copy, &[Opener::HostKey(host_key(1))], older)
}

/// A store with one secret, closed.
fn closed() -> SimulatedDisk {
    let (disk, store) = new_store();
    define(&store, 1, "one").unwrap();
    set(&store, 1, b"value").unwrap();
    disk
}

fn opens(disk: &SimulatedDisk) -> bool {
    boot(disk).is_ok_and(|store| secrets(&store.unwrap())[&1].1.as_deref() == Some(b"value"))
}

#[test]
fn a_lost_or_damaged_keyring_is_healed_by_the_newest_copy() {
    let disk = closed();
    let copy = keyring_file(&disk);
    disk.forget(0, "keyring");
    let done = put_back(&disk, &copy, false).unwrap();
    assert_eq!((done.older_than, done.kept_as), (None, None));
    assert!(opens(&disk));

    for (number, spoil) in [
        |bytes: &mut Vec<u8>| bytes.truncate(20),
        |bytes: &mut Vec<u8>| bytes[200] ^= 1,
        |bytes: &mut Vec<u8>| bytes.resize(2 << 20, 7),
    ]
    .into_iter()
    .enumerate()
    {
        disk.with_file("keyring", spoil);
        let spoilt = keyring_file(&disk);
        assert!(!boot(&disk).is_ok_and(|store| store.unwrap().condition().read_only.is_none()));
        let kept_as = put_back(&disk, &copy, false).unwrap().kept_as.unwrap();
        assert_eq!(kept_as, format!("keyring.replaced-{}", number + 1));
        assert_eq!(disk.with_file(&kept_as, |kept| kept.clone()), spoilt);
        assert!(opens(&disk));
    }
    assert_eq!(put_back(&disk, &copy, false).unwrap().kept_as, None, "it is there already");
}

#[test]
fn an_older_copy_is_put_back_only_if_that_is_meant_and_holds_from_then_on() {
    let disk = closed();
    let older = keyring_file(&disk);
    let store = boot(&disk).unwrap().unwrap();
    change_keyring(&store, |keyring| keyring.add_slot(&NewSlot::HostKey(&host_key(2)), "", 0)).unwrap();
    drop(store);
    let newer = keyring_file(&disk);
    let refused = put_back(&disk, &older, false).unwrap_err();
    assert!(matches!(refused, StoreError::KeyringRolledBack { found: 1, seen: 2 }), "{refused}");
    assert_eq!(keyring_file(&disk), newer);

    let done = put_back(&disk, &older, true).unwrap();
    assert_eq!(done.older_than, Some(2));
    assert_eq!(disk.with_file(&done.kept_as.unwrap(), |kept| kept.clone()), newer);
    assert!(opens(&disk));
    let now = read_keyring(&disk.disk()).unwrap().unwrap();
    assert!(now.unlock(&[Opener::HostKey(host_key(2))]).is_err() && now.serial() == 3);
    // The log says so from here on: the one that it replaced is the old one now.
    disk.with_file("keyring", |keyring| keyring.clone_from(&newer));
    disk.forget(1, "anchor");
    assert!(matches!(boot(&disk), Err(StoreError::KeyringRolledBack { found: 2, seen: 3 })));
}

#[test]
fn a_copy_from_before_a_rekey_is_an_older_one() {
    let disk = closed();
    let older = keyring_file(&disk);
    let store = boot(&disk).unwrap().unwrap();
    rekey(&store);
    drop(store);
    assert!(matches!(put_back(&disk, &older, false), Err(StoreError::KeyringRolledBack { .. })));
    put_back(&disk, &older, true).unwrap();
    assert!(opens(&disk));
}

#[test]
fn a_copy_without_the_key_of_an_epoch_is_refused() {
    let disk = closed();
    let before = keyring_file(&disk);
    let store = boot(&disk).unwrap().unwrap();
    store.begin_rotation(7).unwrap();
    define(&store, 2, "in epoch 2").unwrap();
    let between = keyring_file(&disk);
    while store.rotate_some().unwrap().is_some() {}
    assert!(store.end_rotation().unwrap());
    drop(store);
    for older in [false, true] {
        let refused = put_back(&disk, &before, older).unwrap_err();
        assert!(matches!(refused, StoreError::EpochMissing { epoch: 2, records: 2 }), "{refused}");
    }
    put_back(&disk, &between, true).unwrap();
    assert!(
        opens(&disk) && boot(&disk).unwrap().unwrap().is_rotating(),
        "it has both keys: it is ended again"
    );
}

#[test]
fn what_is_no_sound_copy_of_this_stores_keyring_is_refused() {
    let disk = closed();
    let copy = keyring_file(&disk);
    let mut spoilt = copy.clone();
    spoilt[33] ^= 1; // its serial
    assert!(matches!(put_back(&disk, &spoilt, true), Err(StoreError::CopyDamaged)));
    let wrong = put_back_keyring(&disk.disk(), &copy, &[Opener::HostKey(host_key(9))], true);
    assert!(matches!(wrong, Err(StoreError::Keyring(KeyringError::Locked(_)))));
    let others = put_back(&disk, &keyring_file(&closed()), true).unwrap_err();
    assert!(matches!(others, StoreError::LogUnreadable(_)), "{others}");
    disk.forget(0, "secrets.log");
    assert!(matches!(put_back(&disk, &copy, true), Err(StoreError::LogMissing)));
    assert_eq!(keyring_file(&disk), copy);
}

#[test]
fn a_copy_with_another_key_of_the_same_epoch_is_refused() {
    let disk = closed();
    let other = copy(&disk);
    let begin = |disk: &SimulatedDisk| {
        let store = boot(disk).unwrap().unwrap();
        store.begin_rotation(7).unwrap();
        define(&store, 2, "in epoch 2").unwrap();
        drop(store);
        keyring_file(disk)
    };
    let (of_other, right) = (begin(&other), begin(&disk));
    let log = disk.with_file("secrets.log", |log| log.clone());
    let refused = put_back(&disk, &of_other, true).unwrap_err();
    assert!(matches!(refused, StoreError::EpochMissing { epoch: 2, records: 1 }), "{refused}");
    assert_eq!(disk.with_file("secrets.log", |log| log.clone()), log);
    // As files in their places they cut nothing off either.
    disk.with_file("keyring", |keyring| *keyring = of_other);
    disk.forget(1, "anchor");
    assert!(matches!(boot(&disk), Err(StoreError::EpochMissing { epoch: 2, .. })));
    put_back(&disk, &right, true).unwrap();
    assert_eq!(secrets(&boot(&disk).unwrap().unwrap()).len(), 2);
}

#[test]
fn a_damaged_head_in_the_log_does_not_keep_the_right_copy_out() {
    let disk = closed();
    let copied = keyring_file(&disk);
    disk.forget(0, "keyring");
    for at in 0..crate::seal::HEAD_LEN {
        let spoilt = copy(&disk);
        spoilt.with_file("secrets.log", |log| log[crate::seal::HEAD_LEN + at] ^= 3);
        put_back(&spoilt, &copied, false).unwrap_or_else(|error| panic!("byte {at}: {error}"));
    }
}

#[test]
fn a_bad_sector_in_the_log_does_not_keep_the_right_copy_out() {
    let disk = closed();
    let copy = keyring_file(&disk);
    disk.forget(0, "keyring");
    disk.spoil_sector("secrets.log", 600);
    put_back(&disk, &copy, false).unwrap();
    assert_eq!(keyring_file(&disk), copy);
}

#[test]
fn a_copy_stays_in_place_after_a_restore_that_was_cut_off() {
    let disk = closed();
    let store = boot(&disk).unwrap().unwrap();
    let bytes = backup(&store);
    change_keyring(&store, |keyring| keyring.add_slot(&NewSlot::HostKey(&host_key(2)), "", 0)).unwrap();
    drop(store);
    let newer = keyring_file(&disk);
    let how = RestoreOptions { replace: true, older: true, partial: false };
    let whole = copy(&disk);
    restored(&whole, &bytes, how).unwrap();
    let mut met = 0;
    for cut in 0..=whole.operations() {
        let disk = copy(&disk);
        disk.cut_power_at(cut);
        _ = restored(&disk, &bytes, how);
        let disk = disk.after_power_cut(Left::All);
        if !disk.has(0, "keyring.restored") {
            continue;
        }
        met += 1;
        put_back(&disk, &newer, true).unwrap();
        assert!(opens(&disk), "cut at {cut}");
        let now = read_keyring(&disk.disk()).unwrap().unwrap();
        assert!(now.unlock(&[Opener::HostKey(host_key(2))]).is_ok(), "cut at {cut}: it was replaced again");
    }
    assert!(met > 3);
}
