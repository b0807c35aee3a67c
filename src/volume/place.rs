//! The place of a volume: its path, who works on it, and the files beside it.
//!
//! Two names beside `NAME` are ours: `.NAME.strongroom`, empty and locked while somebody works on the volume, and
//! `.NAME.strongroom-XXXXXXXX`, the directory of an image that has yet to get its name. What a kill left of the latter,
//! whoever has the lock removes. The directory is held, so that all steps of a work are in one, whatever has its name
//! meanwhile. Leans on openat(2), flock(2) and `unnamed`. Refuses paths that a `<secret>` can't say or that go up, links: the
//! file behind one is another place; and what isn't a file: to open a pipe or a device may wait for ever.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::fs::{Dir, fcntl_lock, fstat, fstatvfs, openat, statat, unlinkat};
use rustix::io::Errno;

use super::unnamed::{self, Unnamed};
use crate::secret::{Error, random_uuid};

/// Where a volume is, or is to be.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// The path, as a secret's usage says it.
    pub(super) text: String,
    name: OsString,
    directory: Result<File, Errno>,
}

/// While this is there, nobody else works on the volume.
#[derive(Debug)]
pub(super) struct Alone {
    directory: File,
    name: OsString,
    lock: File,
}

/// Which file it is, by device and number.
pub(super) fn id(about: &Stat) -> (u64, u64) {
    (about.st_dev, about.st_ino)
}

impl Place {
    /// The place of this path.
    pub(super) fn of(path: &Path) -> Result<Self, Error> {
        let no_place = || {
            Error::failed(format!("'{}' can't be a volume's path", path.display()))
                .advise("name a file, in UTF-8, without line breaks, and without '..'")
        };
        let path = std::path::absolute(path).map_err(|_| no_place())?;
        if path.as_os_str().as_bytes().ends_with(b"/")
            || path.components().any(|part| part == Component::ParentDir)
        {
            return Err(no_place());
        }
        let path: PathBuf = path.components().collect(); // two slashes are one
        // What XML has no characters for, a usage can't say.
        let unfit = |it: char| it.is_control() || matches!(it, '\u{fffe}' | '\u{ffff}');
        let text = path.to_str().filter(|text| !text.contains(unfit)).ok_or_else(no_place)?.to_owned();
        let name = path.file_name().ok_or_else(no_place)?.to_owned();
        if unnamed_of(&name).is_some() || lock_of(&name).is_some() {
            return Err(Error::failed(format!("'{text}' is a name that Strongroom gives to its own files"))
                .advise("choose another path"));
        }
        let directory = path.parent().ok_or_else(no_place)?;
        let directory =
            openat(CWD, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Ok(Self { path, text, name, directory: directory.map(File::from) })
    }

    fn directory(&self) -> Result<&File, Error> {
        self.directory.as_ref().map_err(|error| {
            Error::system(format_args!("cannot look into the directory of '{}'", self.text), &(*error).into())
        })
    }

    /// Whether there is no such directory. One that may not be looked at is there.
    pub(super) fn lacks_directory(&self) -> bool {
        matches!(self.directory, Err(Errno::NOENT | Errno::NOTDIR))
    }

    /// What tells the directory from another one that has its name at another time: its number, and its file system's.
    pub(super) fn number(&self) -> Result<String, Error> {
        let directory = self.directory()?;
        let number = fstat(directory).and_then(|about| Ok((about.st_ino, fstatvfs(directory)?.f_fsid)));
        number.map(|(inode, system)| format!("{inode}@{system:x}")).map_err(|error| {
            Error::system(format_args!("cannot look at the directory of '{}'", self.text), &error.into())
        })
    }

    /// Where a child of this process finds the directory, whatever its name is by then.
    pub(super) fn for_children(&self) -> Result<String, Error> {
        Ok(for_children(self.directory()?))
    }

    /// The volume's name there.
    pub(super) fn name_there(&self) -> String {
        format!("./{}", self.name.to_string_lossy()) // it is UTF-8, as the path is
    }

    /// Takes the place for oneself. Who is only looking whether it is taken is waited for.
    pub(super) fn alone(&self) -> Result<Alone, Error> {
        if self.name.len() > LONGEST {
            return Err(Error::failed(format!("the name of '{}' is too long", self.text)).advise(format!(
                "give it one of at most {LONGEST} bytes: there must be room for another beside it"
            )));
        }
        let (directory, name) = (self.directory()?, self.beside(""));
        let failed = |error| Error::system(format_args!("cannot lock the place of '{}'", self.text), &error);
        let end = Instant::now() + LOOK;
        loop {
            let how = OFlags::WRONLY | OFlags::CREATE | HOW;
            let lock = openat(directory, &name, how, Mode::RUSR | Mode::WUSR);
            let lock = File::from(lock.map_err(|error| failed(error.into()))?);
            let about = lock.metadata().map_err(failed)?;
            if !about.is_file() || about.len() != 0 {
                let theirs = self.path.with_file_name(&name);
                return Err(Error::failed(format!("'{}' isn't ours, and its name is", theirs.display()))
                    .advise(format!(
                        "move it away: who works on '{}' locks an empty file of that name",
                        self.text
                    )));
            }
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if Instant::now() < end => {
                    sleep(GLANCE);
                    continue;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::not_now(format!("another Strongroom is at work on '{}'", self.text))
                        .advise("wait until it is done"));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // Whoever had it may have removed the file between our two steps.
            let ours = fstat(&lock).map_err(|error| failed(error.into()))?;
            let there = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW);
            if there.is_ok_and(|there| id(&there) == id(&ours)) {
                let directory = directory.try_clone().map_err(failed)?;
                return Ok(Alone { directory, name, lock });
            }
        }
    }

