//! Bytes that change, files that are cut or put back: never a wrong value, never a silent loss, never a panic.

use super::*;
use crate::administration::Finding;
use crate::seal::{HEAD_LEN, Head, Kind, SALT};

/// Opens a spoilt store. Whatever is served must be right; whatever is missing must be named. Says whether anything was
/// found at all.
fn nothing_wrong_is_served(disk: &SimulatedDisk, expected: &Secrets, case: &str) -> bool {
    let store = match boot(disk) {
        Ok(Some(store)) => store,
        Ok(None) => panic!("{case}: there seems to be no store"),
        Err(_) => return true,
    };
    let Ok(verified) = store.verify() else { return true };
    let damage = verified.findings.iter().any(Finding::is_damage);
    // What was settled before the log was closed is no unfinished write: calling it one would be a lie.
    let lost = |finding: &Finding| finding.is_damage() && !matches!(finding, Finding::TornTail { .. });
    let lost = verified.findings.iter().any(lost);
    for (&secret, (description, value)) in expected {
        match store.definition(uuid(secret)) {
            None => assert!(lost, "{case}: secret {secret} is gone and nobody says so"),
            Some(None) => assert!(
                verified.findings.contains(&Finding::DefinitionDamaged { uuid: uuid(secret) }),
                "{case}"
            ),
            Some(Some(definition)) => {
                assert_eq!(definition.description.as_deref(), Some(&**description), "{case}");
            }
        }
        match store.value(uuid(secret)) {
            Ok(None) => assert!(lost, "{case}"),
            Ok(Some(found)) => {
                let found = found.1.map(|found| found.expose_secret().to_vec());
                assert_eq!(&found, value, "{case}: secret {secret}");
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Damaged(_)), "{case}: {error}");
                assert!(damage, "{case}: {error}");
            }
        }
    }
    store.for_each(|uuid, definition| {
        let known = expected.contains_key(&uuid.as_bytes()[0]);
        assert!(known || definition.is_none(), "{case}: {uuid} is back");
    });
    damage
}

/// The frames of a log: where each begins, and its head.
fn frames(log: &[u8]) -> Vec<(usize, Head)> {
    let mut at = 0;
    std::iter::from_fn(|| {
        let head = Head::decode(log.get(at..)?.first_chunk()?).ok()?;
        let frame = (at, head);
        at += frame.1.frame_len();
        Some(frame)
    })
    .collect()
}

/// Whether a byte is dead: of what was sealed in a wiped frame. Nothing is lost when it changes.
fn is_dead(log: &[u8], at: usize) -> bool {
    let frame =
        frames(log).into_iter().find(|(start, head)| (*start..start + head.frame_len()).contains(&at));
    frame.is_none_or(|(start, head)| {
        let (salt, sealed) =
            (start + SALT.start..start + SALT.end, start + HEAD_LEN..start + head.frame_len());
        head.is_wiped() && (salt.contains(&at) || sealed.contains(&at))
    })
}

#[test]
fn any_byte_of_the_log_may_change() {
    let (disk, expected) = worn_store();
    let original = disk.with_file("secrets.log", |bytes| bytes.clone());
    for anchored in [true, false] {
        for at in 0..original.len() {
            let spoilt = copy(&disk);
            spoilt.with_file("secrets.log", |bytes| bytes[at] ^= 1 << (at % 8));
            if !anchored {
                spoilt.forget(1, "anchor");
            }
            let noticed =
                nothing_wrong_is_served(&spoilt, &expected, &format!("byte {at}, anchored {anchored}"));
            let case = || {
                format!(
                    "byte {at}, anchored {anchored}, of {:?}",
                    frames(&original).iter().rfind(|(start, _)| *start <= at)
                )
            };
            assert!(noticed || is_dead(&original, at), "{}: nobody noticed", case());
        }
    }
}

#[test]
fn damage_to_a_commit_costs_no_record() {
    let (disk, expected) = worn_store();
    let log = disk.with_file("secrets.log", |bytes| bytes.clone());
    let commits = frames(&log).into_iter().filter(|(_, head)| matches!(head.kind, Kind::Commit { .. }));
    for (start, _) in commits {
        for (at, anchored) in (start..start + HEAD_LEN).flat_map(|at| [(at, true), (at, false)]) {
            let spoilt = copy(&disk);
            spoilt.with_file("secrets.log", |bytes| bytes[at] ^= 0x40);
            if !anchored {
                spoilt.forget(1, "anchor");
            }
            let store = boot(&spoilt).unwrap().unwrap();
            assert_eq!(secrets(&store), expected, "byte {at} of the commit at {start}, anchored {anchored}");
        }
    }
}

