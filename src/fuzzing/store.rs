//! Spoilt stores: whatever their bytes say, no secret is served that was not sealed, and none as another's.
//!
//! The sound files are `tests/data/store-v1`, a store with history: values set, replaced and undefined, and the sealed
//! bytes of all of them still there, as whoever copied the disk early might put them back. Leans on `store`'s simulated
//! disk and on `seal`. Refuses nothing.

use std::collections::BTreeMap;

use ::uuid::Uuid;
use secrecy::ExposeSecret;

use super::edit;
use crate::administration::Finding;
use crate::memory::SecretBytes;
use crate::seal::{GRAIN, HEAD_LEN, Head, HostKey, LockedKeyring, Opened, Opener};
use crate::store::simulated::SimulatedDisk;
use crate::store::{Change, Store, StoreError, Value, read_keyring};

const KEYRING: &[u8] = include_bytes!("../../tests/data/store-v1/keyring");
const LOG: &[u8] = include_bytes!("../../tests/data/store-v1/secrets.log");
const ANCHOR: &[u8] = include_bytes!("../../tests/data/store-v1/anchor");
pub(super) const HOST_KEY: [u8; 32] = [1; 32];

/// A secret as callers see it: its description and its value.
pub(super) type Seen = (String, Option<Vec<u8>>);

/// Every record that the sound log ever held: the byte its UUID is made of, its description, its value.
const SEALED: [(u8, &str, Option<&[u8]>); 9] = [
    (1, "1.1", None),
    (2, "2.1", Some(b"two")),
    (1, "1.1", Some(b"one")),
    (3, "3.1", Some(&repeated(*b"three "))),
    (4, "4.1", None),
    (1, "1.1", Some(b"another one")),
    (2, "2.2", Some(b"two")),
    (5, "5.1", Some(b"five")),
    (3, "3.2", Some(b"three again")),
];
/// The last of them, which replaced the others of its secret.
const LAST: (u8, &str, Option<&[u8]>) = (1, "1.2", Some(b"the last one"));

/// A spoilt log under a sound keyring. The first byte says how: bit 0, the rest is the log itself, else
/// [edits](super::edit) of a sound one; bit 1, the host remembers the sound one (the anchor is there).
///
/// Opening never panics. What is served was sealed, in one record, for that very secret. If an anchor is there and no
/// damage is found, it is the newest, and all of it. What takes changes keeps them.
pub fn fuzz_frames(bytes: &[u8]) {
    let Some((&how, bytes)) = bytes.split_first() else { return };
    let log = match how & 1 {
        1 => bytes.to_vec(),
        _ => edited(LOG, bytes, frames),
    };
    let anchored = how & 2 != 0;
    let disk = disk(KEYRING, &log, anchored);
    let Some(store) = open(&disk) else {
        assert!(log != LOG, "a sound store doesn't open");
        return;
    };
    let at_opening = store.condition().findings;
    let (served, refused) = served(&store);
    if anchored && !at_opening.iter().any(Finding::is_damage) {
        let mut expected = newest();
        expected.retain(|secret, _| !refused.contains(secret));
        assert_eq!(served, expected, "not the newest, and nothing was found: {at_opening:?}");
    }
    if let Ok(verified) = store.verify() {
        for secret in refused {
            let uuid = Uuid::from_bytes([secret; 16]);
            assert!(verified.findings.contains(&Finding::ValueDamaged { uuid }), "{uuid}: {verified:?}");
        }
    }
    if store.condition().read_only.is_some() {
        return;
    }
    let (uuid, definition) = {
        let mut first = None;
        store.for_each(|uuid, definition| {
            if let Some(definition) = definition {
                first = Some((uuid, definition.clone()));
            }
        });
        let Some(first) = first else { return };
        first
    };
    let new = SecretBytes::copy_of(b"new").ok();
    let changed =
        new.map(|new| store.update(|_| Ok::<_, StoreError>((Change::Put(definition, Value::Set(new)), ()))));
    assert!(matches!(changed, Some(Ok(()))), "a store that takes changes refused one: {changed:?}");
    drop(store);
    let Some(store) = open(&disk) else { panic!("a store that took a change doesn't open again") };
    let value = store.value(uuid).ok().flatten().and_then(|(_, value)| value);
    assert_eq!(value.as_ref().map(|value| value.expose_secret()), Some(&b"new"[..]), "the change is gone");
}

/// A spoilt keyring. The first byte says how: bit 0, the rest is the keyring itself, else [edits](super::edit) of a
/// sound one.
///
/// Reading and unlocking never panic. A keyring whose seal holds is the sound one to the byte; one whose seal doesn't
/// may still open the store, for reading only, and then serves what was sealed.
pub fn fuzz_keyring(bytes: &[u8]) {
    let Some((&how, bytes)) = bytes.split_first() else { return };
    let keyring = match how & 1 {
        1 => bytes.to_vec(),
        _ => edited(KEYRING, bytes, slots),
    };
    let Ok(locked) = LockedKeyring::parse(&keyring) else {
        assert!(keyring != KEYRING, "a sound keyring doesn't parse");
        return;
    };
    assert!(locked.slots().count() > 0);
    let Some(opened) = unlock(&locked) else { return };
    assert_eq!(opened.sound, keyring == KEYRING, "the seal must hold for the sound bytes and for no others");
    let sealed_anew = opened.keyring.encode().ok().and_then(|bytes| LockedKeyring::parse(&bytes).ok());
    assert!(sealed_anew.and_then(|locked| unlock(&locked)).is_some_and(|opened| opened.sound));
    let is_sound = opened.sound;
    let Some(store) = open(&disk(&keyring, LOG, false)) else {
        assert!(!is_sound, "a sound store doesn't open");
        return;
    };
    assert_eq!(store.condition().read_only.is_none(), is_sound, "a damaged keyring, and changes are taken");
    served(&store);
}

