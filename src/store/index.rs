//! Where each secret's latest record lies, and which secret has which usage: in memory, O(1) both ways.
//!
//! Leans on `secret`. Holds definitions, never values. About 300 bytes a secret.

use std::collections::HashMap;
use std::sync::Arc;

use ::uuid::Uuid;

use crate::seal::Head;
use crate::secret::{Definition, Usage, UsageType};

/// The secrets of a store.
#[derive(Default)]
pub(super) struct Index {
    by_uuid: HashMap<Uuid, Entry>,
    by_usage: HashMap<Usage, Uuid>,
    /// Bytes of the frames that entries point at.
    live: u64,
}

/// One secret: its definition, and where its frame lies.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// `None`: the frame's definition doesn't open.
    pub(super) definition: Option<Arc<Definition>>,
    pub(super) place: Place,
}

/// A frame's place and shape, as much of it as reading it again takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: u64,
    pub(super) generation: u64,
    pub(super) frame_len: u32,
    pub(super) has_value: bool,
}

impl Place {
    pub(super) fn of(head: &Head, at: u64) -> Self {
        let frame_len = u32::try_from(head.frame_len()).unwrap_or(u32::MAX);
        Self { at, generation: head.generation, frame_len, has_value: head.has_value() }
    }
}

impl Index {
    pub(super) fn entry(&self, uuid: Uuid) -> Option<&Entry> {
        self.by_uuid.get(&uuid)
    }

    pub(super) fn owner(&self, usage: &Usage) -> Option<Uuid> {
        self.by_usage.get(usage).copied()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (Uuid, &Entry)> {
        self.by_uuid.iter().map(|(uuid, entry)| (*uuid, entry))
    }

    pub(super) fn len(&self) -> usize {
        self.by_uuid.len()
    }

    /// Bytes of all frames that are in use.
    pub(super) fn live(&self) -> u64 {
        self.live
    }

    /// Puts a secret in. Returns the place of its frame before, dead now.
    pub(super) fn put(&mut self, uuid: Uuid, entry: Entry) -> Option<Place> {
        self.live += u64::from(entry.place.frame_len);
        let usage = entry.definition.as_ref().map(|definition| definition.usage.clone());
        let before = self.by_uuid.insert(uuid, entry);
        if let Some(before) = &before {
            self.live -= u64::from(before.place.frame_len);
            self.release_usage(uuid, before);
        }
        if let Some(usage) = usage.filter(|usage| usage.kind != UsageType::None) {
            self.by_usage.entry(usage).or_insert(uuid);
        }
        before.map(|before| before.place)
    }

    /// Takes a secret out. Returns the place of its frame, dead now.
    pub(super) fn remove(&mut self, uuid: Uuid) -> Option<Place> {
        let before = self.by_uuid.remove(&uuid)?;
        self.live -= u64::from(before.place.frame_len);
        self.release_usage(uuid, &before);
        Some(before.place)
    }

    /// The same secrets with their frames at new places, and the places before: after compaction.
    pub(super) fn relocated(&self, places: Vec<(Uuid, u64)>) -> (HashMap<Uuid, Entry>, Vec<Place>) {
        let mut moved = self.by_uuid.clone();
        let mut before = Vec::with_capacity(places.len());
        for (uuid, at) in places {
            if let Some(entry) = moved.get_mut(&uuid) {
                before.push(entry.place);
                entry.place.at = at;
            }
        }
        (moved, before)
    }

    /// Puts in force what [`relocated`](Self::relocated) gave, and hands back what was before: to let that go takes a while.
    pub(super) fn exchange(&mut self, moved: HashMap<Uuid, Entry>) -> HashMap<Uuid, Entry> {
        std::mem::replace(&mut self.by_uuid, moved)
    }

    /// Gives a secret that is in the index already its definition.
    pub(super) fn define(&mut self, uuid: Uuid, definition: Arc<Definition>) {
        if let Some(entry) = self.by_uuid.get_mut(&uuid) {
            if definition.usage.kind != UsageType::None {
                self.by_usage.entry(definition.usage.clone()).or_insert(uuid);
            }
            entry.definition = Some(definition);
        }
    }

    fn release_usage(&mut self, uuid: Uuid, entry: &Entry) {
        if let Some(definition) = &entry.definition
            && self.by_usage.get(&definition.usage) == Some(&uuid)
        {
            self.by_usage.remove(&definition.usage);
        }
    }
}
