//! An image that has yet to get its name: a file in a directory of its own beside the volume.
//!
//! Whoever may write the volume's directory may rename ours, but not look or write into it. So what is made in it by its
//! descriptor, which qemu-img has as its working directory, is made in that one file, and follows nobody's link. Leans on
//! openat(2) and renameat2(2). Refuses a directory that isn't ours alone, and to name anything but the file it made.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::fs::{fchmod, linkat, openat, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;

use crate::secret::Error;

/// An image without a name. Dropped, it goes, unless it has got one.
#[derive(Debug)]
pub(super) struct Unnamed {
    /// Its directory's name.
    path: PathBuf,
    directory: File,
    /// The image.
    pub(super) file: File,
}

/// Why an image didn't get its name.
#[derive(Debug)]
pub(super) enum NotNamed {
    /// It surely has none.
    No(Error),
    /// It may have it: who knows is the next run.
    Perhaps(Error),
}

impl Unnamed {
    /// A new, empty file in a new directory of this name. It gets the rights of what it is to replace.
    pub(super) fn new(path: PathBuf, like: Option<&Metadata>) -> Result<Self, Error> {
        let failed = |error| Error::system(format_args!("cannot make '{}'", path.display()), &error);
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        let made = Self::within(&path, like).map_err(failed);
        let (directory, file) = made.inspect_err(|_| _ = remove(&path))?;
        Ok(Self { path, directory, file })
    }

    fn within(path: &Path, like: Option<&Metadata>) -> io::Result<(File, File)> {
        let directory = open(path)?;
        let how = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&directory, IMAGE, how, Mode::RUSR | Mode::WUSR)?);
        let (around, about) = (directory.metadata()?, file.metadata()?);
        if around.uid() != about.uid() || around.mode() & 0o022 != 0 {
            return Err(io::Error::other("others may write into it"));
        }
        if let Some(like) = like {
            if (about.uid(), about.gid()) != (like.uid(), like.gid()) {
                std::os::unix::fs::fchown(&file, Some(like.uid()), Some(like.gid()))?;
            }
            fchmod(&file, Mode::from_raw_mode(like.mode() & 0o777))?;
        }
        Ok((directory, file))
    }

    /// Where a child of this process finds the directory, whatever its name is by then.
    pub(super) fn for_children(&self) -> String {
        format!("/proc/self/fd/{}", self.directory.as_raw_fd())
    }

    /// Makes durable what it holds.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(|error| {
            Error::system(format_args!("cannot write '{}' to the disk", self.path.display()), &error)
        })
    }

    /// Gives it a name, for good. An error of a call that has done its work all the same is none: on a network a call may be
    /// made twice, and one of two may fail.
    pub(super) fn name(&self, name: &Path, replace: bool) -> Result<(), NotNamed> {
        let failed = |error: &io::Error| {
            Error::system(format_args!("cannot name the new image '{}'", name.display()), error)
        };
        match statat(&self.directory, IMAGE, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(about) if self.is((about.st_dev, about.st_ino)) => {}
            Ok(_) => return Err(NotNamed::No(failed(&io::Error::other("it isn't the file that was made")))),
            Err(error) => return Err(NotNamed::No(failed(&error.into()))),
        }
        let called = match replace {
            true => renameat(&self.directory, IMAGE, CWD, name),
            false => self.name_anew(name),
        };
        let is_there = fs::symlink_metadata(name).map(|about| self.is((about.dev(), about.ino())));
        match (called.map_err(io::Error::from), is_there) {
            (_, Ok(true)) => Ok(()),
            (Err(error), Ok(false)) => Err(NotNamed::No(failed(&error))),
            (Err(error), Err(none)) if none.kind() == io::ErrorKind::NotFound => {
                Err(NotNamed::No(failed(&error)))
            }
            (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(NotNamed::Perhaps(failed(&error))),
            (Ok(()), Ok(false)) => {
                Err(NotNamed::Perhaps(failed(&io::Error::other("another file has that name now"))))
            }
        }
    }

    fn name_anew(&self, name: &Path) -> rustix::io::Result<()> {
        match renameat_with(&self.directory, IMAGE, CWD, name, RenameFlags::NOREPLACE) {
            // Not every file system can. A second name doesn't replace either; the first goes with the directory.
            Err(Errno::INVAL | Errno::NOSYS) => linkat(&self.directory, IMAGE, CWD, name, AtFlags::empty()),
            done => done,
        }
    }

    /// Whether this is it, by device and number.
    fn is(&self, other: (u64, u64)) -> bool {
        self.file.metadata().is_ok_and(|about| (about.dev(), about.ino()) == other)
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        _ = remove(&self.path); // what stays is swept by the next run
    }
}

/// Removes what has the name of such a directory. Follows no link.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    match unlinkat(open(path)?, IMAGE, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => fs::remove_dir(path),
        Err(error) => Err(error.into()),
    }
}

fn open(path: &Path) -> io::Result<File> {
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, path, how, Mode::empty())?.into())
}

/// The image's name in its directory.
pub(super) const IMAGE: &str = "image";

#[cfg(test)]
mod tests {
    use super::*;

    fn new(directory: &tempfile::TempDir) -> Unnamed {
        Unnamed::new(directory.path().join(".a.strongroom-01234567"), None).unwrap()
    }

    #[test]
    fn a_file_that_is_there_keeps_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().join("a");
        fs::write(&name, "old").unwrap();
        let unnamed = new(&directory);
        let Err(NotNamed::No(error)) = unnamed.name(&name, false) else { panic!("named") };
        assert!(error.to_string().ends_with("File exists"), "{error}");
        assert_eq!(fs::read(&name).unwrap(), b"old");
        unnamed.name(&name, true).unwrap();
        assert_eq!(fs::read(&name).unwrap(), b"");
        drop(unnamed);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_image_that_has_its_name_is_named_whatever_the_call_said() {
        let directory = tempfile::tempdir().unwrap();
        let (unnamed, name) = (new(&directory), directory.path().join("a"));
        // As after linkat(2), and as where the first of two calls did it.
        fs::hard_link(unnamed.path.join(IMAGE), &name).unwrap();
        unnamed.name(&name, false).unwrap();
        drop(unnamed);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn another_file_in_its_place_is_neither_named_nor_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (unnamed, name) = (new(&directory), directory.path().join("a"));
        fs::remove_file(unnamed.path.join(IMAGE)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", unnamed.path.join(IMAGE)).unwrap();
        assert!(matches!(unnamed.name(&name, true), Err(NotNamed::No(_))));
        assert!(!name.exists());
        // The directory itself is found by its descriptor, not by its name.
        fs::rename(&unnamed.path, directory.path().join("moved")).unwrap();
        std::os::unix::fs::symlink("/etc", &unnamed.path).unwrap();
        assert!(fs::canonicalize(unnamed.for_children()).unwrap().ends_with("moved"));
        drop(unnamed);
        assert!(!directory.path().join(".a.strongroom-01234567").exists() && Path::new("/etc").is_dir());
    }
}
