//! One process a root: two locks that nobody else gets while they are held.
//!
//! An exclusive flock(2) on the `etc/secrets` directory keeps other Strongrooms out, and libvirt's own POSIX lock on
//! `run/secrets/driver.pid` keeps libvirt's driver out (and us out of a root that it has open). Leans on fs2 and
//! `pid_file`. Refuses to break a lock: the second comer is told who has it.
//!
//! A process loses its POSIX lock when it closes *any* descriptor of that file. So the flock, which has no such trap,
//! comes first and goes last, and whoever doesn't have it doesn't touch `driver.pid`.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::pid_file::PidFile;

const PID_FILE: &str = "driver.pid";

/// Both locks. They end when this is dropped.
#[derive(Debug)]
pub struct RootLock {
    /// There until the end.
    pid_file: Option<PidFile>,
    etc: File,
}

/// Why a lock is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it, and which, if that can be told.
    #[error("{}", in_use(*.0))]
    InUse(Option<u32>),
    /// It can't be taken.
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
        let pid_file = PidFile::acquire(&run.join(PID_FILE))?;
        Ok(Self { pid_file: Some(pid_file), etc: directory })
    }
}

impl Drop for RootLock {
    fn drop(&mut self) {
        // A forked child's copy ends nothing: the locks are the parent's.
        let Some(pid_file) = self.pid_file.take().filter(PidFile::is_ours) else { return };
        // Removed and closed while nobody else here can open it: whoever has the flock next does so at once.
        drop(pid_file);
        // Closing is not enough: while another thread starts a program, its fork holds a copy of every descriptor until it
        // gets to exec, and an flock lasts as long as the last copy. Unlocking ends it for all of them.
        _ = rustix::fs::flock(&self.etc, FlockOperation::Unlock);
    }
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

    #[test]
    fn nothing_of_the_pid_file_is_left_when_the_next_one_gets_in() {
        let root = tempfile::tempdir().unwrap();
        let pid_path = &root.path().join(PID_FILE);
        let is_open = &|| {
            let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
            let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
            targets.into_iter().any(|target| target.starts_with(root.path()) && target != root.path())
        };
        for _ in 0..200 {
            let lock = RootLock::acquire(root.path(), root.path()).unwrap();
            assert!(is_open());
            let next = &File::open(root.path()).unwrap();
            std::thread::scope(|scope| {
                let (say, waits) = std::sync::mpsc::channel();
                let waiting = scope.spawn(move || {
                    // As impatient as can be, to catch the moment in between if there is one.
                    while rustix::fs::flock(next, FlockOperation::NonBlockingLockExclusive).is_err() {
                        _ = say.send(());
                    }
                    let left = (pid_path.exists(), is_open());
                    rustix::fs::flock(next, FlockOperation::Unlock).unwrap(); // for copies in forks too
                    left
                });
                waits.recv().unwrap();
                drop(lock);
                assert_eq!(waiting.join().unwrap(), (false, false));
            });
        }
    }
}
