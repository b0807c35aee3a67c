//! Files and directories as the store needs them: the one door to the disk.
//!
//! [`Directory`] and [`File`] are the small traits below which tests plant faults and power cuts; [`open_directory`] is
//! the real thing. Leans on rustix: every name is opened relative to a directory that is held open, symbolic links are
//! not followed, and a new file has mode 0600 from its first byte. Refuses to retry: an error is the caller's to judge.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// The two directories of a root.
#[derive(Clone)]
pub struct Disk {
    /// `etc/secrets`: the keyring, the log, the `.xml` copies.
    pub etc: Arc<dyn Directory>,
    /// `run/secrets`: the rollback anchor.
    pub run: Arc<dyn Directory>,
}

/// A directory that is held open. Names are plain: no slashes.
pub trait Directory: Send + Sync {
    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Makes a new file, mode 0600. Fails if there is one of this name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name, in the place of whatever had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file a second name. Fails if there is one of this name.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Calls `each` with every name in it that is UTF-8; ours all are.
    fn names(&self, each: &mut dyn FnMut(&str)) -> io::Result<()>;
    /// Returns when its entries are durable.
    fn sync(&self) -> io::Result<()>;
    /// Returns when every file of its file system is durable, contents and entries.
    fn sync_all(&self) -> io::Result<()>;
}

/// An open file. A view for reading alone implements the first two, and refuses the rest.
pub trait File: Send + Sync {
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Fills `bytes` from `at` on; an error if the file ends before.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `at`.
    fn write_at(&self, _bytes: &[u8], _at: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Cuts the file, or lengthens it with zeros.
    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Returns when its contents and length are durable.
    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether a directory still has it, under any name. What can't tell says so.
    fn is_named(&self) -> io::Result<bool> {
        Ok(true)
    }
}

/// Opens a real directory.
pub fn open_directory(path: &Path) -> io::Result<Arc<dyn Directory>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let descriptor = fs::open(path, flags, Mode::empty())?;
    Ok(Arc::new(RealDirectory(descriptor)))
}

/// Opens a real file that is nowhere in particular, for reading only. Refuses what is no plain file.
pub(super) fn open_outside(path: &Path) -> io::Result<Arc<dyn File>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(Arc::new(RealFile(file)))
}

struct RealDirectory(OwnedFd);

impl RealDirectory {
    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<Arc<dyn File>> {
        let flags = flags | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Arc::new(RealFile(descriptor.into())))
    }
}

impl Directory for RealDirectory {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.open_file(name, OFlags::empty())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.open_file(name, OFlags::CREATE | OFlags::EXCL)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(fs::renameat(&self.0, from, &self.0, to)?)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(fs::linkat(&self.0, from, &self.0, to, AtFlags::empty())?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    fn names(&self, each: &mut dyn FnMut(&str)) -> io::Result<()> {
        for entry in fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => each(name),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.0)?)
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.0)?)
    }
}

struct RealFile(std::fs::File);

impl File for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, bytes, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, at)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn is_named(&self) -> io::Result<bool> {
        Ok(std::os::unix::fs::MetadataExt::nlink(&self.0.metadata()?) > 0)
    }
}

/// A file on a disk that is failing: where it can't be read there are zeros. For whoever keeps what is left.
pub(super) struct Failing {
    file: Arc<dyn File>,
    met: AtomicBool,
}

impl Failing {
    pub(super) fn new(file: Arc<dyn File>) -> Self {
        Self { file, met: AtomicBool::new(false) }
    }

    /// Whether anything couldn't be read.
    pub(super) fn met(&self) -> bool {
        self.met.load(Ordering::Relaxed)
    }
}

impl File for Failing {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let errors = [Errno::IO, Errno::BADMSG, Errno::UCLEAN].map(|error| Some(error.raw_os_error()));
        let is_the_disks = |error: &io::Error| errors.contains(&error.raw_os_error());
        match self.file.read_at(bytes, at) {
            Err(error) if is_the_disks(&error) => {}
            read => return read,
        }
        let (mut at, mut rest) = (at, bytes);
        while !rest.is_empty() {
            // To the next boundary: a bad sector takes no byte of another one with it.
            let len = SECTOR - usize::try_from(at % SECTOR as u64).unwrap_or(0);
            let (sector, behind) = rest.split_at_mut(len.min(rest.len()));
            match self.file.read_at(sector, at) {
                Err(error) if is_the_disks(&error) => {
                    self.met.store(true, Ordering::Relaxed);
                    sector.fill(0);
                }
                read => read?,
            }
            at += sector.len() as u64;
            rest = behind;
        }
        Ok(())
    }
}

/// No disk reads less at once.
const SECTOR: usize = 512;

/// The whole of a file, if it is no longer than `limit`.
pub(super) fn read_whole(file: &dyn File, limit: usize) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.size()?).ok().filter(|&len| len <= limit);
    let len = len.ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large"))?;
    let mut bytes = vec![0; len];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Makes a new file, in the place of what an earlier try may have left.
pub(super) fn create_anew(directory: &dyn Directory, name: &str) -> io::Result<Arc<dyn File>> {
    match directory.create(name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            directory.remove(name)?;
            directory.create(name)
        }
        created => created,
    }
}

/// Why a file was not replaced.
pub(super) enum ReplaceError {
    /// The file is as it was.
    Unchanged(io::Error),
    /// Which of the two a power cut would leave is unknown.
    Unknown(io::Error),
}

/// Puts a file in the place of `name`, whole or not at all: written beside it, synced, renamed, and the directory
/// synced.
pub(super) fn replace(directory: &dyn Directory, name: &str, bytes: &[u8]) -> Result<(), ReplaceError> {
    let beside = format!("{name}.new");
    let write = || {
        let file = create_anew(directory, &beside)?;
        file.write_at(bytes, 0)?;
        file.sync()
    };
    write().map_err(|error| {
        // What was written is of no use. If it can't be removed now, the next replacement does it.
        _ = directory.remove(&beside);
        ReplaceError::Unchanged(error)
    })?;
    directory.rename(&beside, name).map_err(ReplaceError::Unknown)?;
    directory.sync().map_err(ReplaceError::Unknown)
}
