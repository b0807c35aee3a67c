//! Restoring and repairing: at every power cut and every fault there is a keystore that opens, the old one or the new.

use super::crash::LEFTS;
use super::*;
use crate::administration::{Finding, Repaired};
use crate::seal::{HEAD_LEN, Head};
use crate::store::{Known, repair};

const REPLACE: RestoreOptions = RestoreOptions { replace: true, older: false, partial: false };

/// Reads the keyring and repairs what is there, as without a store open.
fn repaired(disk: &SimulatedDisk) -> Result<Repaired, StoreError> {
    let locked = read_keyring(&disk.disk())?.expect("there is a keyring");
    let opened = locked.unlock(&[Opener::HostKey(host_key(1))])?;
    repair(&disk.disk(), &opened.keyring, &Known::default())
}

/// The power goes at this operation, or it alone fails.
fn trouble(disk: &SimulatedDisk, at: usize, fault: bool) {
    match fault {
        true => disk.fail_at(at),
        false => disk.cut_power_at(at),
    }
}

fn log_of(disk: &SimulatedDisk) -> Vec<u8> {
    disk.with_file("secrets.log", |log| log.clone())
}

#[test]
fn a_backup_is_not_put_over_what_is_newer_or_of_another_store() {
    let (disk, _) = worn_store();
    let store = boot(&disk).unwrap().unwrap();
    let bytes = backup(&store);
    drop(store);
    let refused = |bytes: &[u8], how| restored(&copy(&disk), bytes, how).unwrap_err();
    assert!(matches!(refused(&bytes, RestoreOptions::default()), StoreError::AlreadyThere));
    assert_eq!(
        restored(&copy(&disk), &bytes, REPLACE).unwrap(),
        ["secrets.log.replaced-1", "keyring.replaced-1"],
        "closing and opening is no change"
    );
    let (other, _) = worn_store();
    let of_another = backup(&boot(&other).unwrap().unwrap());
    assert!(matches!(refused(&of_another, REPLACE), StoreError::BackupOfOther { .. }));

    let store = boot(&disk).unwrap().unwrap();
    let spoil: [(&str, &dyn Fn()); 3] = [
        ("a slot", &|| {
            change_keyring(&store, |keyring| keyring.add_slot(&NewSlot::HostKey(&host_key(2)), "", 0))
                .unwrap();
        }),
        ("a value", &|| set(&store, 1, b"since").unwrap()),
        ("a deletion, compacted away", &|| {
            undefine(&store, 1).unwrap();
            store.exclusively(|store, log| store.compact(log)).unwrap();
        }),
    ];
    for (case, spoil) in spoil {
        spoil();
        let error = restored(&copy(&disk), &bytes, REPLACE).unwrap_err();
        assert!(matches!(error, StoreError::BackupOlder(_)), "{case}: {error}");
    }
}

#[test]
fn an_older_backup_is_put_in_place_when_asked_and_holds_from_then_on() {
    let (disk, expected) = worn_store();
    let store = boot(&disk).unwrap().unwrap();
    let bytes = backup(&store);
    set(&store, 1, b"since").unwrap();
    define(&store, 7, "since").unwrap();
    change_keyring(&store, |keyring| keyring.add_slot(&NewSlot::HostKey(&host_key(2)), "", 0)).unwrap();
    drop(store);
    let (old_log, old_keyring) = (log_of(&disk), disk.with_file("keyring", |bytes| bytes.clone()));
    let aside = restored(&disk, &bytes, RestoreOptions { older: true, ..REPLACE }).unwrap();
    let stale = format!("{}.xml.replaced-1", uuid(7));
    assert_eq!(aside, ["secrets.log.replaced-1", "keyring.replaced-1", &stale]);
    assert_eq!(disk.with_file("secrets.log.replaced-1", |bytes| bytes.clone()), old_log);
    assert_eq!(disk.with_file("keyring.replaced-1", |bytes| bytes.clone()), old_keyring);
    let store = boot(&disk).unwrap().unwrap();
    assert_eq!(secrets(&store), expected);
    assert!(!disk.has(0, &format!("{}.xml", uuid(7))), "a copy of what is not here any more");
    let verified = store.verify().unwrap();
    let aside = |finding: &Finding| matches!(finding, Finding::Orphan { file } if file.contains("replaced"));
    let notes =
        |finding: &Finding| aside(finding) || matches!(finding, Finding::CopyDiffers { rebuilt: true, .. });
    assert!(verified.findings.iter().all(notes), "{:?}", verified.findings);
    drop(store);
    disk.with_file("keyring", |bytes| *bytes = old_keyring);
    let error = boot(&disk).unwrap_err();
    assert!(matches!(error, StoreError::KeyringRolledBack { .. }), "{error}");
}

