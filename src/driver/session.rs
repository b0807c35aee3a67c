//! One caller's view of a driver: libvirt's calls, checked in libvirt's order.
//!
//! Leans on `rules` for defining and on the store for what is durable. Refuses a change on a read-only session, unknown
//! flag bits, and a private value to a caller who isn't elevated.

use std::collections::HashMap;
use std::sync::Arc;

use ::uuid::Uuid;

use super::locking::State;
use super::{Driver, Ephemeral, failure, rules};
use crate::memory::{self, Exhausted, SecretBytes};
use crate::secret::{
    DefineFlags, Definition, Error, Event, EventKind, EventSink, Function, Handle, Keystore, Lifecycle,
    ListFlags, MAX_VALUE, Subscription, Usage, UsageType,
};
use crate::store::{Change, Store, StoreError, Value, View};

/// Who is calling, and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// May change nothing and read no values.
    pub read_only: bool,
    /// May read private values.
    pub elevated: bool,
    /// May become elevated by asking: it holds the key anyway.
    pub owner: bool,
}

impl Caller {
    /// The program that opened the root itself.
    pub const OWNER: Self = Self { read_only: false, elevated: false, owner: true };
}

/// A driver as one caller sees it.
pub struct Session {
    driver: Arc<Driver>,
    id: u64,
    caller: Caller,
}

/// Where a secret is.
enum Held {
    /// In memory only.
    Ephemeral(Arc<Definition>),
    /// On disk.
    Stored(Arc<Definition>),
    /// On disk, but its definition doesn't open.
    Damaged,
    /// Listed by its `.xml` copy; the store is locked.
    Listed(Arc<Definition>),
}

impl Held {
    fn definition(&self, uuid: Uuid) -> Result<&Arc<Definition>, Error> {
        match self {
            Self::Ephemeral(definition) | Self::Stored(definition) | Self::Listed(definition) => {
                Ok(definition)
            }
            Self::Damaged => Err(Error::damaged(uuid, "its definition doesn't open").advise(
                "undefine this secret and define it again; see what else is with: strongroom verify",
            )),
        }
    }
}

impl Keystore for Session {
    fn uri(&self) -> String {
        self.driver.uri.clone()
    }

    fn locked(&self) -> Option<Error> {
        self.driver.state().store().err()
    }

    fn num_of_secrets(&self) -> Result<usize, Error> {
        let mut count = 0;
        self.for_each(|_, _| count += 1)?;
        Ok(count)
    }

    fn list_secrets(&self, max: usize) -> Result<Vec<Uuid>, Error> {
        let mut uuids = Vec::new();
        self.for_each(|uuid, _| {
            if uuids.len() < max {
                uuids.push(uuid);
            }
        })?;
        Ok(uuids)
    }

    fn list_all(&self, flags: u32) -> Result<Vec<Handle>, Error> {
        let known =
            ListFlags::EPHEMERAL | ListFlags::NO_EPHEMERAL | ListFlags::PRIVATE | ListFlags::NO_PRIVATE;
        check_flags(flags, known, Function::ListAll)?;
        let passes = |yes: u32, no: u32, is: bool| {
            let wanted = (flags & yes != 0, flags & no != 0);
            wanted.0 == wanted.1 || wanted.0 == is
        };
        let mut handles = Vec::new();
        self.for_each(|uuid, definition| {
            let (ephemeral, private) =
                definition.map_or((false, false), |found| (found.ephemeral, found.private));
            if passes(ListFlags::EPHEMERAL, ListFlags::NO_EPHEMERAL, ephemeral)
                && passes(ListFlags::PRIVATE, ListFlags::NO_PRIVATE, private)
            {
                let usage = definition.map_or_else(Usage::none, |definition| definition.usage.clone());
                handles.push(Handle { uuid, usage });
            }
        })?;
        Ok(handles)
    }

    fn lookup_by_uuid(&self, uuid: Uuid) -> Result<Handle, Error> {
        let state = self.driver.state();
        let held = self.find(&state, uuid)?;
        // A damaged secret stays listed and can be looked up, so that it can be undefined.
        let usage =
            held.definition(uuid).map_or_else(|_| Usage::none(), |definition| definition.usage.clone());
        Ok(Handle { uuid, usage })
    }

    fn lookup_by_usage(&self, kind: UsageType, id: &str) -> Result<Handle, Error> {
        let usage = Usage { kind, id: id.into() };
        let state = self.driver.state();
        let stored = || state.owner(&usage).filter(|uuid| !self.is_ephemeral(*uuid)); // not one that is hidden
        let owner = match kind {
            UsageType::None => None,
            _ => self.ephemeral_owner(&usage).or_else(stored),
        };
        match owner {
            Some(uuid) => Ok(Handle { uuid, usage }),
            None => Err(missing(&state, Error::no_such_usage(id))),
        }
    }

