//! What of a log still opens, and a new log of just that: for restoring and for repairing.
//!
//! Leans on `log` and `seal`. Refuses to call a secret whole whose value wasn't opened.

use std::sync::Arc;

use ::uuid::Uuid;

use super::disk::{Directory, File};
use super::index::{Entry, Place};
use super::log::{AppendError, CompactError, Copying, Log, OnDamage};
use super::{StoreError, read_value};
use crate::administration::{Checked, Lost, RecordState, usage_in_words};
use crate::seal::Keyring;
use crate::secret::Definition;

/// Records, each opened once.
#[derive(Default)]
pub(super) struct Kept {
    /// Those that open whole.
    whole: Vec<(Place, Uuid)>,
    /// Definitions that open, with values that don't.
    bare: Vec<Arc<Definition>>,
    /// What each record is like, in the order of the UUIDs.
    pub(super) checked: Vec<Checked>,
}

impl Kept {
    /// Opens these records, where they lie in `file`.
    pub(super) fn among<'a>(
        file: &dyn File,
        keyring: &Keyring,
        entries: impl Iterator<Item = (Uuid, &'a Entry)>,
    ) -> Result<Self, StoreError> {
        let mut entries: Vec<_> = entries.collect();
        entries.sort_unstable_by_key(|(_, entry)| entry.place.at);
        let mut kept = Self::default();
        for (uuid, Entry { definition, place }) in entries {
            let usage = definition.as_ref().map(|definition| usage_in_words(&definition.usage));
            let value = match (definition, place.has_value) {
                (None, _) => RecordState::DefinitionDamaged,
                (Some(_), false) => RecordState::NoValue,
                (Some(_), true) => match read_value(file, uuid, *place, keyring) {
                    Ok(_) => RecordState::Ok,
                    Err(StoreError::Damaged(_)) => RecordState::ValueDamaged,
                    Err(error) => return Err(error),
                },
            };
            match (value, definition) {
                (RecordState::ValueDamaged, Some(definition)) => kept.bare.push(Arc::clone(definition)),
                (state, _) if state.is_sound() => kept.whole.push((*place, uuid)),
                _ => {}
            }
            kept.checked.push(Checked { uuid, usage, state: value });
        }
        kept.checked.sort_unstable_by_key(|checked| checked.uuid);
        Ok(kept)
    }

    /// How many are whole.
    pub(super) fn sound(&self) -> usize {
        self.whole.len()
    }

    /// The records of one state.
    pub(super) fn those(&self, state: RecordState) -> Vec<Lost> {
        let those = self.checked.iter().filter(|checked| checked.state == state);
        those.map(|checked| Lost { uuid: checked.uuid, usage: checked.usage.clone() }).collect()
    }

    /// Writes a new log of what is kept, under this name: durable when this returns. All its commits and new frames have
    /// numbers above `generation`.
    pub(super) fn write(
        self,
        etc: &dyn Directory,
        name: &str,
        from: &dyn File,
        keyring: &Keyring,
        generation: u64,
    ) -> Result<(), StoreError> {
        let failed = |error| match error {
            CompactError::Unchanged(error) => unchanged(name)(error),
            CompactError::Unknown(error) => StoreError::Io(format!("write {name}"), error),
            CompactError::Damaged => StoreError::Damaged("record"),
        };
        let copying = Copying::new(self.whole, keyring, generation, OnDamage::Refuse);
        let (mut log, _) = Log::copied(etc, name, copying, from, keyring).map_err(failed)?;
        for definitions in self.bare.chunks(BARE) {
            let frames = definitions
                .iter()
                .map(|definition| keyring.current().put(log.next_generation(), definition, None))
                .collect::<Result<Vec<_>, _>>()?;
            log.append(&frames, keyring.current(), keyring.serial()).map_err(unchanged(name))?;
        }
        Ok(())
    }
}

/// Nothing hangs on a log that has not taken its place yet.
fn unchanged(name: &str) -> impl Fn(AppendError) -> StoreError {
    move |error| match error {
        AppendError::NoSpace(error) => StoreError::NoSpace(error),
        AppendError::Failed(error) => StoreError::Io(format!("write {name}"), error),
        AppendError::Seal(error) => error.into(),
    }
}

/// Definitions in one batch.
const BARE: usize = 256;