#[test]
fn a_restore_may_be_cut_anywhere_in_an_empty_root() {
    let (worn, expected) = worn_store();
    let bytes = backup(&boot(&worn).unwrap().unwrap());
    let whole = SimulatedDisk::default();
    restored(&whole, &bytes, RestoreOptions::default()).unwrap();
    for cut in 0..=whole.operations() {
        for fault in [false, true] {
            let disk = SimulatedDisk::default();
            trouble(&disk, cut, fault);
            let done = restored(&disk, &bytes, RestoreOptions::default()).is_ok();
            for left in LEFTS {
                let case = format!("at operation {cut}, fault {fault}, left {left:?}");
                let disk = disk.after_power_cut(left);
                match boot(&disk).unwrap_or_else(|error| panic!("{case}: {error}")) {
                    Some(store) => assert_eq!(secrets(&store), expected, "{case}"),
                    None => {
                        assert!(!done, "{case}: it was restored, and is gone");
                        restored(&disk, &bytes, RestoreOptions::default())
                            .unwrap_or_else(|error| panic!("{case}: once more: {error}"));
                        assert_eq!(secrets(&boot(&disk).unwrap().unwrap()), expected, "{case}");
                    }
                }
                let left_over = ["keyring.restored", "secrets.log.restored", "keyring.restored.new"];
                assert!(left_over.iter().all(|name| !disk.has(0, name)), "{case}");
            }
        }
    }
}

#[test]
fn a_restore_may_be_cut_anywhere_in_the_place_of_another() {
    // The one that is there: of the same store, newer; and of another.
    let (worn, expected) = worn_store();
    let store = boot(&worn).unwrap().unwrap();
    let bytes = backup(&store);
    set(&store, 1, b"since").unwrap();
    define(&store, 7, "since").unwrap();
    let newer = secrets(&store);
    drop(store);
    let (other, others) = worn_store();
    let how = RestoreOptions { older: true, ..REPLACE };
    for (there, before) in [(worn, newer), (other, others)] {
        let whole = copy(&there);
        restored(&whole, &bytes, how).unwrap();
        for cut in 0..=whole.operations() {
            for fault in [false, true] {
                let disk = copy(&there);
                trouble(&disk, cut, fault);
                let done = restored(&disk, &bytes, how).is_ok();
                for left in LEFTS {
                    let case = format!("at operation {cut}, fault {fault}, left {left:?}");
                    let disk = disk.after_power_cut(left);
                    let store = boot(&disk).unwrap_or_else(|error| panic!("{case}: {error}"));
                    let found = secrets(&store.unwrap_or_else(|| panic!("{case}: nothing is there")));
                    assert!(found == expected || (found == before && !done), "{case}: {found:?}");
                    restored(&disk, &bytes, how).unwrap_or_else(|error| panic!("{case}: once more: {error}"));
                    assert_eq!(secrets(&boot(&disk).unwrap().unwrap()), expected, "{case}");
                }
            }
        }
    }
}

/// Spoils one byte of what is sealed in the record of this secret: of its definition, or of its value.
fn spoil(disk: &SimulatedDisk, secret: u8, of_value: bool) {
    disk.with_file("secrets.log", |log| {
        let mut at = 0;
        let mut last = None;
        while let Some(head) =
            log.get(at..at + HEAD_LEN).and_then(|head| Head::decode(head.first_chunk()?).ok())
        {
            if head.uuid == uuid(secret) {
                last = Some(at + if of_value { head.frame_len() - 1 } else { HEAD_LEN });
            }
            at += head.frame_len();
        }
        log[last.unwrap()] ^= 1;
    });
}