    fn define_xml(&self, xml: &[u8], flags: u32) -> Result<Handle, Error> {
        self.check_writable(Function::Define)?;
        check_flags(flags, DefineFlags::VALIDATE, Function::Define)?;
        let definition = Arc::new(Definition::from_xml(xml, flags & DefineFlags::VALIDATE != 0)?);
        self.define(&definition)?;
        let handle = Handle { uuid: definition.uuid, usage: definition.usage.clone() };
        self.driver.events.emit(&Event::Lifecycle(handle.clone(), Lifecycle::Defined));
        Ok(handle)
    }

    fn xml_desc(&self, uuid: Uuid, flags: u32) -> Result<String, Error> {
        check_flags(flags, 0, Function::XmlDesc)?;
        let state = self.driver.state();
        Ok(self.find(&state, uuid)?.definition(uuid)?.to_xml())
    }

    fn set_value(&self, uuid: Uuid, value: SecretBytes, flags: u32) -> Result<(), Error> {
        self.check_writable(Function::SetValue)?;
        if value.is_empty() {
            return Err(Error::empty_value());
        }
        if value.len() > MAX_VALUE {
            return Err(Error::value_too_long(value.len()));
        }
        check_flags(flags, 0, Function::SetValue)?;
        let usage = self.set(uuid, value)?;
        self.driver.events.emit(&Event::ValueChanged(Handle { uuid, usage }));
        Ok(())
    }

    fn value(&self, uuid: Uuid, flags: u32) -> Result<SecretBytes, Error> {
        if self.caller.read_only {
            return Err(Error::read_only(Function::Value));
        }
        check_flags(flags, 0, Function::Value)?;
        let state = self.driver.state();
        // Judged by the very definition that the value belongs to: another call may make the secret private meanwhile.
        let may_have = |definition: &Definition| match definition.private && !self.caller.elevated {
            true => Err(Error::private()),
            false => Ok(()),
        };
        if let Some(held) = self.driver.ephemeral().get(&uuid) {
            may_have(&held.definition)?;
            return held
                .value
                .as_ref()
                .ok_or_else(|| Error::no_value(uuid))?
                .try_clone()
                .map_err(Error::from);
        }
        may_have(self.find(&state, uuid)?.definition(uuid)?)?;
        let found = state.store()?.value(uuid).map_err(|error| self.explain_of(error, uuid))?;
        let (definition, value) = found.ok_or_else(|| Error::no_such_uuid(uuid))?;
        may_have(&definition)?;
        value.ok_or_else(|| Error::no_value(uuid))
    }

    fn undefine(&self, uuid: Uuid) -> Result<(), Error> {
        self.check_writable(Function::Undefine)?;
        let state = self.driver.state();
        let ephemeral = self.driver.ephemeral().remove(&uuid);
        let usage = match ephemeral {
            Some(held) => held.definition.usage.clone(),
            None => self.update(state.store()?, uuid, |view| {
                let held = view.definition(uuid).ok_or_else(|| Error::no_such_uuid(uuid))?;
                let usage = held.map_or_else(Usage::none, |definition| definition.usage.clone());
                Ok((Change::Delete(uuid), usage))
            })?,
        };
        self.driver.events.emit(&Event::Lifecycle(Handle { uuid, usage }, Lifecycle::Undefined));
        Ok(())
    }

    fn subscribe(&self, kind: EventKind, only: Option<Uuid>, sink: EventSink) -> Result<Subscription, Error> {
        self.driver.events.subscribe(self.id, kind, only, sink)
    }

    fn elevated(&self) -> Result<Arc<dyn Keystore>, Error> {
        if !self.caller.owner {
            return Err(Error::private());
        }
        let caller = Caller { elevated: true, ..self.caller };
        Ok(Arc::new(self.driver.session(caller)))
    }
}

impl Session {
    pub(super) fn new(driver: Arc<Driver>, id: u64, caller: Caller) -> Self {
        Self { driver, id, caller }
    }

    /// The driver behind it, for what is not libvirt's API.
    pub fn driver(&self) -> &Arc<Driver> {
        &self.driver
    }

    /// Whether a call that changes nothing had better not be made on a thread that can't wait: a secret moves between
    /// memory and disk, the store opens or closes; or `all` secrets are to be looked at, and there are a great many.
    pub fn would_wait(&self, all: bool) -> bool {
        self.driver.would_wait() || (all && self.driver.has_many())
    }

