//! A file of sealed bytes on its way out: a backup, a copy of the keyring.
//!
//! Written beside its name and given it when all of it is durable, so that a half-written copy is never taken for a
//! whole one. Leans on std. Refuses to replace a file: the last copy may be the only good one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::cli::failure::Failure;

/// What is being written.
pub(super) struct SealedFile<'a> {
    out: Box<dyn Write + 'a>,
    shown: String,
    to_file: bool,
}

impl SealedFile<'_> {
    /// Writes the next bytes.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|error| {
            let plain = Failure::system(format_args!("cannot write {}", self.shown), &error);
            match self.to_file {
                true => plain.advise("nothing is left of the copy; see that there is room, and try again"),
                false => plain.advise("the copy is not whole: throw it away, and take it again"),
            }
        })
    }
}

/// Whether this means standard output.
pub(super) fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Writes a file, mode 0600, whole or not at all; `-` is standard output.
pub(super) fn write<T>(
    path: &Path,
    fill: impl FnOnce(&mut SealedFile<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if is_stdout(path) {
        let stdout = io::stdout().lock();
        return fill(&mut SealedFile {
            out: Box::new(stdout),
            shown: "standard output".to_owned(),
            to_file: false,
        });
    }
    let shown = format!("'{}'", path.display());
    let failed = |error: io::Error| Failure::system(format_args!("cannot write {shown}"), &error);
    if path.symlink_metadata().is_ok() {
        return Err(already_there(path));
    }
    let unfinished = Unfinished::beside(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            failed(error).advise("name a directory that is there, and yours to write in")
        }
        _ => failed(error),
    })?;
    let result =
        fill(&mut SealedFile { out: Box::new(&unfinished.file), shown: shown.clone(), to_file: true })?;
    unfinished.file.sync_all().map_err(failed)?;
    give_name(&unfinished.path, path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => already_there(path),
        _ => failed(error),
    })?;
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    drop(unfinished);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    Ok(result)
}

/// Gives a file its name. Whoever has made one of this name meanwhile keeps it.
fn give_name(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system has it; those without hard links mostly do.
        Err(Errno::INVAL | Errno::NOSYS) => std::fs::hard_link(from, to),
        renamed => Ok(renamed?),
    }
}

fn already_there(path: &Path) -> Failure {
    Failure::told(format!("'{}' is there already", path.display()))
        .advise("name another file: a copy is never written over another")
}

/// A file that goes with this, unless it got a name of its own.
struct Unfinished {
    path: PathBuf,
    file: File,
}

impl Unfinished {
    fn beside(path: &Path) -> io::Result<Self> {
        let mut name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
        name.push(format!(".unfinished-{}", std::process::id()));
        let path = path.with_file_name(name);
        // What has this name was left by a process that is no more: its pid is ours now.
        _ = std::fs::remove_file(&path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path, file })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_copy_is_there_whole_or_not_at_all_and_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy");
        write(&path, |file| file.put(b"half").and(Err::<(), _>(Failure::told("no")))).unwrap_err();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        write(&path, |file| file.put(b"whole")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        write(&path, |file| file.put(b"another")).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
