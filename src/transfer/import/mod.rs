//! Import: the secrets of a libvirt directory into a keystore, and the originals out of the way if that is wished.
//!
//! First everything is read and the key is judged, and nothing is changed; then secret by secret: put in as one
//! change, read back and compared, and only then is its original removed. Whatever moment it is ended at, it can be
//! run again: what is there already is found to be the same. Leans on `libvirt` for the directory, on [`Inventory`]
//! for the keystore. Refuses to begin with a key that doesn't fit, to change what the keystore has, and to take away
//! what isn't proved to be in it.

mod remove;
mod report;
mod settle;
mod survey;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ::uuid::Uuid;

use super::libvirt::{Directory, LibvirtKey, Listing};
use crate::administration::Inventory;
use crate::memory;
use crate::secret::Error;

pub use report::{Imported, KeyTrial, Originals, Outcome, Summary};
use settle::{Settled, Settler};
use survey::{Original, Survey};

/// How to import.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImportOptions {
    /// Only say what would happen.
    pub dry_run: bool,
    /// Overwrite and remove each original once its secret is proved to be in the keystore.
    pub remove_originals: bool,
    /// Where there are encrypted values and no key is given, import the others all the same.
    pub without_encrypted: bool,
    /// The keystore keeps no `.xml` copies. Matters when it lies in this very directory: a `<uuid>.xml` there is libvirt's
    /// then, even of a secret that the keystore has.
    pub without_copies: bool,
    /// The key is the right one, whatever chance might have done: remove also those originals that nothing but their
    /// padding vouches for.
    pub trust_key: bool,
    /// The id of the keystore that is imported into. A directory with a keystore in it is refused if it isn't this one.
    pub store: Option<Uuid>,
}

/// Imports the directory `from`, and tells of each secret, and of each file that belongs to none, by `report`.
///
/// Nothing else may change the directory meanwhile: stop libvirt's secret driver first. An error ends it; what was reported
/// before it stands, and running it again goes on from there.
pub fn import(
    from: &Path,
    key: Option<&LibvirtKey>,
    into: &dyn Inventory,
    options: &ImportOptions,
    report: &mut dyn FnMut(&Imported),
) -> Result<Summary, Error> {
    into.list(None, 1)?; // a locked keystore says so before a single file is read
    let directory = Directory::open(from)?;
    let listing = directory.list()?;
    survey::check_keystore(&directory, &listing, options)?;
    let Survey { originals, strays, taken_out } = survey::look(&listing, into, options)?;
    let mut summary = Summary { dry_run: options.dry_run, ..Summary::default() };
    summary.loose_directory = directory.looseness()?;
    summary.key = survey::judge_key(&directory, &originals, key, options)?;

    let mut tell = |row: &Imported, summary: &mut Summary| {
        summary.count(row);
        report(row);
    };
    let removing = options.remove_originals && !options.dry_run;
    let mut refusals = 0;
    let settler = Settler::new(&directory, key, into, options, summary.key)?;
    let taken_out = remove::without_definition(&settler, &taken_out, options)?;
    for stray in leftovers(&listing).into_iter().chain(strays).chain(taken_out) {
        tell(&stray, &mut summary);
    }
    for batch in originals.chunks(BATCH) {
        let mut settled = settle_all(&settler, batch)?;
        if removing {
            remove::remove(&settler, &listing, options, &mut settled)?;
        }
        settled.iter().for_each(|settled| tell(&settled.row, &mut summary));
        if let Some(error) = nothing_works(settled, &mut refusals) {
            return Err(error);
        }
    }
    summary.plain_left = directory.count_plain()?;
    Ok(summary)
}

/// Settles each of a batch, several at a time: their changes share a sync.
fn settle_all(settler: &Settler<'_>, batch: &[Original]) -> Result<Vec<Settled>, Error> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<Settled, Error>)>> = Mutex::default();
    let work = || {
        while let Some((index, original)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            batch.get(index).map(|original| (index, original))
        } {
            let settled = settler.settle(original);
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, settled));
        }
    };
    thread::scope(|scope| {
        for _ in 1..settler.at_once().min(batch.len()) {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, settled)| settled).collect()
}

/// The error to end with, when the keystore has refused many in a row: it is the keystore then, and not the secrets.
fn nothing_works(settled: Vec<Settled>, refusals: &mut usize) -> Option<Error> {
    let mut last = None;
    for one in settled.into_iter().filter(|one| one.reached_keystore) {
        *refusals = if one.refused.is_some() { *refusals + 1 } else { 0 };
        last = one.refused;
    }
    last.filter(|_| *refusals >= MANY_REFUSALS)
}

/// What isn't libvirt's, or is unfinished.
fn leftovers(listing: &Listing) -> Vec<Imported> {
    let misnamed = listing.misnamed.iter().map(|name| Imported::stray(name, report::MISNAMED));
    let unfinished = listing.unfinished.iter().map(|name| {
        let hint = if name.contains(".base64") { report::UNFINISHED_VALUE } else { report::UNFINISHED };
        Imported::stray(name, hint)
    });
    misnamed.chain(unfinished).collect()
}

/// Secrets whose originals are removed together. Their values don't stay in memory meanwhile.
const BATCH: usize = 64;

/// So many secrets that can't be taken, one after the other, are no coincidence.
const MANY_REFUSALS: usize = 8;

/// How many secrets are worked on at once: at most four, and fewer where there is little secret memory.
fn at_once(dry_run: bool) -> usize {
    let (_, size) = memory::usage();
    if dry_run { 1 } else { (size / MEMORY_EACH).clamp(1, 4) }
}

/// What one secret of the largest size takes on its way, generously, in bytes.
const MEMORY_EACH: usize = 768 << 10;