    /// The same session for another caller: what is subscribed stays so. For a connection that changes its identity.
    pub fn with_caller(&self, caller: Caller) -> Self {
        Self::new(Arc::clone(&self.driver), self.id, caller)
    }

    /// Defines: in memory, on disk, or moving between the two. Whatever puts a secret into memory, or moves it, has no other
    /// change beside it.
    fn define(&self, new: &Arc<Definition>) -> Result<(), Error> {
        if !new.ephemeral {
            let state = self.driver.state();
            if !self.is_ephemeral(new.uuid) {
                return self.define_stored(state.store()?, new);
            }
        }
        let state = self.driver.alone();
        match (new.ephemeral, state.has(new.uuid), self.is_ephemeral(new.uuid)) {
            (true, true, false) => self.move_to_memory(state.store()?, new),
            (true, ..) => self.define_ephemeral(&state, new),
            (false, true, true) => Err(state.store().err().unwrap_or_else(|| failure::hidden(new.uuid))),
            (false, false, true) => self.move_to_disk(state.store()?, new),
            (false, _, false) => self.define_stored(state.store()?, new),
        }
    }

    fn define_stored(&self, store: &Store, new: &Arc<Definition>) -> Result<(), Error> {
        self.update(store, new.uuid, |view| {
            self.judge(new, view)?;
            if let Some(None) = view.definition(new.uuid) {
                // What it was, private or not, can't be known; its value must not get out under another definition.
                return Err(self.explain_of(StoreError::Damaged("definition"), new.uuid));
            }
            Ok((Change::Put(Arc::clone(new), Value::Keep), ()))
        })
    }

    fn define_ephemeral(&self, state: &State, new: &Arc<Definition>) -> Result<(), Error> {
        let insert = || {
            let mut ephemeral = self.driver.ephemeral();
            let value = ephemeral.remove(&new.uuid).and_then(|old| old.value);
            ephemeral.insert(new.uuid, Ephemeral { definition: Arc::clone(new), value });
        };
        match state {
            State::Open(open) => open.store.with_view(|view| self.judge(new, view).map(|()| insert())),
            State::Locked(locked) => {
                let old = self.driver.ephemeral().get(&new.uuid).map(|old| Arc::clone(&old.definition));
                let owner = |usage: &Usage| self.other_owner(new, usage, |usage| locked.owner(usage));
                rules::may_define(new, old.as_deref(), owner).map(|()| insert())
            }
        }
    }

    /// An ephemeral secret becomes persistent, value and all in one record. Nobody else changes anything meanwhile.
    fn move_to_disk(&self, store: &Store, new: &Arc<Definition>) -> Result<(), Error> {
        self.update(store, new.uuid, |view| {
            self.judge(new, view)?;
            let ephemeral = self.driver.ephemeral();
            let value = ephemeral.get(&new.uuid).and_then(|old| old.value.as_ref());
            let value = value.map(SecretBytes::try_clone).transpose()?.map_or(Value::Keep, Value::Set);
            Ok((Change::Put(Arc::clone(new), value), ()))
        })?;
        self.driver.ephemeral().remove(&new.uuid);
        Ok(())
    }

    /// A persistent secret becomes ephemeral: it leaves the disk, and its value stays in memory.
    fn move_to_memory(&self, store: &Store, new: &Arc<Definition>) -> Result<(), Error> {
        store.with_view(|view| self.judge(new, view))?;
        let value = store.value(new.uuid).map_err(|error| self.explain_of(error, new.uuid))?;
        let value = value.and_then(|(_, value)| value);
        self.driver.ephemeral().insert(new.uuid, Ephemeral { definition: Arc::clone(new), value });
        let removed = self.update(store, new.uuid, |_| Ok((Change::Delete(new.uuid), ())));
        if removed.is_err() {
            self.driver.ephemeral().remove(&new.uuid);
        }
        removed
    }

    /// Sets a value; gives the secret's usage.
    fn set(&self, uuid: Uuid, value: SecretBytes) -> Result<Usage, Error> {
        let state = self.driver.state();
        if let Some(held) = self.driver.ephemeral().get_mut(&uuid) {
            // Such values stay. The last quarter is for those that pass through: without it nothing works any more.
            let (used, size) = memory::usage();
            if used > size / 4 * 3 {
                return Err(Exhausted { wanted: value.len(), used, size }.into());
            }
            held.value = Some(value);
            return Ok(held.definition.usage.clone());
        }
        self.update(state.store()?, uuid, |view| {
            let held = view.definition(uuid).ok_or_else(|| Error::no_such_uuid(uuid))?;
            let definition = held.ok_or(StoreError::Damaged("definition"));
            let definition = Arc::clone(definition.map_err(|error| self.explain_of(error, uuid))?);
            let usage = definition.usage.clone();
            Ok((Change::Put(definition, Value::Set(value)), usage))
        })
    }

