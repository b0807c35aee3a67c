//! Export: a keystore's secrets into a directory that libvirt's secret driver reads.
//!
//! The value is in its place before the definition is, so that libvirt never loads a secret without its value; both
//! are on the disk before either is in its place. Running it again, in whichever form, goes on where it ended, and
//! first destroys what an earlier run had half written. Leans on `libvirt` for the files. Refuses a directory that
//! others can look into, one with secrets that the keystore doesn't have just so, and one with values in the other
//! form: libvirt would serve whichever it likes better.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use ::uuid::Uuid;
use secrecy::ExposeSecret;

use super::libvirt::{Directory, Form, Found, LibvirtKey, Unfit, ValueFile, definition_name, write_value};
use crate::administration::{Inventory, usage_in_words};
use crate::secret::{Definition, Error};

/// How values shall lie in their files.
#[derive(Debug)]
pub enum ExportForm {
    /// Encrypted for libvirt 12.1 and later, which then needs this key. Older versions load such secrets without their
    /// values.
    Encrypted(LibvirtKey),
    /// In base64: whoever reads the disk, or a copy of it, has the values. Every version of libvirt reads them.
    Plaintext,
}

/// One secret, and what came of it.
#[derive(Debug, Clone)]
pub struct ExportedSecret {
    /// Which secret.
    pub uuid: Uuid,
    /// What it is for, in words, if its record opens.
    pub usage: Option<String>,
    /// Whether it was written, or was there already just so; or why it isn't there.
    pub outcome: Result<Exported, Error>,
}

/// What came of exporting a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exported {
    /// It is in the directory now.
    Written,
    /// Exactly this was there.
    AlreadyThere,
}

/// Writes every persistent secret into `to`, which is made if it isn't there, and tells of each by `report`. A secret whose
/// record doesn't open is told of, and doesn't stop the others. Gives how many there are in the directory now.
pub fn export(
    from: &dyn Inventory,
    to: &Path,
    form: &ExportForm,
    report: &mut dyn FnMut(&ExportedSecret),
) -> Result<usize, Error> {
    from.list(None, 1)?; // a locked keystore says so before a directory is made
    make(to)?;
    let directory = Directory::open(to)?;
    if let Some(mode) = directory.looseness()? {
        let detail = format!("others than its owner can look into '{}' (mode {mode:04o})", to.display());
        return Err(
            Error::failed(detail).advise(format!("nothing was written; run: chmod 700 '{}'", to.display()))
        );
    }
    let (owner, us) = (directory.owner()?, rustix::process::geteuid().as_raw());
    if owner != us {
        let detail =
            format!("'{}' belongs to another user (uid {owner}), who can look into it", to.display());
        return Err(
            Error::failed(detail).advise("nothing was written; name a directory of your own, or a new one")
        );
    }
    let exporter = Exporter { from, directory, form, to };
    exporter.check()?;
    let (mut count, mut after) = (0, None);
    loop {
        let page = from.list(after, PAGE)?;
        let Some(last) = page.last() else { return Ok(count) };
        after = Some(*last);
        for row in exporter.write(&page)? {
            count += usize::from(row.outcome.is_ok());
            report(&row);
        }
    }
}

struct Exporter<'a> {
    from: &'a dyn Inventory,
    directory: Directory,
    form: &'a ExportForm,
    to: &'a Path,
}