/// Everything that a store serves, each held against what was sealed; and the secrets whose values don't open.
fn served(store: &Store) -> (BTreeMap<u8, Seen>, Vec<u8>) {
    let mut definitions = Vec::new();
    store.for_each(|uuid, definition| definitions.extend(definition.cloned().map(|found| (uuid, found))));
    let (mut served, mut refused) = (BTreeMap::new(), Vec::new());
    for (uuid, definition) in definitions {
        let secret = uuid.as_bytes()[0];
        assert_eq!((uuid, definition.uuid), (Uuid::from_bytes([secret; 16]), uuid), "a secret nobody sealed");
        let description = definition.description.as_deref().unwrap_or_default();
        let records = || {
            let records = SEALED.iter().chain([&LAST]);
            records.filter(move |record| (record.0, record.1) == (secret, description))
        };
        assert!(records().next().is_some(), "a definition nobody sealed: {definition:?}");
        assert_eq!(&*definition.usage.id, format!("/volumes/{secret}"));
        let Ok(value) = store.value(uuid) else {
            refused.push(secret);
            continue;
        };
        let value = value.and_then(|(_, value)| value).map(|value| value.expose_secret().to_vec());
        assert!(
            records().any(|record| record.2 == value.as_deref()),
            "{uuid} has a value nobody sealed with this definition"
        );
        served.insert(secret, (description.to_owned(), value));
    }
    (served, refused)
}

/// What the sound store holds.
pub(super) fn newest() -> BTreeMap<u8, Seen> {
    let mut newest = BTreeMap::new();
    for (secret, description, value) in SEALED.into_iter().chain([LAST]) {
        newest.insert(secret, (description.to_owned(), value.map(<[u8]>::to_vec)));
    }
    newest.remove(&5); // undefined in the end
    newest
}

pub(super) fn edited(sound: &[u8], edits: &[u8], parts: edit::Parts) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    edit::apply(&mut bytes, edits, parts);
    bytes
}

/// Where each frame begins, as far as heads can be read; then every grain.
fn frames(log: &[u8]) -> Vec<usize> {
    let (mut at, mut starts) = (0, Vec::new());
    while let Some(head) = log.get(at..at + HEAD_LEN).and_then(|bytes| bytes.first_chunk()) {
        starts.push(at);
        at += Head::decode(head).map_or(GRAIN, |head| head.frame_len());
    }
    starts
}

/// Where the fixed part, each slot, the epoch and the seal of the sound keyring begin.
fn slots(_keyring: &[u8]) -> Vec<usize> {
    vec![0, 64, 288, 512, 640]
}

fn disk(keyring: &[u8], log: &[u8], anchored: bool) -> SimulatedDisk {
    let simulated = SimulatedDisk::default();
    let disk = simulated.disk();
    let mut files = vec![(&disk.etc, "keyring", keyring), (&disk.etc, "secrets.log", log)];
    if anchored {
        files.push((&disk.run, "anchor", ANCHOR));
    }
    for (directory, name, bytes) in files {
        let written = directory.create(name).and_then(|file| file.write_at(bytes, 0));
        assert!(written.is_ok(), "the simulated disk fails only when it is told to");
    }
    simulated
}

fn open(simulated: &SimulatedDisk) -> Option<Store> {
    let locked = read_keyring(&simulated.disk()).ok().flatten()?;
    Store::open(simulated.disk(), unlock(&locked)?).ok()
}

/// By the host key alone: Argon2id at a cost that noise names would measure patience, not us.
fn unlock(locked: &LockedKeyring) -> Option<Opened> {
    let key = HostKey::from_bytes(SecretBytes::copy_of(&HOST_KEY).ok()?)?;
    locked.unlock(&[Opener::HostKey(key)]).ok()
}

/// A value of some length: the same six bytes fifty times.
const fn repeated(piece: [u8; 6]) -> [u8; 300] {
    let mut whole = [0; 300];
    let mut at = 0;
    while at < whole.len() {
        whole[at] = piece[at % piece.len()];
        at += 1;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stores of this first format must open for ever.
    #[test]
    fn a_store_of_version_one_is_read_whole() {
        for anchored in [true, false] {
            let store = open(&disk(KEYRING, LOG, anchored)).unwrap();
            assert_eq!(served(&store), (newest(), Vec::new()));
            assert!(!store.condition().findings.iter().any(Finding::is_damage));
        }
    }

    /// The assertions above can fail: a value that was sealed, but that the table doesn't know.
    #[test]
    #[should_panic(expected = "nobody sealed")]
    fn a_value_that_was_not_sealed_is_noticed() {
        let disk = disk(KEYRING, LOG, false);
        let store = open(&disk).unwrap();
        let mut definition = None;
        store.for_each(|_, found| definition = found.cloned());
        let value = Value::Set(SecretBytes::copy_of(b"planted").unwrap());
        store.update(|_| Ok::<_, StoreError>((Change::Put(definition.unwrap(), value), ()))).unwrap();
        served(&store);
    }
}
