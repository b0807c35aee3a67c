//! Whole secrets, in and out of a driver: definition and value as one.
//!
//! Leans on the store, where one record holds both, so that putting a secret in is one append. Refuses to change what is
//! there, to put in what has no place on a disk, and everything while the keystore is locked.

use std::collections::BinaryHeap;
use std::sync::Arc;

use ::uuid::Uuid;
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use super::{Driver, failure};
use crate::administration::{Inventory, Put};
use crate::memory::SecretBytes;
use crate::secret::{Definition, Error, Event, Handle, Lifecycle, MAX_VALUE, UsageType};
use crate::store::{Change, Store, StoreError, Value, View};

impl Inventory for Driver {
    fn list(&self, after: Option<Uuid>, max: usize) -> Result<Vec<Uuid>, Error> {
        let state = self.state();
        // The smallest `max` behind `after`, the largest of them on top: one look at each secret, and no more kept than asked
        // for.
        let mut page = BinaryHeap::new();
        state.store()?.for_each(|uuid, _| {
            if after.is_some_and(|after| uuid <= after) {
                return;
            }
            if page.len() < max {
                page.push(uuid);
            } else if let Some(mut largest) = page.peek_mut()
                && uuid < *largest
            {
                *largest = uuid;
            }
        });
        Ok(page.into_sorted_vec())
    }

    fn read(&self, uuid: Uuid) -> Result<Option<(Definition, Option<SecretBytes>)>, Error> {
        let state = self.state();
        let found = self.read_from(state.store()?, uuid)?;
        Ok(found.map(|(definition, value)| (Arc::unwrap_or_clone(definition), value)))
    }

    fn put(&self, definition: &Definition, value: Option<&SecretBytes>) -> Result<Put, Error> {
        check(definition, value)?;
        let new = Arc::new(definition.clone());
        let state = self.state();
        let store = state.store()?;
        let put = store.update(|view| match self.conflict(&new, view) {
            Some(conflict) => Err(Unput::Conflict(conflict)),
            None => {
                let value = value.map(SecretBytes::try_clone).transpose().map_err(StoreError::from)?;
                Ok((Change::Put(Arc::clone(&new), value.map_or(Value::Keep, Value::Set)), ()))
            }
        });
        match put {
            Ok(()) => {}
            Err(Unput::Conflict(Conflict::Usage(owner))) => return Ok(Put::UsageTaken(owner)),
            Err(Unput::Conflict(Conflict::Ephemeral)) => return Ok(Put::Differs),
            Err(Unput::Conflict(Conflict::Stored)) => return self.compare(store, definition, value),
            Err(Unput::Failed(error)) => return Err(failure::explain_of(error, new.uuid, &self.root)),
        }
        let handle = Handle { uuid: new.uuid, usage: new.usage.clone() };
        self.events.emit(&Event::Lifecycle(handle.clone(), Lifecycle::Defined));
        if value.is_some() {
            self.events.emit(&Event::ValueChanged(handle));
        }
        Ok(Put::Added)
    }

    fn holds(&self, definition: &Definition, value: Option<&SecretBytes>) -> Result<bool, Error> {
        let state = self.state();
        let found = self.read_from(state.store()?, definition.uuid)?;
        Ok(found.is_some_and(|(found, held)| *found == *definition && are_equal(held.as_ref(), value)))
    }
}

impl Driver {
    fn read_from(&self, store: &Store, uuid: Uuid) -> Result<Option<Stored>, Error> {
        store.value(uuid).map_err(|error| failure::explain_of(error, uuid, &self.root))
    }

    /// What is in a new secret's way, in memory or on disk.
    fn conflict(&self, new: &Definition, view: &View<'_>) -> Option<Conflict> {
        let ephemeral = self.ephemeral();
        if ephemeral.contains_key(&new.uuid) {
            return Some(Conflict::Ephemeral);
        }
        if view.definition(new.uuid).is_some() {
            return Some(Conflict::Stored);
        }
        if new.usage.kind == UsageType::None {
            return None;
        }
        let hidden = ephemeral.iter().find(|(_, held)| held.definition.usage == new.usage);
        hidden.map(|(uuid, _)| *uuid).or_else(|| view.owner(&new.usage)).map(Conflict::Usage)
    }

    /// Whether a secret that is there already is this one.
    fn compare(&self, store: &Store, new: &Definition, value: Option<&SecretBytes>) -> Result<Put, Error> {
        match self.read_from(store, new.uuid)? {
            Some((found, held)) if *found == *new && are_equal(held.as_ref(), value) => Ok(Put::Same),
            Some(_) => Ok(Put::Differs),
            // It was about to be there when the change was judged, by somebody else's doing, or is gone since.
            None => Err(Error::not_now(format!("secret '{}' is being changed by somebody else", new.uuid))
                .advise("try again")),
        }
    }
}

/// A definition, and its value.
type Stored = (Arc<Definition>, Option<SecretBytes>);

/// Why a secret was not put in.
enum Unput {
    Conflict(Conflict),
    Failed(StoreError),
}

enum Conflict {
    /// A secret in memory has its UUID.
    Ephemeral,
    /// One on disk has.
    Stored,
    /// Another one has its usage.
    Usage(Uuid),
}

impl From<StoreError> for Unput {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// Refuses what libvirt's API couldn't have made.
fn check(definition: &Definition, value: Option<&SecretBytes>) -> Result<(), Error> {
    if definition.ephemeral {
        return Err(Error::failed(format!(
            "secret '{}' is ephemeral: it belongs on no disk",
            definition.uuid
        ))
        .advise("define it with an ordinary call"));
    }
    match value.map(SecretBytes::len) {
        Some(0) => Err(Error::empty_value()),
        Some(len) if len > MAX_VALUE => Err(Error::value_too_long(len)),
        _ => Ok(()),
    }
}

/// In a time that doesn't tell where they differ.
fn are_equal(one: Option<&SecretBytes>, other: Option<&SecretBytes>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.expose_secret().ct_eq(other.expose_secret()).into(),
        _ => false,
    }
}
