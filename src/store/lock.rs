//! One process a root: two locks that nobody else gets while they are held.
//!
//! An exclusive flock(2) on the `etc/secrets` directory keeps other Strongrooms out, and libvirt's own POSIX lock on
//! `run/secrets/driver.pid` keeps libvirt's driver out (and us out of a root that it has open). Leans on fs2 and
//! rustix. Refuses to break a lock: the second comer is told who has it.
//!
//! A process loses its POSIX lock when it closes *any* descriptor of that file. So the flock, which has no such trap,
//! comes first, and whoever fails to get it doesn't touch `driver.pid`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};

const PID_FILE: &str = "driver.pid";

/// Both locks. They end when this is dropped.
#[derive(Debug)]
pub struct RootLock {
    pid_path: PathBuf,
    owner: u32,
    _pid_file: File,
    etc: File,
}

/// Why the root is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it, and which, if that can be told.
    #[error("{}", in_use(*.0))]
    InUse(Option<u32>),
    /// The locks can't be taken.
    #[error("cannot lock '{0}'")]
    Io(PathBuf, #[source] io::Error),
}

impl RootLock {
    /// Takes both locks. `etc` and `run` are the root's two directories.
    pub fn acquire(etc: &Path, run: &Path) -> Result<Self, LockError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| LockError::Io(path, error)
        };
        let directory = File::open(etc).map_err(failed(etc))?;
        match fs2::FileExt::try_lock_exclusive(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(LockError::InUse(flock_holder(&directory)));
            }
            Err(error) => return Err(failed(etc)(error)),
        }
        let pid_path = run.join(PID_FILE);
        let pid_file = lock_pid_file(&pid_path)?;
        Ok(Self { pid_path, owner: std::process::id(), _pid_file: pid_file, etc: directory })
    }
}

impl Drop for RootLock {
    fn drop(&mut self) {
        // A forked child's copy ends nothing: the locks are the parent's.
        if self.owner != std::process::id() {
            return;
        }
        // As libvirt does. Whoever opened the file before it went finds out by comparing inodes, below.
        _ = std::fs::remove_file(&self.pid_path);
        // Closing is not enough: while another thread starts a program, its fork holds a copy of every descriptor until it
        // gets to exec, and an flock lasts as long as the last copy. Unlocking ends it for all of them.
        _ = rustix::fs::flock(&self.etc, FlockOperation::Unlock);
    }
}

/// Locks `driver.pid` as libvirt's driver would, and writes our pid into it.
fn lock_pid_file(path: &Path) -> Result<File, LockError> {
    let failed = |error: io::Error| LockError::Io(path.to_owned(), error);
    loop {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)
            .map_err(failed)?;
        if let Err(error) = fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            let error = io::Error::from(error);
            let held = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied);
            return Err(if held { LockError::InUse(pid_in(&mut file)) } else { failed(error) });
        }
        // The one who held it may have removed it in between: then this is a file without a name, and no lock.
        let is_there = std::fs::metadata(path).is_ok_and(|named| {
            file.metadata().is_ok_and(|ours| (named.dev(), named.ino()) == (ours.dev(), ours.ino()))
        });
        if is_there {
            // Whose lock it is can't be told while the disk is full. It holds all the same, and secrets can be read.
            return match file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())) {
                Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(failed(error)),
                _ => Ok(file),
            };
        }
    }
}

fn pid_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Who has the flock on this directory, as the kernel lists it.
fn flock_holder(directory: &File) -> Option<u32> {
    let about = directory.metadata().ok()?;
    let (major, minor) = (rustix::fs::major(about.dev()), rustix::fs::minor(about.dev()));
    let file_name = format!("{major:02x}:{minor:02x}:{}", about.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let holder = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, file, ..] = fields[..] else { return None };
        (file == file_name).then(|| pid.parse::<u32>().ok())?
    });
    holder.filter(|&pid| pid != 0)
}

fn in_use(pid: Option<u32>) -> String {
    match pid {
        Some(pid) if pid == std::process::id() => "this process has it open already".to_owned(),
        Some(pid) => format!("process {pid} has it open"),
        None => "another process has it open".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_comer_is_told_who_was_first() {
        let root = tempfile::tempdir().unwrap();
        let first = RootLock::acquire(root.path(), root.path()).unwrap();
        let pid_path = root.path().join(PID_FILE);
        assert_eq!(std::fs::read_to_string(&pid_path).unwrap(), std::process::id().to_string());
        let Err(LockError::InUse(pid)) = RootLock::acquire(root.path(), root.path()) else { panic!() };
        assert_eq!(pid, Some(std::process::id()));
        drop(first);
        assert!(!pid_path.exists());
        RootLock::acquire(root.path(), root.path()).unwrap();
    }

    #[test]
    fn a_copy_of_the_descriptor_in_a_fork_keeps_nobody_out() {
        let root = tempfile::tempdir().unwrap();
        let lock = RootLock::acquire(root.path(), root.path()).unwrap();
        let in_a_fork = lock.etc.try_clone().unwrap();
        drop(lock);
        RootLock::acquire(root.path(), root.path()).unwrap();
        drop(in_a_fork);
    }
}
