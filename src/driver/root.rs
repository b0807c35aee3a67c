//! A root: the two directories a keystore lives in, as libvirt lays them out.
//!
//! `embed` roots are anywhere (`DIR/etc/secrets`, `DIR/run/secrets`); `system` and `session` are libvirt's own places, so
//! that scripts and backups find what they expect. Leans on `store` for the locks. Refuses relative paths, and makes what
//! is missing with mode 0700.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::secret::{Error, ErrorCode};
use crate::store::{Disk, KEYRING, KEYRING_RESTORED, LOG, LockError, RootLock, open_directory};

/// Where a keystore lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The keyring, the log and the `.xml` copies.
    pub etc: PathBuf,
    /// The lock and the rollback anchor.
    pub run: PathBuf,
    /// Where a daemon's sockets lie, unless it is told otherwise.
    pub sockets: PathBuf,
}

impl Root {
    /// `DIR/etc/secrets` and `DIR/run/secrets`. `DIR` must be absolute.
    pub fn embed(directory: &Path) -> Result<Self, Error> {
        if !directory.is_absolute() {
            return Err(Error::secret(ErrorCode::ConfigUnsupported, "root path must be absolute")
                .advise("say where the keystore lies: secret:///embed?root=/some/directory"));
        }
        let run = directory.join("run");
        Ok(Self { etc: directory.join("etc/secrets"), run: run.join("secrets"), sockets: run })
    }

    /// The system's: `/etc/libvirt/secrets` and `/run/libvirt/secrets`.
    pub fn system() -> Self {
        let sockets = PathBuf::from("/run/libvirt");
        Self { etc: "/etc/libvirt/secrets".into(), run: sockets.join("secrets"), sockets }
    }

    /// A user's, by the XDG base directories: `config` is `$XDG_CONFIG_HOME` or `~/.config`, `runtime` is
    /// `$XDG_RUNTIME_DIR` or `~/.cache`.
    pub fn session(config: &Path, runtime: &Path) -> Self {
        let sockets = runtime.join("libvirt");
        Self { etc: config.join("libvirt/secrets"), run: sockets.join("secrets/run"), sockets }
    }

    /// The session of the user whose environment this is.
    pub fn user() -> Result<Self, Error> {
        Self::in_environment(|name| env::var_os(name))
    }

    /// [`session`](Self::session), by the environment's variables. Those that are empty or relative count as unset, as
    /// the XDG base directory specification has it.
    fn in_environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let below_home = |name| absolute("HOME").map(|home| home.join(name));
        let config = absolute("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
        let runtime = absolute("XDG_RUNTIME_DIR")
            .or_else(|| absolute("XDG_CACHE_HOME"))
            .or_else(|| below_home(".cache"));
        match (config, runtime) {
            (Some(config), Some(runtime)) => Ok(Self::session(&config, &runtime)),
            _ => Err(Error::failed(
                "no directory for this user's keystore: the environment names no home directory",
            )
            .advise("set HOME, or both XDG_CONFIG_HOME and XDG_RUNTIME_DIR, to absolute paths")),
        }
    }

    /// Whether there is a keystore, or what is left of one. Makes nothing.
    pub fn has_keystore(&self) -> Result<bool, Error> {
        for file in [KEYRING, LOG, KEYRING_RESTORED] {
            let path = self.etc.join(file);
            if path.try_exists().map_err(|error| cannot("look for", &path, &error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether this file lies in it, so that a copy of the root has the file too.
    pub(super) fn holds(&self, file: &Path) -> bool {
        // `DIR/etc/secrets` is copied as DIR; the system's and the users' directories stand for themselves.
        let whole = self.etc.ends_with("etc/secrets").then(|| self.etc.ancestors().nth(2)).flatten();
        let whole = whole.unwrap_or(&self.etc).canonicalize();
        file.canonicalize().is_ok_and(|file| whole.is_ok_and(|whole| file.starts_with(whole)))
    }

    /// Makes the directories if they are missing, locks them for this process, and opens them.
    pub(super) fn acquire(&self) -> Result<(Disk, RootLock), Error> {
        for directory in [&self.etc, &self.run] {
            make_private(directory).map_err(|error| cannot("create config directory", directory, &error))?;
        }
        let lock = RootLock::acquire(&self.etc, &self.run).map_err(|error| match &error {
            LockError::InUse(_) => {
                Error::failed(format!("the keystore in '{}' is in use: {error}", self.etc.display())).advise(
                    "one process at a time has a keystore open: wait until that one is done, or end it",
                )
            }
            LockError::Io(path, cause) => cannot("lock", path, cause),
        })?;
        let open =
            |path: &Path| open_directory(path).map_err(|error| cannot("open the directory", path, &error));
        Ok((Disk { etc: open(&self.etc)?, run: open(&self.run)? }, lock))
    }
}

fn cannot(doing: &str, path: &Path, error: &io::Error) -> Error {
    let plain = Error::system(format!("cannot {doing} '{}'", path.display()), error);
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            plain.advise("run as the user who owns the keystore, or name a directory that you may write to")
        }
        io::ErrorKind::StorageFull => plain.advise("make room on this file system"),
        io::ErrorKind::ReadOnlyFilesystem => plain.advise("the keystore needs a writable file system"),
        _ => plain,
    }
}

/// A directory of ours alone: made with mode 0700, or narrowed to it.
fn make_private(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let about = std::fs::metadata(path)?;
    if about.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embedded_root_is_absolute_and_private() {
        assert!(Root::embed(Path::new("somewhere")).unwrap_err().to_string().contains("absolute"));
        let directory = tempfile::tempdir().unwrap();
        let root = Root::embed(&directory.path().join("new")).unwrap();
        let (_disk, _lock) = root.acquire().unwrap();
        for path in [&root.etc, &root.run] {
            assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o777, 0o700);
        }
        let error = root.acquire().err().unwrap();
        assert!(error.to_string().contains("in use"), "{error}");
    }

    #[test]
    fn a_users_root_follows_the_environment() {
        let root = |variables: &[(&str, &str)]| {
            let value = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            };
            Root::in_environment(value).map(|root| (root.etc, root.sockets))
        };
        let expected = |etc: &str, sockets: &str| Ok((PathBuf::from(etc), PathBuf::from(sockets)));
        let home = ("HOME", "/home/u");
        assert_eq!(root(&[home]), expected("/home/u/.config/libvirt/secrets", "/home/u/.cache/libvirt"));
        assert_eq!(
            root(&[home, ("XDG_RUNTIME_DIR", "/run/user/1"), ("XDG_CONFIG_HOME", "not/absolute")]),
            expected("/home/u/.config/libvirt/secrets", "/run/user/1/libvirt")
        );
        assert_eq!(
            root(&[("XDG_CACHE_HOME", "/cache"), ("XDG_CONFIG_HOME", "/config"), ("XDG_RUNTIME_DIR", "")]),
            expected("/config/libvirt/secrets", "/cache/libvirt")
        );
        assert!(root(&[("XDG_CONFIG_HOME", "/config")]).unwrap_err().advice().unwrap().contains("HOME"));
    }

    #[test]
    fn a_users_root_lies_where_libvirt_puts_it() {
        let root = Root::session(Path::new("/home/u/.config"), Path::new("/run/user/1"));
        assert_eq!(root.etc, Path::new("/home/u/.config/libvirt/secrets"));
        assert_eq!(root.run, Path::new("/run/user/1/libvirt/secrets/run"));
    }
}
