//! The store on a simulated machine: every crash point, every fault, every flipped byte.

mod crash;
mod damage;
mod keys;
mod put_back;
mod rotation;

use std::collections::BTreeMap;
use std::sync::Arc;

use ::uuid::Uuid;
use secrecy::ExposeSecret;

use super::simulated::SimulatedDisk;
use super::{Change, Store, StoreError, Value, read_keyring};
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
