//! Removing originals, for a batch of secrets at a time.
//!
//! Values first, definitions behind them: what is left when this is cut short is a definition that the keystore has just
//! so. A value file first gets a name that is nobody's value, then its bytes are overwritten, then it is removed; each of
//! these is on the disk before the next begins. Leans on `libvirt`. Refuses to touch the original of a secret that isn't
//! proved to be in the keystore, and our own `.xml` copies, which bear the names of libvirt's definitions.

use super::settle::{Settled, Settler};
use super::{ImportOptions, Listing, Originals};
use crate::secret::{Definition, Error};
use crate::transfer::libvirt::{Unfit, ValueFile, definition_name};

pub(super) fn remove(
    settler: &Settler<'_>,
    listing: &Listing,
    options: &ImportOptions,
    settled: &mut [Settled],
) -> Result<(), Error> {
    let directory = settler.directory;
    let mut on_their_way_out = Vec::new();
    for (index, one) in settled.iter_mut().enumerate() {
        let Some(definition) = &one.proved else { continue };
        one.row.originals = Originals::Removed;
        for name in values(settler, one.original.uuid, one.original.both, one.original.value, definition) {
            match name.and_then(|name| directory.take_out(&name).map_err(|unfit| (name, unfit))) {
                Ok(name) => on_their_way_out.push((index, name)),
                Err((name, unfit)) => leave(one, &name, &unfit),
            }
        }
    }
    if !on_their_way_out.is_empty() {
        directory.sync()?;
    }
    for (index, name) in on_their_way_out {
        if let (Err(unfit), Some(one)) = (directory.destroy(&name), settled.get_mut(index)) {
            leave(one, &name, &unfit);
        }
    }
    let mut changed = false;
    for one in settled.iter_mut().filter(|one| one.row.originals == Originals::Removed) {
        changed = true;
        for aside in definitions(settler, listing, options, one) {
            let name = definition_name(one.original.uuid, aside);
            if let Err(error) = directory.remove(&name) {
                leave(one, &name, &Unfit::Io(error));
            }
        }
    }
    if changed { directory.sync() } else { Ok(()) }
}

/// The value files, the one that libvirt passes over first: while the other is there, it does go on to pass it over. Its
/// value goes only if it is the same.
fn values(
    settler: &Settler<'_>,
    uuid: ::uuid::Uuid,
    both: bool,
    value: Option<ValueFile>,
    definition: &Definition,
) -> Vec<Result<String, (String, Unfit)>> {
    let mut names = Vec::new();
    if both {
        let name = ValueFile::Encrypted.name(uuid);
        let same = settler.value(ValueFile::Encrypted, &name).and_then(|(value, _)| {
            let holds = settler.into.holds(definition, value.as_ref());
            holds.map_err(|error| Unfit::Io(std::io::Error::other(error.to_string())))
        });
        names.push(match same {
            Ok(true) => Ok(name),
            Ok(false) => Err((name, Unfit::Io(std::io::Error::other("it holds another value")))),
            Err(unfit) => Err((name, unfit)),
        });
    }
    names.extend(value.map(|file| Ok(file.name(uuid))));
    names
}

/// The numbers of the definitions that go: libvirt's own, if it isn't our copy, and those set aside that say the same.
fn definitions(settler: &Settler<'_>, listing: &Listing, options: &ImportOptions, one: &Settled) -> Vec<u32> {
    let Some(definition) = &one.proved else { return Vec::new() };
    let uuid = one.original.uuid;
    let directory = settler.directory;
    let is_same =
        |number: &u32| directory.definition(uuid, *number).is_ok_and(|(found, _)| found == *definition);
    // Our own store may have set one aside only just now, under the first name that was free.
    let new = (1..).find(|number| !directory.has(&definition_name(uuid, *number)));
    let new = new.and_then(|free| free.checked_sub(1)).filter(|new| !one.original.aside.contains(new));
    let aside = one.original.aside.iter().copied().chain(new.filter(|new| *new > 0));
    let may_be_copy = listing.has_keystore && !options.without_copies;
    let named = (one.original.definition == 0 && !may_be_copy).then_some(0);
    aside.filter(is_same).chain(named).collect()
}

fn leave(one: &mut Settled, name: &str, unfit: &Unfit) {
    one.row.originals = Originals::Left;
    one.row.add_hint(format!("{name} was not removed: {unfit}"));
}
