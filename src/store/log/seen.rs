//! What a log's clear heads say, without its keys: enough to tell whether a backup is older.
//!
//! Leans on `seal`'s reading of heads. Proves nothing: whoever asks must be on the safe side with any answer.

use std::collections::HashSet;
use std::io;

use ::uuid::Uuid;

use super::super::disk::File;
use super::recover::Reader;
use crate::seal::{GRAIN, HEAD_LEN, Head, Kind, StoreId};

/// What was seen in a log.
#[derive(Debug, Default)]
pub(in crate::store) struct Seen {
    /// The store of its first frame.
    pub(in crate::store) store: Option<StoreId>,
    /// The highest generation.
    pub(in crate::store) generation: u64,
    /// The secrets that it has, or had, records of.
    pub(in crate::store) secrets: HashSet<Uuid>,
    /// The generations of its commits of nothing: what opening and closing leave, and no change.
    empty: Vec<u64>,
}

impl Seen {
    /// Reads all heads of frames of one store: the one that the first is of, or `store`.
    pub(in crate::store) fn of(file: &dyn File, store: Option<StoreId>) -> io::Result<Self> {
        let mut reader = Reader::new(file)?;
        let mut seen = Self { store, ..Self::default() };
        let mut at = 0;
        while let Some(bytes) = reader.bytes(at, HEAD_LEN)? {
            let head = bytes.first_chunk().and_then(|bytes| Head::decode(bytes).ok());
            let Some(head) = head.filter(|head| seen.store.is_none_or(|store| store == head.store)) else {
                at += GRAIN as u64;
                continue;
            };
            seen.store = Some(head.store);
            at += head.frame_len() as u64;
            // Beyond any number that was ever given: a bit that rotted.
            if head.generation > u64::MAX / 2 {
                continue;
            }
            seen.generation = seen.generation.max(head.generation);
            match head.kind {
                Kind::Commit { count: 0, .. } => seen.empty.push(head.generation),
                Kind::Commit { .. } => {}
                Kind::Put { .. } | Kind::Delete => _ = seen.secrets.insert(head.uuid),
            }
        }
        Ok(seen)
    }

    /// Whether anything was changed after `generation`: every number given since, up to `last` if that is higher than what
    /// the log has, is a commit of nothing's.
    pub(in crate::store) fn has_changed_since(&self, generation: u64, last: u64) -> bool {
        let of_nothing = self.empty.iter().filter(|empty| **empty > generation).count() as u64;
        self.generation.max(last).saturating_sub(generation) > of_nothing
    }
}