    /// Whether somebody is at work on it, for all that can be seen.
    pub(super) fn is_busy(&self) -> bool {
        let Ok(directory) = &self.directory else { return !self.lacks_directory() };
        match openat(directory, self.beside(""), OFlags::RDONLY | HOW, Mode::empty()) {
            Ok(lock) => File::from(lock).try_lock_shared().is_err(),
            Err(error) => !matches!(error, Errno::NOENT | Errno::NAMETOOLONG),
        }
    }

    /// What is there: `None` if nothing is. Only an ordinary file may be.
    pub(super) fn look(&self) -> Result<Option<Stat>, Error> {
        match self.anything()? {
            Some(about) if !is_file(&about) => Err(no_file(&self.text)),
            there => Ok(there),
        }
    }

    /// The ordinary file that is there. What isn't one is no volume.
    pub(super) fn file(&self) -> Result<Option<Stat>, Error> {
        Ok(self.anything()?.filter(is_file))
    }

    fn anything(&self) -> Result<Option<Stat>, Error> {
        match statat(self.directory()?, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(about) => Ok(Some(about)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::system(format_args!("cannot look at '{}'", self.text), &error.into())),
        }
    }

    /// Opens what is there, to read it, or to write it too.
    pub(super) fn open(&self, write: bool) -> Result<File, Error> {
        self.open_as(if write { OFlags::RDWR } else { OFlags::RDONLY }, OFlags::NOFOLLOW)
    }

    /// Opens what is there or what a link there leads to, to read it.
    pub(super) fn open_behind_links(&self) -> Result<File, Error> {
        self.open_as(OFlags::RDONLY, OFlags::empty())
    }

    /// Looks before it opens: to open a device may already do something.
    fn open_as(&self, how: OFlags, links: OFlags) -> Result<File, Error> {
        let failed = |error: Errno| Error::system(format_args!("cannot read '{}'", self.text), &error.into());
        let held =
            openat(self.directory()?, &self.name, OFlags::PATH | OFlags::CLOEXEC | links, Mode::empty());
        let held = File::from(held.map_err(failed)?);
        if !is_file(&fstat(&held).map_err(failed)?) {
            return Err(no_file(&self.text));
        }
        let file = openat(CWD, for_children(&held), how | WITHOUT_WAITING, Mode::empty());
        file.map(File::from).map_err(failed)
    }

