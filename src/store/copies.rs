//! The `.xml` copies: each persistent secret's definition as libvirt would have written it, for scripts that look there.
//!
//! Derived from the log and never trusted while it is open. When a store is opened, missing copies are written anew,
//! and wrong ones too if it was not closed in order; a copy that somebody changed in between is named by `verify`.
//! Leans on `disk` and on `secret`'s XML. Refuses to touch a file that isn't a copy of a secret in the store: where
//! libvirt's own driver was before, its files lie in the same directory under the same names, and may be all there is
//! of a secret. One that is in a copy's way is set aside, never replaced.

use std::collections::HashSet;
use std::io;
use std::sync::PoisonError;

use ::uuid::Uuid;

use super::disk::{Directory, create_anew, read_whole};
use super::index::Index;
use super::{Store, StoreError};
use crate::secret::Definition;

const SYNCED_SINGLY: usize = 32;

const SUFFIX: &str = ".xml";

/// No copy is longer than libvirt reads (10 MiB); descriptions and usage ids are bounded far below.
pub(super) const MAX_COPY: usize = 10 << 20;

/// The name of a secret's copy.
pub(super) fn name(uuid: Uuid) -> String {
    format!("{uuid}{SUFFIX}")
}

/// The secret whose copy has this name.
pub(super) fn uuid_of(name: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(name.strip_suffix(SUFFIX)?).ok()?;
    (self::name(uuid) == name).then_some(uuid)
}

/// Writes a copy in the place of the one before. Not synced.
pub(super) fn write(etc: &dyn Directory, definition: &Definition) -> io::Result<()> {
    let name = name(definition.uuid);
    let beside = format!("{name}.new");
    let file = create_anew(etc, &beside)?;
    let written = file.write_at(definition.to_xml().as_bytes(), 0).and_then(|()| etc.rename(&beside, &name));
    if written.is_err() {
        _ = etc.remove(&beside); // what is left of it would only be in the way
    }
    written
}

