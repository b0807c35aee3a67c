//! An image that has yet to get its name: a file in a directory of its own beside the volume.
//!
//! Whoever may write the volume's directory may rename ours, but not look or write into it. So what is made in it by its
//! descriptor, which qemu-img has as its working directory, is made in that one file, and follows nobody's link. Leans on
//! openat(2) and renameat2(2). Refuses a directory that isn't ours alone, and to name anything but the file it made.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::fchown;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Stat};
use rustix::fs::{fchmod, fstat, linkat, mkdirat, openat, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;

use super::place::{self, id};

/// An image without a name. Dropped, it goes, unless it has got one.
#[derive(Debug)]
pub(super) struct Unnamed {
    file: File, // closed before the directory is removed: a network's server keeps what is open
    owner: Option<Owner>,
    directory: Directory,
}

/// Whose it shall be, and with which rights.
#[derive(Debug, Clone, Copy)]
struct Owner {
    user: u32,
    group: u32,
    mode: u32,
}

/// The directory that holds it.
#[derive(Debug)]
struct Directory {
    file: File,
    /// Where it is, and under which name.
    parent: File,
    name: OsString,
}

impl Unnamed {
    /// A new, empty file in a new directory of this name. It gets the rights of what it is to replace.
    pub(super) fn new(parent: &File, name: OsString, like: Option<&Stat>) -> io::Result<Self> {
        let parent = parent.try_clone()?;
        mkdirat(&parent, &name, Mode::RWXU)?;
        let opened = openat(&parent, &name, DIRECTORY, Mode::empty());
        let file = opened.inspect_err(|_| _ = remove(&parent, &name))?.into();
        let directory = Directory { file, parent, name };
        let owner =
            like.map(|like| Owner { user: like.st_uid, group: like.st_gid, mode: like.st_mode & 0o777 });
        Ok(Self { file: directory.new_image(owner)?, owner, directory })
    }

    /// What it is called in its directory, which [`for_children`](Self::for_children) tells.
    pub(super) fn image(&self) -> OsString {
        image(&self.directory.name)
    }

    /// Where a child of this process finds the directory, whatever its name is by then.
    pub(super) fn for_children(&self) -> String {
        place::for_children(&self.directory.file)
    }

    /// Begins anew: a new, empty file, where qemu-img has made something or removed it.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        match unlinkat(&self.directory.file, self.image(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        self.file = self.directory.new_image(self.owner)?;
        Ok(())
    }

    /// What it is like now.
    pub(super) fn about(&self) -> io::Result<Stat> {
        Ok(fstat(&self.file)?)
    }

    /// Makes durable what it holds.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Gives it a name, for good. An error of a call that has done its work all the same is none: on a network a call may be
    /// made twice, and one of two may fail. Of one that may have done it says `true`.
    pub(super) fn name(&self, parent: &File, name: &OsStr, replace: bool) -> Result<(), (io::Error, bool)> {
        let ours = self.about().map(|about| id(&about)).map_err(|error| (error, false))?;
        let is_ours = |about: Stat| id(&about) == ours;
        let begun = statat(&self.directory.file, self.image(), AtFlags::SYMLINK_NOFOLLOW);
        if !begun.map_err(|error| (error.into(), false)).map(is_ours)? {
            return Err((io::Error::other("it isn't the file that was made"), false));
        }
        let called = match replace {
            true => renameat(&self.directory.file, self.image(), parent, name),
            false => self.name_anew(parent, name),
        };
        match (called, statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map(is_ours)) {
            (_, Ok(true)) => Ok(()),
            (Err(error), Ok(false) | Err(Errno::NOENT)) => Err((error.into(), false)),
            (Err(error), Err(_)) => Err((error.into(), true)),
            (Ok(()), _) => Err((io::Error::other("another file has that name now"), true)),
        }
    }

    fn name_anew(&self, parent: &File, name: &OsStr) -> rustix::io::Result<()> {
        let (directory, image) = (&self.directory.file, self.image());
        match renameat_with(directory, &image, parent, name, RenameFlags::NOREPLACE) {
            // Not every file system can. A second name doesn't replace either; the first goes with the directory.
            Err(Errno::INVAL | Errno::NOSYS) => linkat(directory, &image, parent, name, AtFlags::empty()),
            done => done,
        }
    }
}