#[test]
fn any_byte_of_the_keyring_may_change() {
    let (disk, expected) = worn_store();
    let len = disk.with_file("keyring", |bytes| bytes.len());
    for at in 0..len {
        let spoilt = copy(&disk);
        spoilt.with_file("keyring", |bytes| bytes[at] ^= 1);
        assert!(
            nothing_wrong_is_served(&spoilt, &expected, &format!("byte {at}")),
            "byte {at}: nobody noticed"
        );
    }
}

#[test]
fn the_files_may_be_cut_anywhere() {
    let (disk, expected) = worn_store();
    for file in ["secrets.log", "keyring"] {
        let original = disk.with_file(file, |bytes| bytes.clone());
        let end = original.len();
        for len in 0..end {
            let cut = copy(&disk);
            cut.with_file(file, |bytes| bytes.truncate(len));
            // The commit that closes a log acknowledges nothing; its loss is none.
            let closing = file == "secrets.log" && len + HEAD_LEN >= end;
            let noticed = nothing_wrong_is_served(&cut, &expected, &format!("{file} cut to {len}"));
            assert!(noticed || closing, "{file} cut to {len}: nobody noticed");
        }
    }
}

#[test]
fn frames_may_change_places() {
    let (disk, expected) = worn_store();
    let original = disk.with_file("secrets.log", |bytes| bytes.clone());
    let frames: Vec<_> = frames(&original).iter().map(|(at, head)| *at..at + head.frame_len()).collect();
    for one in 0..frames.len() {
        for two in one + 1..frames.len() {
            let (first, second) = (frames[one].clone(), frames[two].clone());
            let swapped = copy(&disk);
            swapped.with_file("secrets.log", |bytes| {
                let between = &original[first.end..second.start];
                let parts = [&original[second.clone()], between, &original[first.clone()]].concat();
                bytes[first.start..second.end].copy_from_slice(&parts);
            });
            let noticed =
                nothing_wrong_is_served(&swapped, &expected, &format!("frames {one} and {two} swapped"));
            assert!(noticed, "frames {one} and {two} swapped: nobody noticed");
        }
    }
}

#[test]
fn an_old_copy_put_back_is_refused_while_the_host_is_up() {
    let (disk, store) = new_store();
    define(&store, 1, "one").unwrap();
    set(&store, 1, b"old").unwrap();
    drop(store);
    let old = disk.with_file("secrets.log", |bytes| bytes.clone());
    let store = boot(&disk).unwrap().unwrap();
    set(&store, 1, b"new").unwrap();
    drop(store);
    disk.with_file("secrets.log", |bytes| *bytes = old);
    let error = boot(&disk).unwrap_err();
    assert!(matches!(error, StoreError::RolledBack(_)), "{error}");
    assert!(disk.has(1, "anchor"));
    disk.forget(1, "anchor");
    assert!(boot(&disk).unwrap().is_some(), "the operator may accept it");
}

#[test]
fn an_old_keyring_put_back_is_refused_for_ever() {
    let (disk, store) = new_store();
    let old = disk.with_file("keyring", |bytes| bytes.clone());
    change_keyring(&store, |keyring| keyring.add_slot(&NewSlot::HostKey(&host_key(2)), "", 0)).unwrap();
    drop(store);
    disk.with_file("keyring", |bytes| *bytes = old);
    disk.forget(1, "anchor");
    let error = boot(&disk).unwrap_err();
    assert!(matches!(error, StoreError::KeyringRolledBack { found: 1, seen: 2 }), "{error}");
}

#[test]
fn files_of_another_store_are_told_apart() {
    let ((one, _), (two, _)) = (worn_store(), worn_store());
    let other = two.with_file("keyring", |bytes| bytes.clone());
    one.with_file("keyring", |bytes| *bytes = other);
    one.forget(1, "anchor");
    let error = boot(&one).unwrap_err().to_string();
    assert!(error.contains("belongs to another store"), "{error}");
}

