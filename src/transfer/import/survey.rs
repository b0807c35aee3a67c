//! What there is to import, and whether the key is the right one: all that is known before anything is changed.
//!
//! Leans on `libvirt` and on the keystore's list of UUIDs. Refuses a key that fails on half of the values or more, and to
//! pass over encrypted values without being told to.

use std::collections::HashSet;

use ::uuid::Uuid;

use super::{ImportOptions, Imported, KeyTrial, report};
use crate::administration::Inventory;
use crate::secret::Error;
use crate::transfer::libvirt::{Directory, Form, Held, LibvirtKey, Listing, Unfit, ValueFile};

/// All that there is.
pub(super) struct Survey {
    pub(super) originals: Vec<Original>,
    /// Value files without a definition.
    pub(super) strays: Vec<Imported>,
    /// Those among them that an earlier import took out, to destroy them.
    pub(super) taken_out: Vec<(Uuid, ValueFile)>,
}

/// One secret of libvirt's.
#[derive(Debug, Clone)]
pub(super) struct Original {
    pub(super) uuid: Uuid,
    /// Where its definition is: in `<uuid>.xml` (0), or in the file of this number that was set aside.
    pub(super) definition: u32,
    /// The value files. The first one is taken: libvirt serves it, or did before an import took it out.
    pub(super) values: Vec<ValueFile>,
    /// The definitions that were set aside.
    pub(super) aside: Vec<u32>,
}

impl Original {
    pub(super) fn value(&self) -> Option<ValueFile> {
        self.values.first().copied()
    }

    /// There is an encrypted value besides the one that libvirt serves.
    pub(super) fn both(&self) -> bool {
        self.values.starts_with(&[ValueFile::Plain, ValueFile::Encrypted])
    }
}

/// Finds what is libvirt's.
pub(super) fn look(
    listing: &Listing,
    into: &dyn Inventory,
    options: &ImportOptions,
) -> Result<Survey, Error> {
    // In a keystore's own directory, the `.xml` of what it has is its copy.
    let copied = match listing.has_keystore && !options.without_copies {
        true => all(into)?,
        false => HashSet::new(),
    };
    let (mut originals, mut strays, mut taken_out) = (Vec::new(), Vec::new(), Vec::new());
    for found in &listing.secrets {
        let uuid = found.uuid;
        let last_aside = found.aside.iter().copied().max().unwrap_or(0);
        let is_copy = copied.contains(&uuid);
        let definition = match (found.definition, last_aside) {
            (true, 0) if is_copy && found.values.is_empty() => continue,
            (true, 0) => 0,
            // libvirt has defined it again, after it was imported and undefined.
            (true, _) if !is_copy => 0,
            (_, 1..) => last_aside,
            (false, 0) => {
                for file in &found.values {
                    match file.is_taken_out() {
                        true => taken_out.push((uuid, *file)),
                        false => strays.push(Imported::stray(&file.name(uuid), report::NO_DEFINITION)),
                    }
                }
                continue;
            }
        };
        let (values, aside) = (found.values.clone(), found.aside.clone());
        originals.push(Original { uuid, definition, values, aside });
    }
    Ok(Survey { originals, strays, taken_out })
}

/// The UUIDs of all persistent secrets.
fn all(into: &dyn Inventory) -> Result<HashSet<Uuid>, Error> {
    let mut all = HashSet::new();
    let mut after = None;
    loop {
        let page = into.list(after, PAGE)?;
        let Some(last) = page.last() else { return Ok(all) };
        after = Some(*last);
        all.extend(page);
    }
}

/// Refuses the directory of another keystore than the one that is imported into: the `.xml` in it are that one's copies, of
/// secrets whose values are in its log.
pub(super) fn check_keystore(
    directory: &Directory,
    listing: &Listing,
    options: &ImportOptions,
) -> Result<(), Error> {
    let is_ours = || directory.keystore().is_some_and(|found| Some(found) == options.store);
    if !listing.has_keystore || is_ours() {
        return Ok(());
    }
    let detail = format!(
        "another Strongroom keystore lies in '{}', not libvirt's secrets alone; nothing was imported",
        directory.path().display()
    );
    Err(Error::failed(detail).advise(
        "take its secrets along with: strongroom backup, and strongroom restore; or have them exported from it first, and import that directory",
    ))
}

/// Tries the key on every encrypted value that shall be imported.
pub(super) fn judge_key(
    directory: &Directory,
    originals: &[Original],
    key: Option<&LibvirtKey>,
    options: &ImportOptions,
) -> Result<Option<KeyTrial>, Error> {
    let encrypted = || {
        let values = originals.iter().filter_map(|original| Some((original.uuid, original.value()?)));
        values.filter(|(_, file)| file.is_encrypted())
    };
    let Some(key) = key else {
        let count = encrypted().count();
        if count == 0 || options.without_encrypted {
            return Ok(None);
        }
        let detail = format!(
            "the values of {count} of {} secrets in '{}' are encrypted, and no key was given; nothing was imported",
            originals.len(),
            directory.path().display()
        );
        return Err(Error::failed(detail).advise(
            "give libvirt's key: its 32 raw bytes in a file, or as the credential secrets-encryption-key",
        ));
    };
    let mut trial = KeyTrial { opened: 0, tried: 0 };
    for (uuid, file) in encrypted() {
        let opened = match directory.value(&file.name(uuid), Form::Encrypted(key)) {
            Ok(Held { value: Some(_), .. }) | Err(Unfit::Nothing) => true,
            Err(Unfit::DoesNotOpen) => false,
            Err(Unfit::Memory(exhausted)) => return Err(exhausted.into()),
            // Empty, unreadable, cut: nothing can be learned from it.
            Ok(Held { value: None, .. }) | Err(_) => continue,
        };
        trial.tried += 1;
        trial.opened += usize::from(opened);
    }
    if trial.failed() {
        return Err(trial.error());
    }
    Ok(Some(trial).filter(|trial| trial.tried > 0))
}

/// UUIDs asked for at once.
const PAGE: usize = 4096;
