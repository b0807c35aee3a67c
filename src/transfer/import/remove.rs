//! Removing originals, for a batch of secrets at a time.
//!
//! Values first, definitions behind them: what is left when this is cut short is a definition that the keystore has
//! just so. A value file first gets a name that is none of libvirt's, then its bytes are overwritten, then it is
//! removed; each of these is on the disk before the next begins. Leans on `libvirt`. Refuses to touch the original of
//! a secret that isn't proved to be in the keystore; to take away one of two values while the other must stay, which
//! libvirt would then serve; and our own `.xml` copies, which bear the names of libvirt's definitions.

use ::uuid::Uuid;

use super::settle::{Settled, Settler};
use super::{ImportOptions, Imported, Listing, Originals, report};
use crate::secret::{Definition, Error};
use crate::transfer::libvirt::{Unfit, ValueFile, definition_name};

pub(super) fn remove(
    settler: &Settler<'_>,
    listing: &Listing,
    options: &ImportOptions,
    settled: &mut [Settled],
) -> Result<(), Error> {
    let mut changed = false;
    for one in settled.iter_mut() {
        let Some(definition) = &one.proved else { continue };
        one.row.originals = Originals::Removed;
        changed = true;
        let stays = match one.keep.take() {
            Some(why) => Some(why),
            None => stays(settler, definition, &one.original.values, one.original.uuid),
        };
        if let Some(why) = stays {
            one.row.originals = Originals::Left;
            one.row.add_hint(why);
        }
    }
    // What an earlier run took out goes before its name is needed again.
    remove_values(settler, settled, ValueFile::is_taken_out)?;
    remove_values(settler, settled, |file| !file.is_taken_out())?;
    for one in settled.iter_mut().filter(|one| one.row.originals == Originals::Removed) {
        for aside in definitions(settler, listing, options, one) {
            let name = definition_name(one.original.uuid, aside);
            if let Err(error) = settler.directory.remove(&name) {
                leave(one, &name, &Unfit::Io(error));
            }
        }
    }
    if changed { settler.directory.sync() } else { Ok(()) }
}

/// Values of earlier imports without a definition. They go, if the keystore has them.
pub(super) fn without_definition(
    settler: &Settler<'_>,
    files: &[(Uuid, ValueFile)],
    options: &ImportOptions,
) -> Result<Vec<Imported>, Error> {
    let row = |(uuid, file): &(Uuid, ValueFile)| Imported::stray(&file.name(*uuid), report::TAKEN_OUT);
    if files.is_empty() || options.dry_run || !options.remove_originals {
        return Ok(files.iter().map(row).collect());
    }
    settler.directory.sync()?; // their names, before their bytes go
    let mut rows = Vec::new();
    for (uuid, file) in files {
        let name = file.name(*uuid);
        let gone = match settler.into.read(*uuid)? {
            Some((definition, Some(_))) => {
                may_go(settler, &definition, *file).and_then(|()| settler.directory.destroy(&name))
            }
            _ => Err(Unfit::Stays("the keystore doesn't have it".into())),
        };
        if let Err(why) = gone {
            let mut row = Imported::stray(&name, &format!("{} {why}", report::TAKEN_OUT_AND_LEFT));
            row.originals = Originals::Left;
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Why one of a secret's value files has to stay, and then all of them.
fn stays(settler: &Settler<'_>, definition: &Definition, values: &[ValueFile], uuid: Uuid) -> Option<String> {
    // The first one was put in, and compared.
    let others = values.iter().skip(1);
    others.copied().find_map(|file| {
        let unfit = may_go(settler, definition, file).err()?;
        Some(format!("{} {unfit}; nothing of this secret was removed", file.name(uuid)))
    })
}

/// Whether the keystore has what is in a value file; or has a value, where nothing is in the file any more.
fn may_go(settler: &Settler<'_>, definition: &Definition, file: ValueFile) -> Result<(), Unfit> {
    let failed = |error: Error| Unfit::Stays(error.to_string());
    let holds = match settler.value(definition.uuid, file) {
        Ok(held) => settler.into.holds(definition, held.value.as_ref()).map_err(failed)?,
        Err(Unfit::Overwritten) => {
            matches!(settler.into.read(definition.uuid).map_err(failed)?, Some((_, Some(_))))
        }
        Err(unfit) => return Err(unfit),
    };
    if holds { Ok(()) } else { Err(Unfit::OtherValue) }
}

/// Removes those value files that are to go, and of each secret no more when one could not be.
fn remove_values(
    settler: &Settler<'_>,
    settled: &mut [Settled],
    these: fn(ValueFile) -> bool,
) -> Result<(), Error> {
    let directory = settler.directory;
    let mut taken_out = Vec::new();
    for (index, one) in settled.iter_mut().enumerate() {
        // The one that libvirt serves goes last: while it is there, the others are passed over.
        for file in one.original.values.clone().into_iter().rev().filter(|file| these(*file)) {
            if one.row.originals != Originals::Removed {
                break;
            }
            let name = file.name(one.original.uuid);
            match directory.take_out(&name) {
                Ok(name) => taken_out.push((index, name)),
                Err(unfit) => leave(one, &name, &unfit),
            }
        }
    }
    if !taken_out.is_empty() {
        directory.sync()?;
    }
    for (index, name) in taken_out {
        if let Some(one) = settled.get_mut(index).filter(|one| one.row.originals == Originals::Removed)
            && let Err(unfit) = directory.destroy(&name)
        {
            leave(one, &name, &unfit);
        }
    }
    Ok(())
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
