//! Import when a daemon first starts where libvirt's secret driver was: once, and to its end.
//!
//! A file beside the keystore, made before the keystore itself and removed when the import has run to its end, says
//! that it is still to be done: whatever the moment at which a start is cut short, the next one goes on. Leans on
//! `import`. Refuses to import into a keystore that was there before, and to try again for single secrets that were
//! not taken: what has been undefined since must not come back.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{ImportOptions, Imported, LibvirtKey, Summary, import};
use crate::administration::Inventory;
use crate::driver::Root;
use crate::secret::Error;

/// To be called before the keystore is opened, and so made. If there is none yet, notes that an import shall follow. Says
/// whether one shall.
pub fn expect_import(root: &Root) -> Result<bool, Error> {
    let note = note(root);
    if exists(&note)? {
        return Ok(true);
    }
    if root.has_keystore()? {
        return Ok(false);
    }
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&root.etc)
        .and_then(|()| OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&note))
        .and_then(|file| file.sync_all())
        .and_then(|()| sync(&root.etc));
    made.map_err(|error| failed("make", &note, &error))?;
    Ok(true)
}

/// To be called when the keystore is open: imports `from` if [`expect_import`] said so, at this start or an earlier one
/// that was cut short; `None` if not. An error leaves it to be done at the next start. Secrets that were not taken don't:
/// they are reported, and it is for the operator to import again.
pub fn import_at_first_start(
    root: &Root,
    from: &Path,
    key: Option<&LibvirtKey>,
    into: &dyn Inventory,
    options: &ImportOptions,
    report: &mut dyn FnMut(&Imported),
) -> Result<Option<Summary>, Error> {
    let note = note(root);
    if !exists(&note)? {
        return Ok(None);
    }
    let summary = import(from, key, into, options, report)?;
    if !options.dry_run {
        let removed = std::fs::remove_file(&note).and_then(|()| sync(&root.etc));
        removed.map_err(|error| failed("remove", &note, &error))?;
    }
    Ok(Some(summary))
}

fn note(root: &Root) -> PathBuf {
    root.etc.join(NOTE)
}

fn exists(note: &Path) -> Result<bool, Error> {
    note.try_exists().map_err(|error| failed("look for", note, &error))
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn failed(doing: &str, note: &Path, error: &io::Error) -> Error {
    Error::system(
        format!(
            "cannot {doing} the note '{}', which says that libvirt's secrets are to be imported",
            note.display()
        ),
        error,
    )
    .advise("the keystore must be in a directory that the daemon may write to")
}

/// The note's name.
const NOTE: &str = "import.pending";

#[cfg(test)]
mod tests {
    use std::fs;

    use ::uuid::Uuid;

    use super::*;
    use crate::administration::Put;
    use crate::driver::{Driver, Keys};
    use crate::memory::SecretBytes;
    use crate::secret::Definition;

    const ONE: Uuid = Uuid::from_u128(0x1111_1111_1111_1111_1111_1111_1111_1111);
    const DOCUMENT: &str = "<secret><uuid>11111111-1111-1111-1111-111111111111</uuid></secret>";

    /// A keystore that takes everything but the secret of one UUID.
    struct Picky(std::sync::Arc<Driver>);

    impl Inventory for Picky {
        fn list(&self, after: Option<Uuid>, max: usize) -> Result<Vec<Uuid>, Error> {
            self.0.list(after, max)
        }

        fn read(&self, uuid: Uuid) -> Result<Option<(Definition, Option<SecretBytes>)>, Error> {
            self.0.read(uuid)
        }

        fn put(&self, definition: &Definition, value: Option<&SecretBytes>) -> Result<Put, Error> {
            match definition.uuid {
                ONE => self.0.put(definition, value),
                _ => Err(Error::failed("not this one")),
            }
        }

        fn holds(&self, definition: &Definition, value: Option<&SecretBytes>) -> Result<bool, Error> {
            self.0.holds(definition, value)
        }
    }

    struct Host(tempfile::TempDir);

    impl Host {
        fn root(&self) -> Root {
            Root::embed(&self.0.path().join("root")).unwrap()
        }

        /// A start of a daemon: how many secrets it imported, if it did import.
        fn start(&self, source: &Path) -> Result<Option<usize>, Error> {
            expect_import(&self.root())?;
            let keys = Keys { host_key: Some(self.0.path().join("host.key")), ..Keys::default() };
            let driver = Driver::open(self.root(), "secret:///system".into(), &keys)?;
            let store = driver.status().store.and_then(|id| id.parse().ok());
            let options = ImportOptions { store, ..ImportOptions::default() };
            let done =
                import_at_first_start(&self.root(), source, None, &Picky(driver), &options, &mut |_| {})?;
            Ok(done.map(|summary| summary.added))
        }
    }

    fn host() -> (Host, PathBuf) {
        let host = Host(tempfile::tempdir().unwrap());
        let etc = host.root().etc;
        fs::create_dir_all(&etc).unwrap();
        fs::write(etc.join("11111111-1111-1111-1111-111111111111.xml"), DOCUMENT).unwrap();
        (host, etc)
    }

    #[test]
    fn the_first_start_imports_and_later_ones_do_not() {
        let (host, etc) = host();
        assert_eq!(host.start(&etc), Ok(Some(1)));
        assert!(!etc.join(NOTE).exists());
        assert_eq!(host.start(&etc), Ok(None));
    }

    #[test]
    fn an_import_that_was_cut_short_goes_on_at_the_next_start() {
        let (host, etc) = host();
        assert!(host.start(Path::new("/nowhere/at/all")).is_err());
        assert!(etc.join(NOTE).exists() && host.root().has_keystore().unwrap());
        assert_eq!(host.start(&etc), Ok(Some(1)));
        assert_eq!(host.start(&etc), Ok(None));
    }

    #[test]
    fn a_secret_that_is_refused_keeps_no_note_behind() {
        let (host, etc) = host();
        let two = Uuid::from_u128(2);
        fs::write(etc.join(format!("{two}.xml")), DOCUMENT.replace(&ONE.to_string(), &two.to_string()))
            .unwrap();
        assert_eq!(host.start(&etc), Ok(Some(1)));
        assert!(
            !etc.join(NOTE).exists(),
            "every start would import again, and bring back what was undefined"
        );
        assert_eq!(host.start(&etc), Ok(None));
    }

    #[test]
    fn a_keystore_that_was_there_before_imports_nothing() {
        let (host, etc) = host();
        let keys = Keys { host_key: Some(host.0.path().join("host.key")), ..Keys::default() };
        drop(Driver::open(host.root(), "secret:///system".into(), &keys).unwrap());
        assert_eq!(host.start(&etc), Ok(None));
    }
}