#[test]
fn a_log_of_a_newer_version_is_left_alone() {
    let (disk, _) = worn_store();
    disk.forget(1, "anchor");
    disk.with_file("secrets.log", |bytes| {
        for at in (0..bytes.len()).step_by(crate::seal::GRAIN) {
            if bytes[at..].starts_with(b"SRf\n") {
                bytes[at + 4] = 2;
            }
        }
    });
    let before = disk.with_file("secrets.log", |bytes| bytes.clone());
    let error = boot(&disk).unwrap_err().to_string();
    assert!(error.contains("newer version"), "{error}");
    assert_eq!(disk.with_file("secrets.log", |bytes| bytes.clone()), before);
}

#[test]
fn a_missing_file_is_not_taken_for_a_new_store() {
    let (disk, _) = worn_store();
    let without_log = copy(&disk);
    without_log.forget(0, "secrets.log");
    assert!(matches!(boot(&without_log), Err(StoreError::LogMissing)));
    disk.forget(0, "keyring");
    assert!(boot(&disk).unwrap().is_none());
    assert!(matches!(create(&disk), Err(StoreError::KeyringMissing)));
    disk.forget(0, "secrets.log");
    assert!(matches!(create(&disk), Err(StoreError::Gone)));
    disk.forget(1, "anchor");
    create(&disk).unwrap();
}

#[test]
fn a_dead_record_is_wiped() {
    let (disk, store) = new_store();
    define(&store, 1, "one").unwrap();
    set(&store, 1, b"old value").unwrap();
    set(&store, 1, b"new value").unwrap();
    let wiped = |disk: &SimulatedDisk| {
        let log = disk.with_file("secrets.log", |bytes| bytes.clone());
        let puts = frames(&log).into_iter().filter(|(_, head)| matches!(head.kind, Kind::Put { .. }));
        puts.map(|(_, head)| head.is_wiped()).collect::<Vec<_>>()
    };
    assert_eq!(wiped(&disk), [true, true, false]);
    undefine(&store, 1).unwrap();
    assert_eq!(wiped(&disk), [true, true, true]);
    drop(store);
    assert_eq!(secrets(&boot(&disk).unwrap().unwrap()), Secrets::new());
}

#[test]
fn what_a_crash_left_unwiped_is_wiped_at_the_next_open() {
    let (disk, store) = new_store();
    define(&store, 1, "one").unwrap();
    let operations = disk.operations();
    // Of a change: the write, the sync, the anchor; then the wipe.
    disk.cut_power_at(operations + 3);
    set(&store, 1, b"value").unwrap();
    let after = disk.after_power_cut(Left::All);
    let first_put =
        |disk: &SimulatedDisk| frames(&disk.with_file("secrets.log", |bytes| bytes.clone()))[1].1.clone();
    assert!(!first_put(&after).is_wiped());
    drop(boot(&after).unwrap());
    assert!(first_put(&after).is_wiped());
}

#[test]
fn a_log_of_mostly_dead_records_is_compacted() {
    let (disk, store) = new_store();
    for secret in 1..=20 {
        define(&store, secret, "one").unwrap();
    }
    for round in 0..600_u32 {
        set(&store, (round % 20) as u8 + 1, &round.to_le_bytes()).unwrap();
    }
    let (end, live) = store.condition().log;
    assert!(end < 200 << 10, "{end} bytes for {live} in use");
    let before = secrets(&store);
    drop(store);
    let store = boot(&disk).unwrap().unwrap();
    assert_eq!(secrets(&store), before);
    assert!(store.verify().unwrap().findings.is_empty());
}

#[test]
fn copies_are_written_anew_when_they_are_missing_or_wrong() {
    let (disk, _) = worn_store();
    let name = format!("{}.xml", uuid(1));
    let right = disk.with_file(&name, |bytes| bytes.clone());
    disk.forget(0, &name);
    drop(boot(&disk).unwrap().unwrap());
    assert_eq!(disk.with_file(&name, |bytes| bytes.clone()), right);
    disk.with_file(&name, |bytes| bytes[3] ^= 1);
    let store = boot(&disk).unwrap().unwrap();
    let expected = Finding::CopyDiffers { uuid: uuid(1), rebuilt: false };
    assert_eq!(store.verify().unwrap().findings, [expected]);
}
