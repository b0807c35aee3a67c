//! The store on a simulated machine: every crash point, every fault, every flipped byte.

mod backup;
mod crash;
mod damage;
mod keys;
mod put_back;
mod rotation;
mod mend;

use std::collections::BTreeMap;
use std::sync::Arc;

use ::uuid::Uuid;
use secrecy::ExposeSecret;

use super::simulated::{Left, SimulatedDisk};
use super::{
    BackupFile, Change, OpenBackup, RestoreOptions, Snapshot, Store, StoreError, Value, read_keyring, restore,
};
use crate::memory::SecretBytes;
use crate::seal::{HostKey, Keyring, KeyringError, NewSlot, Opener};
use crate::secret::{Definition, Usage, UsageType};

/// What a store holds, as far as callers can tell: descriptions and values.
type Secrets = BTreeMap<u8, (String, Option<Vec<u8>>)>;

fn host_key(byte: u8) -> HostKey {
    HostKey::from_bytes(SecretBytes::copy_of(&[byte; 32]).unwrap()).unwrap()
}

/// Makes a store on this disk, opened by host key 1.
fn create(disk: &SimulatedDisk) -> Result<(), StoreError> {
    let keyring = Keyring::create(&[(&NewSlot::HostKey(&host_key(1)), "1")], true, 0)?;
    Store::create(&disk.disk(), &keyring)
}

/// Opens the store on this disk. `Ok(None)`: there is none.
fn boot(disk: &SimulatedDisk) -> Result<Option<Store>, StoreError> {
    let Some(locked) = read_keyring(&disk.disk())? else { return Ok(None) };
    let opened = locked.unlock(&[Opener::HostKey(host_key(1))])?;
    Store::open(disk.disk(), opened).map(Some)
}

fn new_store() -> (SimulatedDisk, Store) {
    let disk = SimulatedDisk::default();
    create(&disk).unwrap();
    let store = boot(&disk).unwrap().unwrap();
    (disk, store)
}

fn uuid(secret: u8) -> Uuid {
    Uuid::from_bytes([secret; 16])
}

fn definition(secret: u8, description: &str) -> Arc<Definition> {
    let usage = Usage { kind: UsageType::Volume, id: format!("/volumes/{secret}").into() };
    let description = Some(description.into());
    Arc::new(Definition { uuid: uuid(secret), usage, description, private: false, ephemeral: false })
}

fn define(store: &Store, secret: u8, description: &str) -> Result<(), StoreError> {
    store.update(|_| Ok((Change::Put(definition(secret, description), Value::Keep), ())))
}

fn set(store: &Store, secret: u8, value: &[u8]) -> Result<(), StoreError> {
    let value = SecretBytes::copy_of(value)?;
    store.update(|view| {
        let definition = Arc::clone(view.definition(uuid(secret)).flatten().expect("the secret is defined"));
        Ok((Change::Put(definition, Value::Set(value)), ()))
    })
}

fn undefine(store: &Store, secret: u8) -> Result<(), StoreError> {
    store.update(|_| Ok((Change::Delete(uuid(secret)), ())))
}

fn change_keyring<T>(
    store: &Store,
    change: impl FnOnce(&mut Keyring) -> Result<T, KeyringError>,
) -> Result<T, StoreError> {
    let before = store.keyring();
    let mut keyring = before.try_clone()?;
    let result = change(&mut keyring)?;
    store.replace_keyring(&before, keyring.prove(&[])?).map(|()| result)
}

/// Replaces the root key; the first slot stays, opened by host key 1.
fn rekey(store: &Store) {
    let right = Opener::HostKey(host_key(1));
    change_keyring(store, |keyring| {
        let slot = keyring.slots().next().unwrap().id;
        *keyring = keyring.rekeyed(&[(slot, &right)])?;
        Ok(())
    })
    .unwrap();
}

/// A store with history: five secrets, overwritten, redefined and undefined, closed in order.
fn worn_store() -> (SimulatedDisk, Secrets) {
    let (disk, store) = new_store();
    for secret in 1..=5 {
        define(&store, secret, "first").unwrap();
        set(&store, secret, &[secret; 20]).unwrap();
    }
    set(&store, 1, b"newer").unwrap();
    define(&store, 2, "redefined").unwrap();
    undefine(&store, 3).unwrap();
    set(&store, 4, &[9; 700]).unwrap();
    let expected = secrets(&store);
    drop(store);
    (disk, expected)
}

fn copy(disk: &SimulatedDisk) -> SimulatedDisk {
    disk.after_power_cut(Left::All)
}

/// A backup's bytes.
fn backup(store: &Store) -> Vec<u8> {
    taken(store.snapshot(1_700_000_000).unwrap()).unwrap()
}

fn taken(mut snapshot: Snapshot) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    while let Some(piece) = snapshot.next_piece()? {
        assert!(piece.len() <= 1 << 20);
        bytes.extend(piece);
    }
    assert_eq!(bytes.len() as u64, snapshot.total());
    Ok(bytes)
}

/// These bytes as a backup, opened by host key 1.
fn opened(bytes: &[u8]) -> Result<OpenBackup, StoreError> {
    let file = SimulatedDisk::default().disk().etc.create("backup").unwrap();
    file.write_at(bytes, 0).unwrap();
    BackupFile::read(file)?.unlock(&[Opener::HostKey(host_key(1))])
}

/// Restores a backup, and gives the names of what was kept aside.
fn restored(disk: &SimulatedDisk, bytes: &[u8], how: RestoreOptions) -> Result<Vec<String>, StoreError> {
    let backup = opened(bytes)?;
    restore(&disk.disk(), &backup, backup.inspect()?, how).map(|placed| placed.aside)
}

/// Everything in the store. Panics where something doesn't open.
fn secrets(store: &Store) -> Secrets {
    let mut definitions = Vec::new();
    store.for_each(|uuid, definition| {
        definitions.push((uuid, Arc::clone(definition.expect("every definition opens"))));
    });
    let secret = |(uuid, definition): (Uuid, Arc<Definition>)| {
        let value = store.value(uuid).expect("every value opens").expect("the secret is there").1;
        let description = definition.description.as_deref().unwrap_or_default().to_owned();
        assert_eq!(store.owner(&definition.usage), Some(uuid), "the usage leads to the secret");
        (uuid.as_bytes()[0], (description, value.map(|value| value.expose_secret().to_vec())))
    };
    definitions.into_iter().map(secret).collect()
}
