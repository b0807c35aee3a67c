//! What there is to import, and whether the key is the right one: all that is known before anything is changed.
//!
//! Leans on `libvirt` and on the keystore's list of UUIDs. Refuses a key that fails on half of the values or more, and to
//! pass over encrypted values without being told to.

use std::collections::HashSet;

use ::uuid::Uuid;

use super::{ImportOptions, Imported, KeyTrial, report};
use crate::administration::Inventory;
use crate::secret::Error;
use crate::transfer::libvirt::{Directory, Form, LibvirtKey, Listing, Unfit, ValueFile};

/// All that there is.
pub(super) struct Survey {
    pub(super) originals: Vec<Original>,
    /// Value files without a definition.
    pub(super) strays: Vec<Imported>,
}

/// One secret of libvirt's.
#[derive(Debug, Clone)]
pub(super) struct Original {
    pub(super) uuid: Uuid,
    /// Where its definition is: in `<uuid>.xml` (0), or in the file of this number that was set aside.
    pub(super) definition: u32,
    /// The value that libvirt serves.
    pub(super) value: Option<ValueFile>,
    /// There is an encrypted value besides, which libvirt passes over.
    pub(super) both: bool,
    /// The definitions that were set aside.
    pub(super) aside: Vec<u32>,
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
    let (mut originals, mut strays) = (Vec::new(), Vec::new());
    for found in &listing.secrets {
        let uuid = found.uuid;
        let last_aside = found.aside.iter().copied().max().unwrap_or(0);
        let is_copy = copied.contains(&uuid);
        let definition = match (found.definition, last_aside) {
            (true, 0) if is_copy && found.value().is_none() => continue,
            (true, 0) => 0,
            // libvirt has defined it again, after it was imported and undefined.
            (true, _) if !is_copy => 0,
            (_, 1..) => last_aside,
            (false, 0) => {
                let values = [(found.plain, ValueFile::Plain), (found.encrypted, ValueFile::Encrypted)];
                let names = values.into_iter().filter(|(there, _)| *there).map(|(_, file)| file.name(uuid));
                strays.extend(names.map(|name| Imported::stray(&name, report::NO_DEFINITION)));
                continue;
            }
        };
        let both = found.plain && found.encrypted;
        let aside = found.aside.clone();
        originals.push(Original { uuid, definition, value: found.value(), both, aside });
    }
    Ok(Survey { originals, strays })
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

/// Tries the key on every encrypted value that shall be imported.
pub(super) fn judge_key(
    directory: &Directory,
    originals: &[Original],
    key: Option<&LibvirtKey>,
    options: &ImportOptions,
) -> Result<Option<KeyTrial>, Error> {
    let encrypted = || originals.iter().filter(|original| original.value == Some(ValueFile::Encrypted));
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
    for original in encrypted() {
        let name = ValueFile::Encrypted.name(original.uuid);
        let opened = match directory.value(&name, Form::Encrypted(key)) {
            Ok((Some(_), _)) | Err(Unfit::Nothing) => true,
            Err(Unfit::DoesNotOpen) => false,
            Err(Unfit::Memory(exhausted)) => return Err(exhausted.into()),
            // Empty, unreadable, cut: nothing can be learned from it.
            Ok((None, _)) | Err(_) => continue,
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
