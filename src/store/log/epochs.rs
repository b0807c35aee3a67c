//! The epochs that a log is sealed in, as its heads say: what a keyring must have keys for.
//!
//! Leans on `recover`'s reader. Proves nothing, for the keys may be what is missing; refuses to stop at a damaged place.

use std::collections::{BTreeMap, HashMap};
use std::io;

use ::uuid::Uuid;

use super::super::disk::File;
use super::recover::Reader;
use crate::seal::{GRAIN, HEAD_LEN, Head, Kind, StoreId};

/// Each epoch that a frame or a commit of this store is in, and how many secrets have their latest record in it.
pub(in crate::store) fn epochs(file: &dyn File, store: StoreId) -> io::Result<BTreeMap<u32, usize>> {
    let (mut reader, len) = (Reader::new(file)?, file.size()?);
    let mut latest: HashMap<Uuid, (u64, Option<u32>)> = HashMap::new();
    let mut epochs = BTreeMap::new();
    let mut at = 0;
    while let Some(bytes) = reader.bytes(at, HEAD_LEN)? {
        let head = bytes.first_chunk().and_then(|bytes| Head::decode(bytes).ok());
        let fits = |head: &Head| head.store == store && at + head.frame_len() as u64 <= len;
        let Some(head) = head.filter(fits) else {
            at += GRAIN as u64;
            continue;
        };
        at += head.frame_len() as u64;
        epochs.entry(head.epoch).or_default();
        let is_newer = |(before, _): &(u64, _)| head.generation > *before;
        if !matches!(head.kind, Kind::Commit { .. }) && latest.get(&head.uuid).is_none_or(is_newer) {
            let living = matches!(head.kind, Kind::Put { .. }).then_some(head.epoch);
            latest.insert(head.uuid, (head.generation, living));
        }
    }
    let living = latest.into_values().filter_map(|(_, living)| living);
    living.for_each(|epoch| *epochs.entry(epoch).or_default() += 1);
    Ok(epochs)
}