    /// Takes a volume's file from QEMU's point of view: fails while a guest has it open, and no guest opens it until this is
    /// dropped. QEMU's own locks are of the same file and of a related kind: these are the process's, so they go as soon as it
    /// closes the file by any descriptor (the kind that doesn't takes a call that no safe code can make). Nothing else here
    /// opens the file meanwhile.
    pub(super) fn claim(&self) -> Result<File, Error> {
        let file = self.open(true)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(Errno::AGAIN | Errno::ACCESS) => {
                Err(Error::not_now(format!("'{}' is in use", self.text)).advise(IN_USE))
            }
            // A file system without locks has no guest's either.
            Err(Errno::NOLCK | Errno::OPNOTSUPP) => Ok(file),
            Err(error) => Err(Error::system(format_args!("cannot lock '{}'", self.text), &error.into())),
        }
    }

    /// Removes what is there, if it is this file. Another one that has its name stays; none is no error.
    pub(super) fn remove(&self, which: &Stat) -> Result<(), Error> {
        match self.look()? {
            Some(about) if id(&about) == id(which) => {}
            Some(_) => return Err(self.is_another()),
            None => return Ok(()),
        }
        unlinkat(self.directory()?, &self.name, AtFlags::empty())
            .map_err(|error| Error::system(format_args!("cannot remove '{}'", self.text), &error.into()))
    }

    /// Somebody has put something else in its place meanwhile.
    pub(super) fn is_another(&self) -> Error {
        Error::not_now(format!("'{}' is another file by now", self.text))
            .advise("see what it is, and who put it there")
    }

    /// A new, empty image beside the volume's, which nobody else may read. It gets the rights of what it is to replace.
    pub(super) fn unnamed(&self, like: Option<&Stat>) -> Result<Unnamed, Error> {
        let tail = random_uuid().ok_or_else(Error::no_randomness)?.simple().to_string();
        let name = self.beside(&format!("-{}", &tail[..8]));
        Unnamed::new(self.directory()?, name, like).map_err(|error| {
            Error::system(format_args!("cannot make an image beside '{}'", self.text), &error)
        })
    }

    /// Gives an image the volume's name.
    pub(super) fn name(&self, unnamed: &Unnamed, replace: bool) -> Result<(), NotNamed> {
        let failed = |error: &io::Error| {
            Error::system(format_args!("cannot name the new image '{}'", self.text), error)
        };
        let directory = self.directory().map_err(NotNamed::No)?;
        match unnamed.name(directory, &self.name, replace) {
            Ok(()) => Ok(()),
            Err((error, true)) => Err(NotNamed::Perhaps(failed(&error))),
            Err((error, false)) => Err(NotNamed::No(failed(&error))),
        }
    }

    /// Makes durable what the image holds.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.open(false)?.sync_all().map_err(|error| self.not_synced(&error))
    }

    /// Makes durable what the directory's names are.
    pub(super) fn sync_names(&self) -> Result<(), Error> {
        let directory = unnamed::listed(self.directory()?);
        directory.and_then(|directory| directory.sync_all()).map_err(|error| self.not_synced(&error))
    }

    fn not_synced(&self, error: &io::Error) -> Error {
        Error::system(format_args!("cannot write '{}' to the disk", self.text), error)
    }

    /// Removes what a kill left beside the volume. Says whether there was anything.
    pub(super) fn sweep(&self) -> Result<bool, Error> {
        let mut swept = false;
        let directory = self.directory()?;
        let failed = |error: io::Error| {
            Error::system(format_args!("cannot sweep the place of '{}'", self.text), &error)
        };
        for entry in names(directory).map_err(failed)? {
            if unnamed_of(&entry) == Some(&self.name) {
                swept |= unnamed::remove(directory, &entry).map_err(failed)?;
            }
        }
        Ok(swept)
    }

    /// The other places in its directory that something has, of those that can be a volume's.
    pub(super) fn beside_it(&self) -> Result<Vec<Self>, Error> {
        let names = names(self.directory()?).map_err(|error| {
            Error::system(format_args!("cannot list the directory of '{}'", self.text), &error)
        })?;
        let others = names.into_iter().filter(|name| *name != self.name);
        Ok(others.filter_map(|name| Self::of(&self.path.with_file_name(name)).ok()).collect())
    }

    fn beside(&self, tail: &str) -> OsString {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(OURS);
        name.push(tail);
        name
    }
}

