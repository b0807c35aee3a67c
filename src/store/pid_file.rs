//! A file with our process id in it, locked as libvirt locks its own: whoever comes second learns who is there.
//!
//! The lock is a POSIX one, for libvirt's drivers and daemons test for that. Leans on rustix. Refuses to break a
//! lock, and to follow a link or to wait for the other end of a FIFO where the file should be.
//!
//! A process loses such a lock when it closes *any* descriptor of the file: nothing else in this process may open it.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, fcntl_lock};

use super::LockError;

/// The file and its lock. Dropped, the one is removed and the other ends.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    file: File,
    owner: u32,
}

impl PidFile {
    /// Makes it, locks it, and writes our process id into it.
    pub(crate) fn acquire(path: &Path) -> Result<Self, LockError> {
        let failed = |error: io::Error| LockError::Io(path.to_owned(), error);
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(MODE)
                .custom_flags(FLAGS)
                .open(path)
                .map_err(failed)?;
            if let Err(error) = fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                let error = io::Error::from(error);
                let held =
                    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied);
                return Err(if held { LockError::InUse(pid_in(&mut file)) } else { failed(error) });
            }
            // Whoever held it may have removed it in between: then this file has no name, and the lock is worth nothing.
            if is_named(&file, path) {
                write_pid(&mut file).map_err(failed)?;
                return Ok(Self { path: path.to_owned(), file, owner: std::process::id() });
            }
        }
    }

    /// Whether this process made it. A forked child has a copy, which is no lock.
    pub(super) fn is_ours(&self) -> bool {
        self.owner == std::process::id()
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // While it is still locked. Whoever opened it before it went finds out, above, that it has no name.
        if self.is_ours() && is_named(&self.file, &self.path) {
            _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Our process id and nothing else, readable by all whatever the umask.
fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    match write!(file, "{}", std::process::id()) {
        // Whose lock it is can't be told while the disk is full. It holds all the same, and secrets can be read.
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            Ok(())
        }
        written => written,
    }
}

/// Whether this very file has this name.
fn is_named(file: &File, path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|named| {
        file.metadata().is_ok_and(|ours| (named.dev(), named.ino()) == (ours.dev(), ours.ino()))
    })
}

fn pid_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// libvirt's.
const MODE: u32 = 0o644;

/// Neither to be led elsewhere by a link, nor to wait for the other end of a FIFO.
const FLAGS: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits() as i32;

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn it_holds_the_pid_alone_and_goes_with_its_owner() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("a.pid");
        std::fs::write(&path, "123456789 of one who died").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let file = PidFile::acquire(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn neither_a_link_nor_a_fifo_is_taken_for_it() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("a.pid");
        std::os::unix::fs::symlink(at.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(PidFile::acquire(&path), Err(LockError::Io(..))), "a link is not followed");
        assert!(!at.path().join("elsewhere").exists());
        std::fs::remove_file(&path).unwrap();
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(matches!(PidFile::acquire(&path), Err(LockError::Io(..))));
    }

    #[test]
    fn a_forked_childs_copy_removes_nothing_nor_does_one_whose_name_is_anothers() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("a.pid");
        let mut copy = PidFile::acquire(&path).unwrap();
        copy.owner += 1;
        drop(copy);
        assert!(path.exists());
        let first = PidFile::acquire(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _second = PidFile::acquire(&path).unwrap();
        drop(first);
        assert!(path.exists(), "it is the second one's");
    }
}
