//! Copies of a store that is in use: whole, of one moment, and worth what still opens when they are damaged.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;
use crate::administration::{Finding, Verified};
use crate::seal::{BACKUP_HEADER, BLOCK_LEN, HEAD_LEN, Head};

const ANYHOW: RestoreOptions = RestoreOptions { replace: true, older: true, partial: true };

/// What a backup holds, restored elsewhere and opened by host key 1.
fn elsewhere(bytes: &[u8], how: RestoreOptions) -> Result<Secrets, StoreError> {
    let disk = SimulatedDisk::default();
    restored(&disk, bytes, how)?;
    let store = boot(&disk)?.unwrap();
    assert!(!store.verify().unwrap().findings.iter().any(Finding::is_damage));
    Ok(secrets(&store))
}

fn verified(bytes: &[u8]) -> Verified {
    opened(bytes).unwrap().inspect().unwrap().verified
}

#[test]
fn what_goes_in_comes_out_elsewhere() {
    let (disk, expected) = worn_store();
    let store = boot(&disk).unwrap().unwrap();
    let bytes = backup(&store);
    let verified = verified(&bytes);
    assert_eq!((verified.sound, verified.findings), (4, Vec::new()));
    assert_eq!(verified.secrets[0].usage.as_deref(), Some("volume /volumes/1"));
    let new = SimulatedDisk::default();
    assert_eq!(restored(&new, &bytes, RestoreOptions::default()).unwrap(), Vec::<String>::new());
    let store = boot(&new).unwrap().unwrap();
    assert_eq!(secrets(&store), expected);
    assert!(new.has(0, &format!("{}.xml", uuid(1))), "the copies are there again");
    set(&store, 1, b"life goes on").unwrap();
}

#[test]
fn an_empty_store_has_a_backup_too() {
    let (_, store) = new_store();
    assert_eq!(elsewhere(&backup(&store), RestoreOptions::default()).unwrap(), Secrets::new());
}

#[test]
fn a_backup_is_of_the_moment_it_was_begun() {
    let (disk, store) = new_store();
    for secret in 1..=20 {
        define(&store, secret, "one").unwrap();
        set(&store, secret, b"before").unwrap();
    }
    let expected = secrets(&store);
    let snapshot = store.snapshot(0).unwrap();
    undefine(&store, 3).unwrap();
    define(&store, 30, "later").unwrap();
    // Enough to compact the log more than once.
    for round in 0..300_u32 {
        let secret = [1, 2, 4, 5][round as usize % 4];
        set(&store, secret, &round.to_le_bytes()).unwrap();
    }
    let wiped = |disk: &SimulatedDisk| {
        let log = disk.with_file("secrets.log", |log| log.clone());
        let mut at = 0;
        let heads = std::iter::from_fn(|| {
            let head = Head::decode(log.get(at..)?.first_chunk()?).ok()?;
            at += head.frame_len();
            Some(head)
        });
        heads.filter(Head::is_wiped).count()
    };
    assert_eq!(wiped(&disk), 0, "nothing is wiped while a copy may need it");
    let bytes = taken(snapshot).unwrap();
    assert!(wiped(&disk) > 0, "and all that is dead is wiped when the copy is done");
    assert_eq!(elsewhere(&bytes, RestoreOptions::default()).unwrap(), expected);
    assert!(store.verify().unwrap().findings.is_empty());
}

#[test]
fn a_backup_ends_when_its_store_is_closed_or_changes_without_end() {
    let (_, store) = new_store();
    define(&store, 1, "one").unwrap();
    set(&store, 1, b"x").unwrap();
    let closed = store.snapshot(0).unwrap();
    drop(store);
    assert!(matches!(taken(closed), Err(StoreError::CopyEnded)));
    let (_, store) = new_store();
    define(&store, 1, "one").unwrap();
    let outrun = store.snapshot(0).unwrap();
    for round in 0..600_u32 {
        set(&store, 1, &round.to_le_bytes()).unwrap();
    }
    assert!(matches!(taken(outrun), Err(StoreError::CopyEnded)));
    assert!(store.verify().unwrap().findings.is_empty());
}