/// Why an image didn't get its name.
#[derive(Debug)]
pub(super) enum NotNamed {
    /// It surely has none.
    No(Error),
    /// It may have it: who knows is the next run.
    Perhaps(Error),
}

impl Drop for Alone {
    fn drop(&mut self) {
        // Before the lock goes; a file that stays is taken by the next.
        if self.lock.metadata().is_ok_and(|about| about.len() == 0) {
            _ = unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}

/// What to do when QEMU has a volume open.
pub(super) const IN_USE: &str =
    "the image is in use: shut the guest down first, or wait for the other program";

/// Where this process, and a child of it, finds what this one has open.
pub(super) fn for_children(directory: &File) -> String {
    format!("/proc/self/fd/{}", directory.as_raw_fd())
}

/// The names in a directory.
pub(super) fn entries(directory: &Path) -> Result<Vec<OsString>, Error> {
    let listed = File::open(directory).and_then(|directory| names(&directory));
    listed.map_err(|error| Error::system(format_args!("cannot list '{}'", directory.display()), &error))
}

fn names(directory: &File) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(unnamed::listed(directory)?)? {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// The name of the volume whose image this name is that of, before it gets its own.
pub(super) fn unnamed_of(name: &OsStr) -> Option<&OsStr> {
    let rest = name.as_bytes().strip_prefix(b".")?;
    let (name, tail) = rest.split_at_checked(rest.len().checked_sub(OURS.len() + 9)?)?;
    let digits = tail.strip_prefix(OURS.as_bytes())?.strip_prefix(b"-")?;
    let is_ours = !name.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    is_ours.then(|| OsStr::from_bytes(name))
}

/// The name of the volume beside which a file of this name is locked.
fn lock_of(name: &OsStr) -> Option<&OsStr> {
    let name = name.as_bytes().strip_prefix(b".")?.strip_suffix(OURS.as_bytes())?;
    (!name.is_empty()).then(|| OsStr::from_bytes(name))
}

fn is_file(about: &Stat) -> bool {
    FileType::from_raw_mode(about.st_mode) == FileType::RegularFile
}

fn no_file(path: &str) -> Error {
    Error::failed(format!("'{path}' is no ordinary file"))
        .advise("volumes are files here: name the file itself, not a link, a device or a directory")
}

/// What stands behind a volume's name in the names that are ours.
const OURS: &str = ".strongroom";

/// A volume's longest name, in bytes: Linux has 255 for ours, with a point before it and nine characters behind.
const LONGEST: usize = 255 - 1 - OURS.len() - 9;

/// A pipe or a device might make us wait for ever.
const WITHOUT_WAITING: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// How the file is opened that is locked.
const HOW: OFlags = WITHOUT_WAITING.union(OFlags::NOFOLLOW);

/// How long another's look at the lock may take.
const LOOK: Duration = Duration::from_secs(1);

const GLANCE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn two_do_not_work_on_one_volume() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::of(&directory.path().join("a.img")).unwrap();
        let alone = place.alone().unwrap();
        let refused = place.alone().unwrap_err().to_string();
        assert!(refused.contains("another Strongroom is at work") && place.is_busy(), "{refused}");
        drop(alone);
        assert!(entries(directory.path()).unwrap().is_empty() && !place.is_busy());
        drop(place.alone().unwrap());
    }

    #[test]
    fn who_only_looks_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::of(&directory.path().join("a")).unwrap();
        let lock = File::create(directory.path().join(".a.strongroom")).unwrap();
        lock.lock_shared().unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| place.alone().map(drop));
            sleep(GLANCE);
            drop(lock);
            waits.join().unwrap().unwrap();
        });
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
            ".a.strongroom-89abcdef",
        ];
        for name in kept {
            fs::write(directory.path().join(name), "").unwrap();
        }
        // One can't be removed as a file.
        fs::create_dir_all(directory.path().join(".a.strongroom-76543213/image-76543213")).unwrap();
        // Somebody else's of such a name: more may look into it, or it holds what we don't make.
        for (name, mode, file) in [("76543211", 0o755, "image-76543211"), ("76543212", 0o700, "image")] {
            let theirs = directory.path().join(format!(".a.strongroom-{name}"));
            fs::create_dir(&theirs).unwrap();
            fs::set_permissions(&theirs, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            fs::write(theirs.join(file), "theirs").unwrap();
        }
        let unnamed = place.unnamed(None).unwrap();
        std::mem::forget(unnamed); // as if killed
        assert!(place.sweep().unwrap());
        assert_eq!(entries(directory.path()).unwrap().len(), kept.len() + 3);
        assert!(directory.path().join(".a.strongroom-76543211/image-76543211").exists());
        assert!(directory.path().join(".a.strongroom-76543212/image").exists());
        assert!(!place.sweep().unwrap());
    }

    #[test]
    fn what_would_make_one_wait_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::of(&directory.path().join("a")).unwrap();
        let pipe = |path: &Path| {
            rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        };
        pipe(&place.path);
        for error in [place.open(false).unwrap_err(), place.look().unwrap_err()] {
            assert!(error.to_string().ends_with("is no ordinary file"), "{error}");
        }
        let lock = directory.path().join(".a.strongroom");
        pipe(&lock);
        let _reader = fs::OpenOptions::new().read(true).write(true).open(&lock).unwrap();
        assert!(place.alone().unwrap_err().to_string().contains("isn't ours"));
    }

    #[test]
    fn a_place_stays_where_it_is_when_its_directory_is_called_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let [was, is] = ["was", "is"].map(|name| directory.path().join(name));
        fs::create_dir(&was).unwrap();
        fs::write(was.join("a"), "here").unwrap();
        let place = Place::of(&was.join("a")).unwrap();
        fs::rename(&was, &is).unwrap();
        std::os::unix::fs::symlink("/etc", &was).unwrap();
        let about = place.look().unwrap().unwrap();
        fs::write(is.join("b"), "another").unwrap();
        fs::rename(is.join("b"), is.join("a")).unwrap();
        assert!(place.remove(&about).unwrap_err().to_string().contains("another file"));
        assert!(is.join("a").exists());
        place.remove(&place.look().unwrap().unwrap()).unwrap();
        assert!(!is.join("a").exists() && place.look().unwrap().is_none());
    }

    #[test]
    fn a_path_is_one_that_a_definition_can_say() {
        for path in [
            "/",
            "/a/..",
            "/a/../b",
            "../b",
            "/a\nb",
            "/a/",
            "/a\u{fffe}",
            "/\u{ffff}b",
            "/srv/.a.strongroom",
            "/srv/.a.strongroom-0123abcd",
        ] {
            assert!(Place::of(Path::new(path)).is_err(), "{path:?}");
        }
        assert!(Place::of(Path::new("a")).unwrap().path.is_absolute());
        assert_eq!(Place::of(Path::new("//srv//./a")).unwrap().text, "/srv/a");
        let directory = tempfile::tempdir().unwrap();
        let named = |length| Place::of(&directory.path().join("n".repeat(length))).unwrap();
        let longest = named(LONGEST);
        let _alone = longest.alone().unwrap();
        drop(longest.unnamed(None).unwrap());
        assert!(named(LONGEST + 1).alone().unwrap_err().advice().unwrap().contains("at most 234 bytes"));
    }

    #[test]
    fn a_file_that_is_somebodys_is_no_lock() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::of(&directory.path().join("a")).unwrap();
        let theirs = directory.path().join(".a.strongroom");
        fs::write(&theirs, "precious").unwrap();
        assert!(place.alone().unwrap_err().advice().unwrap().contains("move it away"));
        fs::remove_file(&theirs).unwrap();
        let alone = place.alone().unwrap();
        fs::write(&theirs, "precious").unwrap(); // while it is locked
        drop(alone);
        assert_eq!(fs::read(&theirs).unwrap(), b"precious");
    }
}
