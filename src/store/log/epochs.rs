//! The epochs that a log is sealed in, as its heads say: what a keyring must have the keys of.
//!
//! Leans on `recover`'s reader. Refuses to stop at a damaged place, and to take a byte that changed for an epoch: one
//! that has but a single head, and nothing else that speaks for it, counts for nothing.

use std::collections::{BTreeMap, HashMap};
use std::io;

use ::uuid::Uuid;

use super::super::disk::File;
use super::recover::{Reader, proves};
use crate::memory::scrubbed;
use crate::seal::{GRAIN, HEAD_LEN, Head, Keyring, Kind};

/// What a log has of an epoch.
#[derive(Default)]
struct Sealed {
    /// Heads that aren't wiped.
    heads: usize,
    /// Whether one of them proves itself: the keyring's key is the right one then.
    proved: bool,
    /// The highest serial of a keyring that a commit states.
    serial: u64,
    /// The secrets whose latest record is in it.
    records: usize,
}

/// The epochs of a log of this store that nothing in a keyring opens, each with the number of the secrets whose latest
/// record is in it, the newest epoch last. The keyring doesn't have the key, or has another one of the same number.
pub(in crate::store) fn lacking(file: &dyn File, keyring: &Keyring) -> io::Result<Vec<(u32, usize)>> {
    let sealed = scrubbed(|| read(file, keyring))?;
    let lacks = |sealed: &Sealed| {
        // A changed byte may make a single head one of another epoch. A rotation leaves more: its first commit states the
        // serial of the keyring that it began with.
        !sealed.proved && (sealed.heads > 1 || sealed.serial > keyring.serial())
    };
    let lacking = sealed.into_iter().filter(|(_, sealed)| lacks(sealed));
    Ok(lacking.map(|(epoch, sealed)| (epoch, sealed.records)).collect())
}

fn read(file: &dyn File, keyring: &Keyring) -> io::Result<BTreeMap<u32, Sealed>> {
    let (mut reader, len) = (Reader::new(file)?, file.size()?);
    let mut latest: HashMap<Uuid, (u64, Option<u32>)> = HashMap::new();
    let mut epochs: BTreeMap<u32, Sealed> = BTreeMap::new();
    let mut at = 0;
    while let Some(bytes) = reader.bytes(at, HEAD_LEN)? {
        let head = bytes.first_chunk().and_then(|bytes| Head::decode(bytes).ok());
        let fits = |head: &Head| head.store == keyring.store() && at + head.frame_len() as u64 <= len;
        let Some(head) = head.filter(fits) else {
            at += GRAIN as u64;
            continue;
        };
        at += head.frame_len() as u64;
        let epoch = epochs.entry(head.epoch).or_default();
        epoch.heads += usize::from(!head.is_wiped());
        epoch.proved = epoch.proved || proves(keyring, &head);
        if let Kind::Commit { keyring, .. } = head.kind {
            epoch.serial = epoch.serial.max(keyring);
            continue;
        }
        if latest.get(&head.uuid).is_none_or(|(before, _)| head.generation > *before) {
            let living = matches!(head.kind, Kind::Put { .. }).then_some(head.epoch);
            latest.insert(head.uuid, (head.generation, living));
        }
    }
    for epoch in latest.into_values().filter_map(|(_, living)| living) {
        epochs.entry(epoch).or_default().records += 1;
    }
    Ok(epochs)
}