#[test]
fn each_value_in_a_backup_was_acknowledged_when_it_was_begun() {
    let (_, store) = new_store();
    for secret in 1..=4 {
        define(&store, secret, "one").unwrap();
        set(&store, secret, &0_u32.to_le_bytes()).unwrap();
    }
    let (acknowledged, begun) = ([const { AtomicU32::new(0) }; 4], [const { AtomicU32::new(0) }; 4]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (secret, (acknowledged, begun)) in (1..=4).zip(acknowledged.iter().zip(&begun)) {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                for round in 1.. {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    begun.store(round, Ordering::SeqCst);
                    set(store, secret, &round.to_le_bytes()).unwrap();
                    acknowledged.store(round, Ordering::SeqCst);
                }
            });
        }
        for _ in 0..10 {
            let before: Vec<u32> = acknowledged.iter().map(|at| at.load(Ordering::SeqCst)).collect();
            let snapshot = store.snapshot(0).unwrap();
            let after: Vec<u32> = begun.iter().map(|at| at.load(Ordering::SeqCst)).collect();
            let found = match taken(snapshot) {
                Err(StoreError::CopyEnded) => continue, // outrun: the bound is low in tests
                bytes => elsewhere(&bytes.unwrap(), RestoreOptions::default()).unwrap(),
            };
            for (at, (secret, (_, value))) in found.iter().enumerate() {
                let value = u32::from_le_bytes(value.clone().unwrap().try_into().unwrap());
                assert!((before[at]..=after[at]).contains(&value), "secret {secret}: {value}");
            }
            assert_eq!(found.len(), 4);
        }
        done.store(true, Ordering::SeqCst);
    });
}

/// A store whose backup has two batches, and what is in it.
fn large_store() -> (Store, Secrets) {
    let (_, store) = new_store();
    for secret in 1..=40 {
        define(&store, secret, "large").unwrap();
        set(&store, secret, &[secret; 40_000]).unwrap();
    }
    let expected = secrets(&store);
    (store, expected)
}

/// Holds a spoilt backup against what it was: what opens is right, what doesn't is named. Gives the secrets lost.
fn named(bytes: &[u8], expected: &Secrets, case: &str) -> BTreeSet<u8> {
    let inspected = opened(bytes).unwrap_or_else(|error| panic!("{case}: {error}")).inspect().unwrap();
    assert_eq!(inspected.unnamed, 0, "{case}: {:?}", inspected.verified.findings);
    assert!(inspected.verified.findings.iter().any(Finding::is_damage), "{case}: nobody noticed");
    let found = match elsewhere(bytes, ANYHOW) {
        Err(StoreError::BackupLost(records)) if records == expected.len() => Secrets::new(),
        found => found.unwrap_or_else(|error| panic!("{case}: {error}")),
    };
    let mut lost = BTreeSet::new();
    for missing in inspected.lost.iter().chain(&inspected.without_value) {
        let secret = missing.uuid.as_bytes()[0];
        assert_eq!(missing.usage, Some(format!("volume /volumes/{secret}")), "{case}");
        lost.insert(secret);
    }
    for (secret, (description, value)) in expected {
        match found.get(secret) {
            Some(found) if !lost.contains(secret) => {
                assert_eq!(found, &(description.clone(), value.clone()), "{case}");
            }
            Some(found) => assert_eq!(found, &(description.clone(), None), "{case}"),
            None => assert!(lost.contains(secret), "{case}: secret {secret} is gone and not named"),
        }
    }
    assert!(found.keys().all(|secret| expected.contains_key(secret)), "{case}");
    lost
}

/// The secret whose frame a byte of a backup is in.
fn owner(bytes: &[u8], at: usize) -> Option<u8> {
    let header = crate::seal::BackupHeader::decode(bytes.first_chunk().unwrap()).unwrap();
    let mut start = header.log_at() as usize;
    let end = start + header.log_len as usize;
    while start < end {
        let head = Head::decode(bytes[start..].first_chunk().unwrap()).unwrap();
        if (start..start + head.frame_len()).contains(&at) {
            return Some(head.uuid.as_bytes()[0]).filter(|secret| *secret != 0);
        }
        start += head.frame_len();
    }
    None
}

#[test]
fn a_rotten_byte_costs_the_record_it_hits_and_that_one_is_named() {
    let (disk, expected) = worn_store();
    let bytes = backup(&boot(&disk).unwrap().unwrap());
    for at in 0..bytes.len() {
        // Blocks of the table are all alike.
        if (1000..4500).contains(&at) && at % 64 != 0 {
            continue;
        }
        let mut spoilt = bytes.clone();
        spoilt[at] ^= 1 << (at % 8);
        let lost = named(&spoilt, &expected, &format!("byte {at}"));
        let hit: BTreeSet<u8> = owner(&bytes, at).into_iter().collect();
        assert_eq!(lost, hit, "byte {at}");
    }
}

