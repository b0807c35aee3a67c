//! The place of a volume: its path, who works on it, and the files beside it.
//!
//! Two names beside `NAME` are ours: `.NAME.strongroom`, empty and locked while somebody works on the volume, and
//! `.NAME.strongroom-XXXXXXXX`, an image that has yet to get its name. What a kill left of the latter, whoever has the lock
//! removes. Leans on flock(2) and renameat2(2). Refuses paths that a `<secret>` can't say, and links: the file behind one is
//! another place.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, RenameFlags};
use rustix::fs::{fchmod, fcntl_lock, linkat, renameat_with};
use rustix::io::Errno;

use crate::secret::Error;

/// Where a volume is, or is to be.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// The path, as a secret's usage says it.
    pub(super) text: String,
    directory: PathBuf,
    name: OsString,
}

/// While this is there, nobody else works on the volume.
#[derive(Debug)]
pub(super) struct Alone {
    file: PathBuf,
    _lock: File,
}

impl Place {
    /// The place of this path.
    pub(super) fn of(path: &Path) -> Result<Self, Error> {
        let no_place = || {
            Error::failed(format!("'{}' can't be a volume's path", path.display()))
                .advise("name a file, in UTF-8, without line breaks")
        };
        let path = std::path::absolute(path).map_err(|_| no_place())?;
        let text = path.to_str().filter(|text| !text.contains(char::is_control)).ok_or_else(no_place)?;
        let (text, name) = (text.to_owned(), path.file_name().ok_or_else(no_place)?.to_owned());
        let directory = path.parent().ok_or_else(no_place)?.to_owned();
        if text.ends_with('/') {
            return Err(no_place());
        }
        Ok(Self { path, text, directory, name })
    }

    /// Takes the place for oneself.
    pub(super) fn alone(&self) -> Result<Alone, Error> {
        let file = self.directory.join(self.beside(""));
        let failed = |error| Error::system(format_args!("cannot lock '{}'", file.display()), &error);
        loop {
            let lock = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
                .open(&file)
                .map_err(failed)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::not_now(format!("another Strongroom is at work on '{}'", self.text))
                        .advise("wait until it is done"));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // Whoever had it may have removed the file between our two steps.
            let id = |about: fs::Metadata| (about.dev(), about.ino());
            match (lock.metadata().map(id), fs::symlink_metadata(&file).map(id)) {
                (Ok(ours), Ok(there)) if ours == there => return Ok(Alone { file, _lock: lock }),
                (Err(error), _) => return Err(failed(error)),
                _ => {}
            }
        }
    }

    /// What is there: `None` if nothing is. Only an ordinary file may be.
    pub(super) fn look(&self) -> Result<Option<fs::Metadata>, Error> {
        match fs::symlink_metadata(&self.path) {
            Ok(about) if about.is_file() => Ok(Some(about)),
            Ok(_) => Err(Error::failed(format!("'{}' is no ordinary file", self.text))
                .advise("volumes are files here: name the file itself, not a link, a device or a directory")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::system(format_args!("cannot look at '{}'", self.text), &error)),
        }
    }

    /// A new, empty file beside the volume's, which nobody else may read. It gets the rights of what it is to replace.
    pub(super) fn new_file(&self, tail: &str, like: Option<&fs::Metadata>) -> Result<PathBuf, Error> {
        let path = self.directory.join(self.beside(&format!("-{tail}")));
        let failed = |error| Error::system(format_args!("cannot make '{}'", path.display()), &error);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        if let Some(like) = like {
            let same = (file.metadata().map_err(failed)?.uid(), file.metadata().map_err(failed)?.gid());
            if same != (like.uid(), like.gid()) {
                std::os::unix::fs::fchown(&file, Some(like.uid()), Some(like.gid())).map_err(failed)?;
            }
            fchmod(&file, Mode::from_raw_mode(like.mode() & 0o777)).map_err(|error| failed(error.into()))?;
        }
        Ok(path)
    }

    /// Gives a finished file the volume's name, for good.
    pub(super) fn name(&self, file: &Path, replace: bool) -> Result<(), Error> {
        let renamed = match replace {
            true => fs::rename(file, &self.path),
            false => self.name_anew(file).map_err(io::Error::from),
        };
        renamed
            .map_err(|error| Error::system(format_args!("cannot name the new image '{}'", self.text), &error))
    }

    fn name_anew(&self, file: &Path) -> rustix::io::Result<()> {
        match renameat_with(CWD, file, CWD, &self.path, RenameFlags::NOREPLACE) {
            // Not every file system can. A second name doesn't replace either.
            Err(Errno::INVAL | Errno::NOSYS) => {
                linkat(CWD, file, CWD, &self.path, AtFlags::empty())?;
                rustix::fs::unlink(file)
            }
            done => done,
        }
    }

    /// Makes durable what the directory's names are.
    pub(super) fn sync_names(&self) -> Result<(), Error> {
        sync(&self.directory)
    }

    /// Removes what a kill left beside the volume. Says whether there was anything.
    pub(super) fn sweep(&self) -> Result<bool, Error> {
        let mut swept = false;
        let prefix = self.beside("-");
        for entry in entries(&self.directory)? {
            if entry.as_bytes().starts_with(prefix.as_bytes()) && is_unnamed(&entry) {
                let path = self.directory.join(&entry);
                let failed =
                    |error| Error::system(format_args!("cannot remove '{}'", path.display()), &error);
                fs::remove_file(&path).map_err(failed)?;
                swept = true;
            }
        }
        Ok(swept)
    }

    fn beside(&self, tail: &str) -> OsString {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(OURS);
        name.push(tail);
        name
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.file); // before the lock goes; a file that stays is taken by the next
    }
}