    /// Holds a definition against the secrets in the store and in memory.
    fn judge(&self, new: &Definition, view: &View<'_>) -> Result<(), Error> {
        let ephemeral = self.driver.ephemeral().get(&new.uuid).map(|old| Arc::clone(&old.definition));
        let old = ephemeral.or_else(|| view.definition(new.uuid).flatten().cloned());
        let owner = |usage: &Usage| self.other_owner(new, usage, |usage| view.owner(usage));
        rules::may_define(new, old.as_deref(), owner)
    }

    /// Which other secret has a usage: in memory or on disk, and after an unlocking perhaps in both.
    fn other_owner(
        &self,
        new: &Definition,
        usage: &Usage,
        stored: impl FnOnce(&Usage) -> Option<Uuid>,
    ) -> Option<Uuid> {
        let is_other = |owner: &Uuid| *owner != new.uuid;
        self.ephemeral_owner(usage).filter(is_other).or_else(|| stored(usage).filter(is_other))
    }

    fn find(&self, state: &State, uuid: Uuid) -> Result<Held, Error> {
        if let Some(held) = self.driver.ephemeral().get(&uuid) {
            return Ok(Held::Ephemeral(Arc::clone(&held.definition)));
        }
        let held = match state {
            State::Open(open) => {
                open.store.definition(uuid).map(|found| found.map_or(Held::Damaged, Held::Stored))
            }
            State::Locked(locked) => locked.listed.get(&uuid).map(|listed| Held::Listed(Arc::clone(listed))),
        };
        held.ok_or_else(|| missing(state, Error::no_such_uuid(uuid)))
    }

    /// Every secret once. `None`: its definition doesn't open.
    fn for_each(&self, mut each: impl FnMut(Uuid, Option<&Arc<Definition>>)) -> Result<(), Error> {
        let state = self.driver.state();
        state.check_listable()?;
        // Not held while the store is read: a change holds the store, and then looks here.
        let ephemeral: HashMap<Uuid, Arc<Definition>> = {
            let held = self.driver.ephemeral();
            held.iter().map(|(uuid, held)| (*uuid, Arc::clone(&held.definition))).collect()
        };
        ephemeral.iter().for_each(|(uuid, definition)| each(*uuid, Some(definition)));
        let mut others = |uuid: Uuid, definition: Option<&Arc<Definition>>| {
            if !ephemeral.contains_key(&uuid) {
                each(uuid, definition);
            }
        };
        match &*state {
            State::Open(open) => open.store.for_each(others),
            State::Locked(locked) => {
                locked.listed.iter().for_each(|(uuid, listed)| others(*uuid, Some(listed)));
            }
        }
        Ok(())
    }

    fn is_ephemeral(&self, uuid: Uuid) -> bool {
        self.driver.ephemeral().contains_key(&uuid)
    }

    fn ephemeral_owner(&self, usage: &Usage) -> Option<Uuid> {
        let ephemeral = self.driver.ephemeral();
        ephemeral.iter().find(|(_, held)| held.definition.usage == *usage).map(|(uuid, _)| *uuid)
    }

    fn check_writable(&self, function: Function) -> Result<(), Error> {
        if self.caller.read_only { Err(Error::read_only(function)) } else { Ok(()) }
    }

    /// [`Store::update`], with errors in libvirt's terms.
    fn update<T>(
        &self,
        store: &Store,
        uuid: Uuid,
        judge: impl FnOnce(&View<'_>) -> Result<(Change, T), Error>,
    ) -> Result<T, Error> {
        let updated = store.update(|view| judge(view).map_err(Judged::No));
        updated.map_err(|error| match error {
            Judged::No(error) => error,
            Judged::Failed(error) => self.explain_of(error, uuid),
        })
    }

    fn explain_of(&self, error: StoreError, uuid: Uuid) -> Error {
        failure::explain_of(error, uuid, &self.driver.root)
    }
}

/// What to say of a secret that isn't there: of a locked store nobody can know.
fn missing(state: &State, not_found: Error) -> Error {
    state.store().err().unwrap_or(not_found)
}

/// Why an update came to nothing: the rules, or the store.
enum Judged {
    No(Error),
    Failed(StoreError),
}

impl From<StoreError> for Judged {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

fn check_flags(flags: u32, known: u32, function: Function) -> Result<(), Error> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(Error::unsupported_flags(unknown, function)),
    }
}
