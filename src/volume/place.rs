//! The place of a volume: its path, who works on it, and the files beside it.
//!
//! Two names beside `NAME` are ours: `.NAME.strongroom`, empty and locked while somebody works on the volume, and
//! `.NAME.strongroom-XXXXXXXX`, the directory of an image that has yet to get its name. What a kill left of the latter,
//! whoever has the lock removes. Leans on flock(2) and `unnamed`. Refuses paths that a `<secret>` can't say or that go up,
//! links: the file behind one is another place; and what isn't a file: to open a pipe or a device may wait for ever.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, fcntl_lock};
use rustix::io::Errno;

use super::unnamed::{self, Unnamed};
use crate::secret::{Error, random_uuid};

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
                .advise("name a file, in UTF-8, without line breaks, and without '..'")
        };
        let path = std::path::absolute(path).map_err(|_| no_place())?;
        let text = path.to_str().filter(|text| !text.contains(char::is_control)).ok_or_else(no_place)?;
        let (text, name) = (text.to_owned(), path.file_name().ok_or_else(no_place)?.to_owned());
        let directory = path.parent().ok_or_else(no_place)?.to_owned();
        if text.ends_with('/') || path.components().any(|part| part == Component::ParentDir) {
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
                .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
                .open(&file)
                .map_err(failed)?;
            if !lock.metadata().map_err(failed)?.is_file() {
                return Err(failed(io::Error::other("it is no ordinary file")));
            }
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
            Ok(_) => Err(no_file(&self.text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::system(format_args!("cannot look at '{}'", self.text), &error)),
        }
    }

    /// What is there, which must be.
    pub(super) fn file(&self) -> Result<fs::Metadata, Error> {
        let none = || io::Error::from_raw_os_error(Errno::NOENT.raw_os_error());
        self.look()?.ok_or_else(|| Error::system(format_args!("cannot read '{}'", self.text), &none()))
    }

    /// Whether its directory is there.
    pub(super) fn has_directory(&self) -> bool {
        self.directory.is_dir()
    }

    /// Whether somebody is at work on it.
    pub(super) fn is_busy(&self) -> bool {
        let mut how = OpenOptions::new();
        how.read(true).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
        let lock = how.open(self.directory.join(self.beside("")));
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// A new, empty image beside the volume's, which nobody else may read. It gets the rights of what it is to replace.
    pub(super) fn unnamed(&self, like: Option<&fs::Metadata>) -> Result<Unnamed, Error> {
        let tail = random_uuid().ok_or_else(Error::no_randomness)?.simple().to_string();
        Unnamed::new(self.directory.join(self.beside(&format!("-{}", &tail[..8]))), like)
    }

    /// Makes durable what the directory's names are.
    pub(super) fn sync_names(&self) -> Result<(), Error> {
        sync(&self.directory)
    }

    /// Removes what a kill left beside the volume. Says whether there was anything.
    pub(super) fn sweep(&self) -> Result<bool, Error> {
        let mut swept = false;
        if !self.has_directory() {
            return Ok(false);
        }
        for entry in entries(&self.directory)? {
            if unnamed_of(&entry) == Some(&self.name) {
                let path = self.directory.join(&entry);
                let failed =
                    |error| Error::system(format_args!("cannot remove '{}'", path.display()), &error);
                unnamed::remove(&path).map_err(failed)?;
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
/// dropped. QEMU's own locks are of the same file and of a related kind: these are the process's, so they go as soon as it
/// closes the file by any descriptor (the kind that doesn't takes a call that no safe code can make). Nothing else here
/// opens the file meanwhile.
pub(super) fn claim(path: &Path) -> Result<File, Error> {
    let failed = |error| Error::system(format_args!("cannot lock '{}'", path.display()), &error);
    let file = open_file(path, true)?;
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

/// The name of the volume whose image this name is that of, before it gets its own.
pub(super) fn unnamed_of(name: &OsStr) -> Option<&OsStr> {
    let rest = name.as_bytes().strip_prefix(b".")?;
    let (name, tail) = rest.split_at_checked(rest.len().checked_sub(OURS.len() + 9)?)?;
    let digits = tail.strip_prefix(OURS.as_bytes())?.strip_prefix(b"-")?;
    let is_ours = !name.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    is_ours.then(|| OsStr::from_bytes(name))
}

/// Opens a file, and nothing else: a pipe or a device might make us wait for ever.
pub(super) fn open_file(path: &Path, write: bool) -> Result<File, Error> {
    let failed = |error| Error::system(format_args!("cannot read '{}'", path.display()), &error);
    let mut how = OpenOptions::new();
    how.read(true).write(write).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = how.open(path).map_err(failed)?;
    match file.metadata().map_err(failed)?.is_file() {
        true => Ok(file),
        false => Err(no_file(&path.display().to_string())),
    }
}

fn no_file(path: &str) -> Error {
    Error::failed(format!("'{path}' is no ordinary file"))
        .advise("volumes are files here: name the file itself, not a link, a device or a directory")
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
            ".a.strongroom-b.strongroom-01234567",
            ".a.strongroom-012345678",
        ];
        for name in kept.iter().chain(&[".a.strongroom-89abcdef"]) {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let unnamed = directory.path().join(".a.strongroom-76543210");
        fs::create_dir(&unnamed).unwrap();
        fs::write(unnamed.join(unnamed::IMAGE), "").unwrap();
        assert!(place.sweep().unwrap());
        assert_eq!(entries(directory.path()).unwrap().len(), kept.len());
        assert!(!place.sweep().unwrap());
    }

    #[test]
    fn what_would_make_one_wait_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::of(&directory.path().join("a")).unwrap();
        let pipe = |path: &Path| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        };
        pipe(&place.path);
        for error in [open_file(&place.path, false).unwrap_err(), place.look().unwrap_err()] {
            assert!(error.to_string().ends_with("is no ordinary file"), "{error}");
        }
        let lock = directory.path().join(".a.strongroom");
        pipe(&lock);
        let _reader = OpenOptions::new().read(true).write(true).open(&lock).unwrap();
        assert!(place.alone().unwrap_err().to_string().contains("no ordinary file"));
    }

    #[test]
    fn a_path_is_one_that_a_definition_can_say() {
        for path in ["/", "/a/..", "/a/../b", "../b", "/a\nb", "/a/"] {
            assert!(Place::of(Path::new(path)).is_err(), "{path:?}");
        }
        assert!(Place::of(Path::new("a")).unwrap().path.is_absolute());
    }
}