#[test]
fn rot_in_a_backup_of_many_batches_costs_no_other_record() {
    let (store, expected) = large_store();
    let bytes = backup(&store);
    let header = crate::seal::BackupHeader::decode(bytes.first_chunk().unwrap()).unwrap();
    // Every frame's head and its end, the commits among them.
    let mut at = header.log_at() as usize;
    while at < bytes.len() - 2 * BACKUP_HEADER {
        let Ok(head) = Head::decode(bytes[at..].first_chunk().unwrap()) else { break };
        for hit in [at + 100, at + head.frame_len() - 1] {
            let mut spoilt = bytes.clone();
            spoilt[hit] ^= 4;
            let inspected = opened(&spoilt).unwrap().inspect().unwrap();
            let lost: Vec<u8> = inspected
                .lost
                .iter()
                .chain(&inspected.without_value)
                .map(|lost| lost.uuid.as_bytes()[0])
                .collect();
            assert_eq!(lost, Vec::from_iter(owner(&bytes, hit)), "byte {hit}");
        }
        at += head.frame_len();
    }
    // And every second page of it at once.
    let mut spoilt = bytes.clone();
    let log = header.log_at() as usize..(header.log_at() + header.log_len) as usize;
    for at in log.step_by(200_000) {
        spoilt[at] ^= 0x10;
    }
    let lost = named(&spoilt, &expected, "many bytes");
    assert!((6..=10).contains(&lost.len()), "{lost:?}");
}

#[test]
fn a_backup_that_was_cut_names_what_is_missing() {
    let (disk, expected) = worn_store();
    let bytes = backup(&boot(&disk).unwrap().unwrap());
    let header = crate::seal::BackupHeader::decode(bytes.first_chunk().unwrap()).unwrap();
    let table_end = header.log_at() as usize;
    assert_eq!(table_end, BACKUP_HEADER + header.keyring_len + BLOCK_LEN);
    for len in (table_end..bytes.len()).step_by(11).chain([bytes.len() - 1]) {
        let cut = &bytes[..len];
        named(cut, &expected, &format!("cut to {len}"));
        let findings = verified(cut).findings;
        assert!(findings.iter().any(|finding| matches!(finding, Finding::BackupCut { .. })), "{findings:?}");
    }
    for len in (0..table_end).step_by(7) {
        match opened(&bytes[..len]).and_then(|backup| backup.inspect()) {
            Ok(inspected) => assert_eq!(inspected.unnamed, 4, "cut to {len}"),
            Err(error) => assert!(matches!(error, StoreError::NoBackup(_)), "cut to {len}: {error}"),
        }
    }
}

#[test]
fn half_of_another_backup_is_noticed() {
    let (disk, store) = new_store();
    for secret in 1..=4 {
        define(&store, secret, "one").unwrap();
        set(&store, secret, b"old").unwrap();
    }
    let old = backup(&store);
    set(&store, 1, b"new").unwrap();
    undefine(&store, 2).unwrap();
    define(&store, 2, "again").unwrap();
    set(&store, 2, b"two").unwrap();
    let new = backup(&store);
    assert_eq!(old.len(), new.len());
    let header = crate::seal::BackupHeader::decode(new.first_chunk().unwrap()).unwrap();
    let mixed = [&new[..header.log_at() as usize], &old[header.log_at() as usize..]].concat();
    let inspected = opened(&mixed).unwrap().inspect().unwrap();
    let lost: Vec<u8> = inspected.lost.iter().map(|lost| lost.uuid.as_bytes()[0]).collect();
    assert_eq!((lost, inspected.verified.sound), (vec![1, 2], 2), "old values are not taken for new ones");
    drop((disk, store));
}

#[test]
fn what_is_damaged_in_the_store_is_damaged_in_its_backup_and_no_more() {
    let (disk, expected) = worn_store();
    // The last byte of the last put: a value's.
    let log = disk.with_file("secrets.log", |log| log.clone());
    let last = log.len() - 2 * HEAD_LEN - 1;
    disk.with_file("secrets.log", |log| log[last] ^= 1);
    let store = boot(&disk).unwrap().unwrap();
    let bytes = backup(&store);
    assert_eq!(named(&bytes, &expected, "a damaged value"), [4].into());
    let refused = restored(&SimulatedDisk::default(), &bytes, RestoreOptions::default()).unwrap_err();
    assert!(matches!(refused, StoreError::BackupDamaged { records: 4, lost: 1 }), "{refused}");
}

#[test]
fn a_backup_of_which_nothing_opens_takes_nobodys_place() {
    let (disk, expected) = worn_store();
    let store = boot(&disk).unwrap().unwrap();
    let mut bytes = backup(&store);
    drop(store);
    let header = crate::seal::BackupHeader::decode(bytes.first_chunk().unwrap()).unwrap();
    let log_at = header.log_at() as usize;
    bytes[log_at..][..header.log_len as usize].fill(0);
    let refused = restored(&disk, &bytes, ANYHOW).unwrap_err();
    assert!(matches!(refused, StoreError::BackupLost(4)), "{refused}");
    assert_eq!(secrets(&boot(&disk).unwrap().unwrap()), expected);
}