impl Exporter<'_> {
    /// Refuses a directory in which anything would be in the way, before anything is written.
    fn check(&self) -> Result<(), Error> {
        let listing = self.directory.list()?;
        if listing.has_keystore {
            return Err(self.in_the_way("there is a keystore in it"));
        }
        let taken_out = listing.secrets.iter().find_map(|found| {
            let file = found.values.iter().find(|file| file.is_taken_out())?;
            Some(file.name(found.uuid))
        });
        if let Some(name) = listing.misnamed.first().cloned().or(taken_out) {
            return Err(self.in_the_way(&format!("there is a file '{name}' in it")));
        }
        for found in &listing.secrets {
            self.check_one(found)?;
        }
        // Half a value that an earlier run was writing when it was ended; it may have been in plain text.
        let ours = |name: &&String| name.get(UUID..).is_some_and(|end| UNFINISHED.contains(&end));
        for name in listing.unfinished.iter().filter(ours) {
            let destroyed = self.directory.destroy(name);
            destroyed.map_err(|unfit| self.in_the_way(&format!("there is '{name}' in it, which {unfit}")))?;
        }
        Ok(())
    }

    fn check_one(&self, found: &Found) -> Result<(), Error> {
        let uuid = found.uuid;
        let ours = self.value_file();
        if let Some(file) = found.values.iter().find(|file| **file != ours) {
            let name = file.name(uuid);
            return Err(self.in_the_way(&format!("there is '{name}' in it, a value in the other form")));
        }
        if !found.aside.is_empty() {
            return Err(self.in_the_way(&format!("there is a definition of {uuid} in it that was set aside")));
        }
        let Some((definition, value)) = self.from.read(uuid)? else {
            return Err(
                self.in_the_way(&format!("there is secret {uuid} in it, which the keystore doesn't have"))
            );
        };
        let is_other =
            |what: &str| self.in_the_way(&format!("there is another {what} of secret {uuid} in it"));
        if found.definition && !self.has_definition(&definition) {
            return Err(is_other("definition"));
        }
        if let Some(file) = found.values.first() {
            let held = self.directory.value(&file.name(uuid), self.form());
            let same = match (held.map(|held| held.value), value) {
                (Ok(Some(held)), Some(_)) => self.from.holds(&definition, Some(&held))?,
                _ => false,
            };
            if !same {
                return Err(is_other("value"));
            }
        }
        Ok(())
    }

    /// Writes a page of secrets: all files beside their places, one wait for the disk, then each into its place.
    fn write(&self, page: &[Uuid]) -> Result<Vec<ExportedSecret>, Error> {
        let mut rows = Vec::with_capacity(page.len());
        let (mut values, mut definitions) = (Vec::new(), Vec::new());
        for &uuid in page {
            let row = |usage, outcome| ExportedSecret { uuid, usage, outcome };
            let (definition, value) = match self.from.read(uuid) {
                Ok(Some(found)) => found,
                Ok(None) => continue, // undefined meanwhile
                Err(error) if self.from.list(None, 1).is_ok() => {
                    rows.push(row(None, Err(error)));
                    continue;
                }
                Err(error) => return Err(error),
            };
            // What is there passed the check: it is the same.
            let (value_name, name) = (self.value_file().name(uuid), definition_name(uuid, 0));
            let mut outcome = Exported::AlreadyThere;
            if let Some(value) = value.filter(|_| !self.directory.has(&value_name)) {
                let text = write_value(&value, self.form()).map_err(unwritten)?;
                self.wrote(self.directory.write_beside(&value_name, text.expose_secret()))?;
                values.push(value_name);
                outcome = Exported::Written;
            }
            if !self.directory.has(&name) {
                self.wrote(self.directory.write_beside(&name, definition.to_xml().as_bytes()))?;
                definitions.push(name);
                outcome = Exported::Written;
            }
            rows.push(row(Some(usage_in_words(&definition.usage)), Ok(outcome)));
        }
        if !values.is_empty() || !definitions.is_empty() {
            self.directory.sync_file_system()?;
        }
        for names in [values, definitions] {
            for name in &names {
                self.wrote(self.directory.put_in_place(name))?;
            }
            if !names.is_empty() {
                self.directory.sync()?;
            }
        }
        Ok(rows)
    }

    fn has_definition(&self, definition: &Definition) -> bool {
        // As libvirt would read it: a carriage return doesn't survive being written.
        let expected = Definition::from_xml(definition.to_xml().as_bytes(), false);
        let found = self.directory.definition(definition.uuid, 0);
        found.is_ok_and(|(found, _)| expected.is_ok_and(|expected| found == expected))
    }

    fn form(&self) -> Form<'_> {
        match self.form {
            ExportForm::Encrypted(key) => Form::Encrypted(key),
            ExportForm::Plaintext => Form::Plain,
        }
    }

    fn value_file(&self) -> ValueFile {
        match self.form {
            ExportForm::Encrypted(_) => ValueFile::Encrypted,
            ExportForm::Plaintext => ValueFile::Plain,
        }
    }

    fn wrote(&self, result: io::Result<()>) -> Result<(), Error> {
        result.map_err(|error| {
            let plain = self.directory.failed("write to", &error);
            match error.kind() {
                io::ErrorKind::StorageFull => {
                    plain.advise("make room there, and run it again: it goes on from here")
                }
                _ => plain,
            }
        })
    }

    fn in_the_way(&self, what: &str) -> Error {
        Error::failed(format!("'{}' can't be exported into: {what}", self.to.display())).advise(
            "nothing was written; name a new directory, and put its files where libvirt shall find them",
        )
    }
}

/// Why a value has no text.
fn unwritten(unfit: Unfit) -> Error {
    match unfit {
        Unfit::Memory(exhausted) => exhausted.into(),
        other => Error::failed(format!("a value can't be written: it {other}")),
    }
}

/// Makes the directory, for its owner alone.
fn make(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            let plain = Error::system(format!("cannot make the directory '{}'", path.display()), &error);
            Err(plain.advise("name a directory whose parent is there, and that you may write to"))
        }
        _ => Ok(()),
    }
}

/// The length of a UUID in a file's name.
const UUID: usize = 36;

/// What files are called behind their UUID until they are in their place.
const UNFINISHED: [&str; 3] = [".xml.new", ".base64.new", ".aes256cbc.new"];

/// Secrets written at once.
const PAGE: usize = 256;