#[test]
fn repair_keeps_what_opens_and_names_what_does_not() {
    let (disk, mut expected) = worn_store();
    spoil(&disk, 4, true);
    spoil(&disk, 2, false);
    disk.with_file("keyring", |bytes| bytes[64 + 50] ^= 1);
    let damaged = (log_of(&disk), disk.with_file("keyring", |bytes| bytes.clone()));
    let Err(StoreError::Keyring(_)) = boot(&disk).map(drop) else { panic!("its only slot is damaged") };
    disk.with_file("keyring", |bytes| bytes[64 + 50] ^= 1);
    disk.with_file("keyring", |bytes| *bytes.last_mut().unwrap() ^= 1);
    let damaged = (damaged.0, disk.with_file("keyring", |bytes| bytes.clone()));
    disk.with_file(&format!("{}.xml", uuid(5)), |bytes| bytes[3] ^= 1);

    let repaired = repaired(&disk).unwrap();
    assert_eq!((repaired.kept, repaired.copies, repaired.unnamed), (2, 1, 0));
    let findings = [
        Finding::KeyringDamaged,
        Finding::DefinitionDamaged { uuid: uuid(2) },
        Finding::ValueDamaged { uuid: uuid(4) },
    ];
    assert_eq!(repaired.findings, findings);
    assert_eq!(repaired.without_value[0].uuid, uuid(4));
    assert_eq!(repaired.lost[0].usage.as_deref(), Some("volume /volumes/2"), "told by its copy");
    let copy = format!("{}.xml.lost", uuid(2));
    assert_eq!(repaired.aside, [&copy, "keyring.damaged-1", "secrets.log.damaged-1"]);
    assert_eq!(disk.with_file("secrets.log.damaged-1", |bytes| bytes.clone()), damaged.0);
    assert_eq!(disk.with_file("keyring.damaged-1", |bytes| bytes.clone()), damaged.1);

    let store = boot(&disk).unwrap().unwrap();
    assert_eq!(store.condition().read_only, None);
    expected.remove(&2);
    expected.get_mut(&4).unwrap().1 = None;
    assert_eq!(secrets(&store), expected);
    assert!(!store.verify().unwrap().findings.iter().any(Finding::is_damage));
    define(&store, 2, "healed").unwrap();
}

#[test]
fn repair_changes_nothing_where_nothing_is_wrong() {
    let (disk, _) = worn_store();
    let (before, operations) = (log_of(&disk), disk.operations());
    let repaired = repaired(&disk).unwrap();
    assert_eq!((repaired.kept, repaired.copies, repaired.aside.len()), (4, 0, 0));
    assert_eq!((log_of(&disk), disk.operations()), (before, operations));
}

#[test]
fn repair_accepts_no_old_copy_and_begins_anew_where_the_log_is_missing() {
    let (disk, store) = new_store();
    define(&store, 1, "one").unwrap();
    set(&store, 1, b"old").unwrap();
    drop(store);
    let old = log_of(&disk);
    let store = boot(&disk).unwrap().unwrap();
    define(&store, 2, "two").unwrap();
    drop(store);
    disk.with_file("secrets.log", |log| *log = old);
    assert!(matches!(boot(&disk), Err(StoreError::RolledBack(_))));
    let gone = copy(&disk);
    gone.forget(0, "secrets.log");

    let (log, words) = (log_of(&disk), boot(&disk).unwrap_err().to_string());
    let refused = repaired(&disk).unwrap_err();
    assert!(matches!(refused, StoreError::RolledBack(_)) && refused.to_string() == words, "{refused}");
    assert!(log_of(&disk) == log && disk.has(0, &format!("{}.xml", uuid(2))));
    let accepted = copy(&disk);
    accepted.forget(1, "anchor");
    assert_eq!(repaired(&accepted).unwrap().kept, 1);

    // Damage besides: it goes on, and says so.
    disk.with_file("secrets.log", |log| log.extend([7; 100]));
    let older = repaired(&disk).unwrap();
    assert_eq!((older.kept, older.lost[0].uuid), (1, uuid(2)));
    let said =
        |finding: &Finding| matches!(finding, Finding::RolledBack { seen, generation } if seen > generation);
    assert!(older.findings.iter().any(said), "{:?}", older.findings);
    assert!(older.findings.iter().any(|finding| matches!(finding, Finding::LogDamaged { .. })));
    assert_eq!(secrets(&boot(&disk).unwrap().unwrap())[&1].1.as_deref(), Some(&b"old"[..]));

    assert!(matches!(boot(&gone), Err(StoreError::LogMissing)));
    let emptied = repaired(&gone).unwrap();
    assert_eq!((emptied.kept, emptied.lost.len()), (0, 2));
    define(&boot(&gone).unwrap().unwrap(), 3, "anew").unwrap();
}

#[test]
fn repair_finds_records_behind_a_rotten_commit_of_a_compacted_log() {
    let (disk, store) = new_store();
    for secret in 1..=60 {
        define(&store, secret, "large").unwrap();
        set(&store, secret, &[secret; 40_000]).unwrap();
    }
    store.exclusively(|store, log| store.compact(log)).unwrap();
    let expected = secrets(&store);
    drop(store);
    disk.with_file("secrets.log", |log| {
        let mut at = 0;
        let mut commits = Vec::new();
        while let Some(head) =
            log.get(at..at + HEAD_LEN).and_then(|head| Head::decode(head.first_chunk()?).ok())
        {
            if head.count() > 0 {
                commits.push(at);
            }
            at += head.frame_len();
        }
        assert!(commits.len() >= 3, "{commits:?}");
        log[commits[1] + 100] ^= 1;
    });
    let repaired = repaired(&disk).unwrap();
    assert_eq!((repaired.kept, repaired.lost.len()), (60, 0));
    assert_eq!(secrets(&boot(&disk).unwrap().unwrap()), expected);
}

