//! Spoilt backups: what is taken from one was sealed, and what isn't taken is accounted for.
//!
//! The sound file is `tests/data/backup-v1`, of the store that `store.rs` spoils. Leans on `store` and its simulated
//! disk. Refuses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ::uuid::Uuid;
use secrecy::ExposeSecret;

use super::store::{HOST_KEY, Seen, edited, newest};
use crate::administration::Finding;
use crate::memory::SecretBytes;
use crate::seal::{BACKUP_HEADER, BLOCK_LEN, GRAIN, HEAD_LEN, Head, HostKey, Opener};
use crate::secret::Definition;
use crate::store::simulated::SimulatedDisk;
use crate::store::{BackupFile, File, OpenBackup, RestoreOptions, Store, StoreError, read_keyring, restore};

const BACKUP: &[u8] = include_bytes!("../../tests/data/backup-v1/backup");
const KEYRING: usize = 672;

/// A spoilt backup. The first byte says how: bit 0, the rest is the file itself, else [edits](super::edit) of a sound one.
///
/// Reading never panics, and notices every change. What is restored was sealed, for that very secret, and is the newest
/// there was. Every record is restored, or named as lost, or counted.
pub fn fuzz_backup(bytes: &[u8]) {
    let Some((&how, bytes)) = bytes.split_first() else { return };
    let bytes = match how & 1 {
        1 => bytes.to_vec(),
        _ => edited(BACKUP, bytes, parts),
    };
    let Some(backup) = open(&bytes) else {
        assert!(bytes != BACKUP, "a sound backup doesn't open");
        return;
    };
    let Ok(inspected) = backup.inspect() else {
        assert!(bytes != BACKUP, "a sound backup can't be read");
        return;
    };
    let found = !inspected.verified.findings.is_empty();
    assert_eq!(found, bytes != BACKUP, "found: {:?}", inspected.verified.findings);
    let lost: BTreeSet<u8> = inspected.lost.iter().map(|lost| lost.uuid.as_bytes()[0]).collect();
    let bare: BTreeSet<u8> = inspected.without_value.iter().map(|lost| lost.uuid.as_bytes()[0]).collect();
    let mut unnamed = inspected.unnamed;
    let disk = SimulatedDisk::default();
    let how = RestoreOptions { replace: false, older: false, partial: true };
    let sound = inspected.verified.sound;
    match restore(&disk.disk(), &backup, inspected, how) {
        // Nothing may take the place of a keystore.
        Err(StoreError::BackupLost(_)) => return assert!(sound == 0 && bare.is_empty()),
        restored => assert!(restored.is_ok(), "what was read can't be restored"),
    }
    let locked = read_keyring(&disk.disk()).ok().flatten();
    let opened = locked.and_then(|locked| locked.unlock(&openers()?).ok());
    let store = opened.and_then(|opened| Store::open(disk.disk(), opened).ok());
    let Some(store) = store else { panic!("what was restored doesn't open") };
    assert!(!store.condition().findings.iter().any(Finding::is_damage));
    let restored = contents(&store);
    for (secret, (description, value)) in newest() {
        let expected = (description, value.filter(|_| !bare.contains(&secret)));
        match restored.get(&secret) {
            Some(restored) => assert_eq!(restored, &expected, "secret {secret}"),
            None if lost.contains(&secret) => {}
            None => {
                assert!(unnamed > 0, "secret {secret} is gone and not accounted for");
                unnamed -= 1;
            }
        }
    }
    assert!(restored.keys().all(|secret| newest().contains_key(secret)));
}

/// Everything in a store, by the byte that its UUID is made of.
fn contents(store: &Store) -> BTreeMap<u8, Seen> {
    let mut definitions = Vec::new();
    store.for_each(|uuid, definition| definitions.extend(definition.cloned().map(|found| (uuid, found))));
    let secret = |(uuid, definition): (Uuid, Arc<Definition>)| {
        let Ok(Some((_, value))) = store.value(uuid) else {
            panic!("restored, and its value doesn't open: {uuid}")
        };
        let secret = uuid.as_bytes()[0];
        assert_eq!(&*definition.usage.id, format!("/volumes/{secret}"));
        let description = definition.description.as_deref().unwrap_or_default().to_owned();
        (secret, (description, value.map(|value| value.expose_secret().to_vec())))
    };
    definitions.into_iter().map(secret).collect()
}

fn open(bytes: &[u8]) -> Option<OpenBackup> {
    let file: Arc<dyn File> = SimulatedDisk::default().disk().etc.create("backup").ok()?;
    file.write_at(bytes, 0).ok()?;
    BackupFile::read(file).ok()?.unlock(&openers()?).ok()
}

/// The host key alone: Argon2id at a cost that noise names would measure patience, not us.
fn openers() -> Option<[Opener; 1]> {
    Some([Opener::HostKey(HostKey::from_bytes(SecretBytes::copy_of(&HOST_KEY).ok()?)?)])
}

/// Where header, keyring, table, each frame, keyring and header begin, as far as heads can be read.
fn parts(file: &[u8]) -> Vec<usize> {
    let table = BACKUP_HEADER + KEYRING;
    let end = file.len().saturating_sub(table);
    let (mut at, mut starts) = (table + BLOCK_LEN, vec![0, BACKUP_HEADER, table]);
    while at < end {
        starts.push(at);
        let head = file.get(at..at + HEAD_LEN).and_then(|bytes| Head::decode(bytes.first_chunk()?).ok());
        at += head.map_or(GRAIN, |head| head.frame_len());
    }
    starts.extend([end, file.len().saturating_sub(BACKUP_HEADER)]);
    starts.sort_unstable();
    starts.dedup();
    starts
}