/// Takes a volume's file from QEMU's point of view: fails while a guest has it open, and no guest opens it until this is
/// dropped. QEMU's own locks are the same kind of lock.
pub(super) fn claim(path: &Path) -> Result<File, Error> {
    let failed = |error| Error::system(format_args!("cannot lock '{}'", path.display()), &error);
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::AGAIN | Errno::ACCESS) => {
            Err(Error::not_now(format!("'{}' is in use", path.display())).advise(IN_USE))
        }
        // A file system without locks has no guest's either.
        Err(Errno::NOLCK | Errno::OPNOTSUPP) => Ok(file),
        Err(error) => Err(failed(error.into())),
    }
}

/// What to do when QEMU has a volume open.
pub(super) const IN_USE: &str =
    "the image is in use: shut the guest down first, or wait for the other program";

/// The names in a directory.
pub(super) fn entries(directory: &Path) -> Result<Vec<OsString>, Error> {
    let failed = |error| Error::system(format_args!("cannot list '{}'", directory.display()), &error);
    let entries = fs::read_dir(directory).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<_>>().map_err(failed)
}

/// Whether this is the name of an image that has yet to get its own.
pub(super) fn is_unnamed(name: &OsStr) -> bool {
    let Some(name) = name.to_str().filter(|name| name.starts_with('.')) else { return false };
    let tail = name.rsplit_once(OURS).and_then(|(_, tail)| tail.strip_prefix('-'));
    tail.is_some_and(|tail| tail.len() == 8 && tail.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Makes durable what a file or directory holds.
pub(super) fn sync(path: &Path) -> Result<(), Error> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced
        .map_err(|error| Error::system(format_args!("cannot write '{}' to the disk", path.display()), &error))
}

/// What stands behind a volume's name in the names that are ours.
const OURS: &str = ".strongroom";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_do_not_work_on_one_volume() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::of(&directory.path().join("a.img")).unwrap();
        let alone = place.alone().unwrap();
        let refused = place.alone().unwrap_err().to_string();
        assert!(refused.contains("another Strongroom is at work"), "{refused}");
        drop(alone);
        assert!(entries(directory.path()).unwrap().is_empty());
        drop(place.alone().unwrap());
    }

    #[test]
    fn only_what_is_ours_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::of(&directory.path().join("a")).unwrap();
        let kept = [
            "a",
            ".a.strongroom-",
            ".a.strongroom-notes",
            ".ab.strongroom-01234567",
            ".a.strongroom-0123456",
        ];
        for name in kept.iter().chain(&[".a.strongroom-89abcdef"]) {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert!(place.sweep().unwrap());
        assert_eq!(entries(directory.path()).unwrap().len(), kept.len());
        assert!(!place.sweep().unwrap());
    }

    #[test]
    fn a_file_that_is_there_keeps_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::of(&directory.path().join("a")).unwrap();
        fs::write(&place.path, "old").unwrap();
        let new = place.new_file("01234567", None).unwrap();
        assert!(place.name(&new, false).unwrap_err().to_string().ends_with("File exists"));
        assert_eq!(fs::read(&place.path).unwrap(), b"old");
        place.name(&new, true).unwrap();
        assert_eq!(fs::read(&place.path).unwrap(), b"");
    }

    #[test]
    fn a_path_is_one_that_a_definition_can_say() {
        for path in ["/", "/a/..", "/a\nb", "/a/"] {
            assert!(Place::of(Path::new(path)).is_err(), "{path:?}");
        }
        assert!(Place::of(Path::new("a")).unwrap().path.is_absolute());
    }
}