#[test]
fn a_bad_sector_costs_the_records_in_it() {
    let (disk, store) = new_store();
    for secret in 1..=9 {
        define(&store, secret, "one").unwrap();
        set(&store, secret, &[secret; 3000]).unwrap();
    }
    let place = store.contents().index.entry(uuid(4)).unwrap().place;
    disk.spoil_sector("secrets.log", place.at as usize + 2000);
    assert!(matches!(store.value(uuid(4)), Err(StoreError::Io(..))));
    drop(store);
    let repaired = repaired(&disk).unwrap();
    assert_eq!((repaired.kept, repaired.without_value.len(), repaired.lost.len()), (8, 1, 0));
    assert_eq!(repaired.without_value[0].uuid, uuid(4));
    let found = secrets(&boot(&disk).unwrap().unwrap());
    assert_eq!((found.len(), &found[&4].1, found[&5].1.as_ref().unwrap()[0]), (9, &None, 5));
}

#[test]
fn a_repair_may_be_cut_anywhere() {
    let (damaged, mut expected) = worn_store();
    spoil(&damaged, 4, true);
    spoil(&damaged, 2, false);
    damaged.with_file("keyring", |bytes| *bytes.last_mut().unwrap() ^= 1);
    damaged.with_file(&format!("{}.xml", uuid(5)), |bytes| bytes[3] ^= 1);
    expected.remove(&2);
    let value = expected.get_mut(&4).unwrap().1.take();
    assert!(value.is_some());
    let whole = copy(&damaged);
    repaired(&whole).unwrap();
    for cut in 0..=whole.operations() {
        for fault in [false, true] {
            let disk = copy(&damaged);
            trouble(&disk, cut, fault);
            let done = repaired(&disk).is_ok();
            for left in LEFTS {
                let case = format!("at operation {cut}, fault {fault}, left {left:?}");
                let disk = disk.after_power_cut(left);
                let store = boot(&disk).unwrap_or_else(|error| panic!("{case}: {error}")).unwrap();
                assert!(!done || store.condition().read_only.is_none(), "{case}");
                for (secret, (_, value)) in &expected {
                    let found = store.value(uuid(*secret));
                    let found = match found {
                        Err(StoreError::Damaged(_)) if *secret == 4 => continue,
                        found => found.unwrap_or_else(|error| panic!("{case}: {error}")),
                    };
                    let found = found.unwrap_or_else(|| panic!("{case}: secret {secret} is gone")).1;
                    assert_eq!(found.map(|found| found.expose_secret().to_vec()), *value, "{case}");
                }
                drop(store);
                repaired(&disk).unwrap_or_else(|error| panic!("{case}: once more: {error}"));
                let store = boot(&disk).unwrap().unwrap();
                assert_eq!(secrets(&store), expected, "{case}");
                assert!(!store.verify().unwrap().findings.iter().any(Finding::is_damage), "{case}");
            }
        }
    }
}

#[test]
fn a_backup_takes_the_place_of_a_log_that_cannot_be_read_everywhere() {
    let (disk, expected) = worn_store();
    let bytes = backup(&boot(&disk).unwrap().unwrap());
    disk.spoil_sector("secrets.log", 600);
    restored(&disk, &bytes, REPLACE).unwrap();
    assert_eq!(secrets(&boot(&disk).unwrap().unwrap()), expected);
}

#[test]
fn a_rotten_serial_neither_stops_a_restore_nor_lasts() {
    let (disk, expected) = worn_store();
    let bytes = backup(&boot(&disk).unwrap().unwrap());
    disk.with_file("keyring", |keyring| keyring[39] ^= 0xff);
    restored(&disk, &bytes, REPLACE).unwrap();
    let store = boot(&disk).unwrap().unwrap();
    assert_eq!((secrets(&store), store.keyring().serial()), (expected, 1));
}

#[test]
fn a_backup_from_before_a_rekey_is_an_older_one() {
    let (disk, _) = worn_store();
    let store = boot(&disk).unwrap().unwrap();
    let bytes = backup(&store);
    rekey(&store);
    drop(store);
    let refused = restored(&disk, &bytes, REPLACE).unwrap_err();
    assert!(matches!(refused, StoreError::BackupOlder(_)), "{refused}");
}