/// Removes a copy, if there is one.
pub(super) fn remove(etc: &dyn Directory, uuid: Uuid) -> io::Result<()> {
    match etc.remove(&name(uuid)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Makes the copies of these secrets durable, and the directory's entries: one by one, or where there are many all at once
/// with everything else on the file system.
pub(super) fn sync(etc: &dyn Directory, uuids: impl ExactSizeIterator<Item = Uuid>) -> io::Result<()> {
    if uuids.len() > SYNCED_SINGLY {
        return etc.sync_all();
    }
    for uuid in uuids {
        match etc.open(&name(uuid)) {
            Ok(file) => file.sync()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    etc.sync()
}

/// How the copies differ from the store.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) missing: Vec<Uuid>,
    /// Filled only when contents were compared.
    pub(super) wrong: Vec<Uuid>,
    /// Copies of secrets that the store doesn't have.
    pub(super) orphans: Vec<Uuid>,
}

/// The names in `etc`: the secrets that have a copy, in order, and all else.
pub(super) fn names(etc: &dyn Directory) -> io::Result<(Vec<Uuid>, Vec<String>)> {
    let (mut copies, mut others) = (Vec::new(), Vec::new());
    etc.names(&mut |name| match uuid_of(name) {
        Some(uuid) => copies.push(uuid),
        None => others.push(name.to_owned()),
    })?;
    copies.sort_unstable();
    others.sort_unstable();
    Ok((copies, others))
}

/// Compares the copies that are there (in order) with the index, and their contents too if asked.
pub(super) fn difference(etc: &dyn Directory, there: Vec<Uuid>, index: &Index, contents: bool) -> Difference {
    let mut difference = Difference::default();
    for (uuid, entry) in index.entries() {
        let Some(definition) = &entry.definition else { continue };
        if there.binary_search(&uuid).is_err() {
            difference.missing.push(uuid);
        } else if contents {
            let found = etc.open(&name(uuid)).and_then(|file| read_whole(&*file, MAX_COPY));
            if found.is_ok_and(|found| found == definition.to_xml().as_bytes()) {
                continue;
            }
            difference.wrong.push(uuid);
        }
    }
    difference.orphans.extend(there.into_iter().filter(|uuid| index.entry(*uuid).is_none()));
    difference
}

/// What else in `etc` libvirt's own driver has left, or was moved out of a copy's way.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    /// Secrets with a value file of libvirt's.
    values: HashSet<Uuid>,
    /// Secrets whose libvirt definition was set aside.
    aside: HashSet<Uuid>,
}

impl Foreign {
    /// Told by their names.
    pub(super) fn among(others: &[String]) -> Self {
        let mut foreign = Self::default();
        for name in others {
            let Some((uuid, rest)) = name.split_once('.') else { continue };
            let Ok(uuid) = Uuid::try_parse(uuid) else { continue };
            if is_value(name) {
                foreign.values.insert(uuid);
            } else if rest.starts_with(&ASIDE[1..]) {
                foreign.aside.insert(uuid);
            }
        }
        foreign
    }

    /// Whether the `<uuid>.xml` that lies there is libvirt's, by what lies beside it: we write no value files.
    pub(super) fn has_definition(&self, uuid: Uuid) -> bool {
        self.values.contains(&uuid) && !self.aside.contains(&uuid)
    }
}

/// Whether this is the name of a value file of libvirt's.
pub(super) fn is_value(name: &str) -> bool {
    let uuid = VALUES.iter().find_map(|suffix| name.strip_suffix(suffix));
    uuid.is_some_and(|uuid| Uuid::try_parse(uuid).is_ok())
}

/// Gives a definition of libvirt's another name, so that ours can have this one. Durable when this returns.
pub(super) fn set_aside(etc: &dyn Directory, uuid: Uuid) -> io::Result<()> {
    let mut aside = format!("{uuid}{ASIDE}");
    for next in 2.. {
        match etc.open(&aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
            Ok(_) => aside = format!("{uuid}{ASIDE}-{next}"),
        }
    }
    match etc.rename(&name(uuid), &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    tracing::warn!(%uuid, kept_as = %aside, "libvirt's definition of a secret that is defined here now is set aside");
    etc.sync()
}

/// The ends of libvirt's value files.
const VALUES: [&str; 2] = [".base64", ".aes256cbc"];

/// The end of a libvirt definition's other name.
const ASIDE: &str = ".xml.libvirt";

/// The definitions that the copies in `etc` state, for a store that is locked: nothing of them is proved. Those that are
/// libvirt's by what lies beside them are no copies.
pub fn read_all(etc: &dyn Directory) -> io::Result<Vec<Definition>> {
    let mut definitions = Vec::new();
    let (copies, others) = names(etc)?;
    let foreign = Foreign::among(&others);
    for uuid in copies.into_iter().filter(|uuid| !foreign.has_definition(*uuid)) {
        let bytes = etc.open(&name(uuid)).and_then(|file| read_whole(&*file, MAX_COPY));
        let definition = bytes.ok().and_then(|bytes| Definition::from_xml(&bytes, false).ok());
        definitions.extend(definition.filter(|definition| definition.uuid == uuid));
    }
    Ok(definitions)
}

impl Store {
    /// Writes the copies that are missing, while nobody writes, and looks for files that are none. Gives how many it
    /// wrote.
    pub fn mend_copies(&self) -> Result<usize, StoreError> {
        let keyring = self.keyring();
        if !keyring.copies() {
            return Ok(0);
        }
        self.exclusively(|store, _| {
            let etc = &*store.disk.etc;
            let (there, _) = names(etc).map_err(StoreError::io("list etc/secrets"))?;
            let contents = store.contents();
            let difference = difference(etc, there, &contents.index, false);
            let mut foreign = store.foreign.lock().unwrap_or_else(PoisonError::into_inner);
            foreign.extend(difference.orphans);
            let missing = difference.missing.iter().filter_map(|uuid| contents.index.entry(*uuid));
            let mut missing = missing.filter_map(|entry| entry.definition.as_ref());
            let written = missing.try_for_each(|definition| write(etc, definition));
            drop(foreign);
            let mut writer = store.writer();
            writer.copies_failed |= written.is_err();
            writer.unsynced_copies.extend(&difference.missing);
            written.map_err(StoreError::io("write the .xml copies"))?;
            Ok(difference.missing.len())
        })
    }
}
