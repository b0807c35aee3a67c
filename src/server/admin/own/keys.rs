//! Slots, the root key, the epoch: the calls of our own program that change what opens the keystore.
//!
//! Leans on the parts of [`own`](super). Refuses names of slots that aren't UTF-8. Each change is a line in the log:
//! which slot, and who asked.

use std::sync::Arc;

use ::uuid::Uuid;

use super::super::super::session::{Action, Call, Held, reply};
use super::super::{Calls, failure};
use super::{given, given_key, held, json};
use crate::administration::SlotStatus;
use crate::rpc::Text;
use crate::rpc::strongroom::{ChangeSlot, NewSlot, Piece, Rekey, RemoveSlot, Unlock};
use crate::rpc::xdr::Bytes;
use crate::secret::Error;

impl Calls {
    pub(super) fn add_key(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: NewSlot<'_> = call.read()?;
        let (key, label, peer) = (given_key(&asked.key)?, label(asked.label)?, self.peer);
        Ok(self.work(call, held(&[asked.key]), move |keystore, call| {
            let slot = keystore.add_key(&key, &label)?;
            tracing::info!("slot added: {} ({peer})", words(&slot));
            json(call, &slot)
        }))
    }

    pub(super) fn change_key(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: ChangeSlot<'_> = call.read()?;
        let (key, label, peer) = (given_key(&asked.key)?, label(asked.label)?, self.peer);
        let before = Uuid::from_bytes(asked.slot);
        Ok(self.work(call, held(&[asked.key]), move |keystore, call| {
            let slot = keystore.change_key(before, &key, &label)?;
            tracing::info!("slot {before} is replaced by {} ({peer})", words(&slot));
            json(call, &slot)
        }))
    }

    pub(super) fn remove_key(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: RemoveSlot<'_> = call.read()?;
        let (slot, proof, peer) = (Uuid::from_bytes(asked.slot), given(&asked.proof.0)?, self.peer);
        Ok(self.work(call, held(&asked.proof.0), move |keystore, call| {
            let slot = keystore.remove_key(slot, &proof)?;
            tracing::info!("slot removed: {} ({peer})", words(&slot));
            json(call, &slot)
        }))
    }

    pub(super) fn test_key(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: Unlock<'_> = call.read()?;
        let [key] = &asked.keys.0[..] else {
            return Err(failure::invalid("one key is tested at a time").advise("give one"));
        };
        let (key, peer) = (given_key(key)?, self.peer);
        Ok(self.work(call, held(&asked.keys.0), move |keystore, call| {
            let slot = keystore.test_key(&key).inspect_err(|error| {
                tracing::warn!("a key was tested: {} ({peer})", error.detail());
            })?;
            tracing::info!("a key was tested, and opens the slot {} ({peer})", words(&slot));
            json(call, &slot)
        }))
    }

    pub(super) fn keyring(&self, call: &Call<'_>) -> Action {
        self.work(call, Held::Ordinary(0), move |keystore, call| {
            Ok(reply(call, &Piece { bytes: Bytes(&keystore.keyring()?) }))
        })
    }

    pub(super) fn rekey(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: Rekey<'_> = call.read()?;
        let (keys, peer) = (given(&asked.keys.0)?, self.peer);
        let forget: Vec<Uuid> = asked.forget.0.iter().copied().map(Uuid::from_bytes).collect();
        Ok(self.work(call, held(&asked.keys.0), move |keystore, call| {
            let slots = keystore.rekey(&keys, &forget)?;
            tracing::warn!("the root key is replaced; slots: {} ({peer})", slots.len());
            json(call, &slots)
        }))
    }

    /// Begins it, if none is under way. The daemon does the work by itself.
    pub(super) fn rotate(&self, call: &Call<'_>) -> Action {
        let (host, peer) = (Arc::clone(&self.host), self.peer);
        Action::work(call.header, peer, Held::Ordinary(0), move |call| {
            let rotation = host.secrets.driver.begin_rotation()?;
            tracing::info!(
                "rotation to epoch {}: {} secrets to seal anew ({peer})",
                rotation.epoch,
                rotation.total
            );
            host.rotation.look();
            Ok(reply(call, &()))
        })
    }
}

fn label(asked: Text<'_>) -> Result<String, Error> {
    String::from_utf8(asked.0.to_vec()).map_err(|_| failure::invalid("a slot's name is UTF-8"))
}

fn words(slot: &SlotStatus) -> String {
    format!("{} '{}', id {}", slot.kind, slot.label, slot.id)
}