impl Directory {
    fn new_image(&self, owner: Option<Owner>) -> io::Result<File> {
        let how = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&self.file, image(&self.name), how, Mode::RUSR | Mode::WUSR)?);
        let (around, about) = (fstat(&self.file)?, fstat(&file)?);
        // Root is another on some servers, and the same one for both.
        if around.st_uid != about.st_uid || !is_private(&around) {
            return Err(io::Error::other("its directory isn't ours alone"));
        }
        if let Some(owner) = owner {
            if (about.st_uid, about.st_gid) != (owner.user, owner.group) {
                fchown(&file, Some(owner.user), Some(owner.group))?;
            }
            fchmod(&file, Mode::from_raw_mode(owner.mode))?;
        }
        Ok(file)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = remove(&self.parent, &self.name); // what stays is swept by the next run
    }
}

/// Removes such a directory, with its image. Whatever else has its name stays: it isn't ours.
pub(super) fn remove(parent: &File, name: &OsStr) -> io::Result<bool> {
    let directory = match openat(parent, name, DIRECTORY, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if !is_private(&fstat(&directory)?) {
        return Ok(false);
    }
    match unlinkat(&directory, image(name), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(Errno::ISDIR | Errno::PERM | Errno::ACCESS | Errno::BUSY) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    drop(directory);
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::PERM | Errno::ACCESS | Errno::BUSY) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether only its owner may look into a directory, as it is with ours.
pub(super) fn is_private(about: &Stat) -> bool {
    about.st_mode & 0o077 == 0
}

/// A directory that is held by its path only, to be listed or made durable.
pub(super) fn listed(directory: &File) -> io::Result<File> {
    Ok(openat(directory, ".", DIRECTORY, Mode::empty())?.into())
}

/// The image's name in a directory of this name: with the same tail.
fn image(directory: &OsStr) -> OsString {
    let name = directory.as_bytes();
    let tail = &name[name.len().saturating_sub(TAIL)..];
    let mut image = OsString::from("image");
    image.push(OsStr::from_bytes(tail));
    image
}

/// A hyphen and eight digits.
const TAIL: usize = 9;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const NAME: &str = ".a.strongroom-01234567";

    fn new(directory: &tempfile::TempDir) -> (Unnamed, File) {
        let parent = File::open(directory.path()).unwrap();
        (Unnamed::new(&parent, NAME.into(), None).unwrap(), parent)
    }

    #[test]
    fn a_file_that_is_there_keeps_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().join("a");
        fs::write(&name, "old").unwrap();
        let (mut unnamed, parent) = new(&directory);
        let (error, perhaps) = unnamed.name(&parent, "a".as_ref(), false).unwrap_err();
        assert!(error.to_string().starts_with("File exists") && !perhaps, "{error}");
        assert_eq!(fs::read(&name).unwrap(), b"old");
        unnamed.renew().unwrap();
        unnamed.name(&parent, "a".as_ref(), true).unwrap();
        assert_eq!(fs::read(&name).unwrap(), b"");
        drop(unnamed);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_image_that_has_its_name_is_named_whatever_the_call_said() {
        let directory = tempfile::tempdir().unwrap();
        let (unnamed, parent) = new(&directory);
        // As after linkat(2), and as where the first of two calls did it.
        fs::hard_link(directory.path().join(NAME).join("image-01234567"), directory.path().join("a"))
            .unwrap();
        unnamed.name(&parent, "a".as_ref(), false).unwrap();
        drop(unnamed);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn another_file_in_its_place_is_neither_named_nor_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (unnamed, parent) = new(&directory);
        let inner = directory.path().join(NAME).join("image-01234567");
        fs::remove_file(&inner).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &inner).unwrap();
        assert!(matches!(unnamed.name(&parent, "a".as_ref(), true), Err((_, false))));
        assert!(!directory.path().join("a").exists());
        // The directory itself is found by its descriptor, not by its name.
        fs::rename(directory.path().join(NAME), directory.path().join("moved")).unwrap();
        std::os::unix::fs::symlink("/etc", directory.path().join(NAME)).unwrap();
        assert!(fs::canonicalize(unnamed.for_children()).unwrap().ends_with("moved"));
        drop(unnamed);
        assert!(Path::new("/etc").is_dir());
    }
}
