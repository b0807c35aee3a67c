//! The host key: where it is looked for, how it is read, and how it is made.
//!
//! In this order: a file that was named; else the systemd credential `secrets-encryption-key`, and the default file
//! (`/etc/strongroom/host.key`, for users `$XDG_CONFIG_HOME/strongroom/host.key`). Leans on `memory`: the 32 bytes are
//! read into secret memory and nowhere else. Refuses a key file that others can read, and never makes a key where a
//! keyring exists: a lost key is not replaced, it is reported.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, ExposeSecretMut};

use crate::memory::SecretBytes;
use crate::seal::{HostKey, LABEL_LEN};
use crate::secret::Error;

/// The name of the systemd credential, the one libvirt 12.x uses.
pub(crate) const CREDENTIAL: &str = "secrets-encryption-key";

/// A place where a host key may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) credential: bool,
}

impl Place {
    /// Its slot's label: the path, or the end of a long one.
    pub(super) fn label(&self) -> String {
        let path = self.path.display().to_string();
        if path.len() <= LABEL_LEN {
            return path;
        }
        let end = (path.len() + 3 - LABEL_LEN..path.len()).find_map(|from| path.get(from..));
        format!("...{}", end.unwrap_or_default())
    }
}

/// The places to look at: the one that was named, or the usual ones.
pub(super) fn places(named: Option<&Path>) -> Vec<Place> {
    if let Some(path) = named {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.into()); // its label is read elsewhere, later
        return vec![Place { path, credential: false }];
    }
    let credential =
        env::var_os("CREDENTIALS_DIRECTORY").map(|directory| Path::new(&directory).join(CREDENTIAL));
    let credential = credential.filter(|path| path.exists()).map(|path| Place { path, credential: true });
    let default = default_path().map(|path| Place { path, credential: false });
    credential.into_iter().chain(default).collect()
}

/// Where the host key is if nobody says otherwise. `None` if there is no home directory to look in.
fn default_path() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some("/etc/strongroom/host.key".into());
    }
    let absolute = |path: &PathBuf| path.is_absolute();
    let config = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(absolute);
    let config =
        config.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".config")).filter(absolute));
    config.map(|config| config.join("strongroom/host.key"))
}

/// Reads the key at a place: `Ok(None)` if there is no file.
pub(super) fn read(place: &Place) -> Result<Option<HostKey>, Error> {
    let wrong_length = |what: &str, len: u64| {
        Error::failed(format!("{what} holds {len} bytes; a host key is exactly 32"))
            .advise("put back the key as it was made: 32 raw bytes, no newline behind them")
    };
    let bytes = read_key_file(&place.path, place.credential, "the host key", wrong_length)?;
    Ok(bytes.and_then(HostKey::from_bytes))
}

/// The 32 bytes of a file that its owner alone may see: `Ok(None)` if there is none. `whose` key it holds, and what to say
/// of another length, is for the caller to know. A credential's directory is its service's own, so a group is of no harm.
pub(crate) fn read_key_file(
    path: &Path,
    credential: bool,
    whose: &str,
    wrong_length: impl FnOnce(&str, u64) -> Error,
) -> Result<Option<SecretBytes>, Error> {
    let shown = path.display();
    let file = match OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let plain = Error::system(format!("cannot open the key file '{shown}'"), &error);
            return Err(match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    plain.advise("run as the user who owns the key file, or name one of your own")
                }
                _ => plain,
            });
        }
    };
    let reading = |error: &io::Error| Error::system(format!("cannot read the key file '{shown}'"), error);
    let about = file.metadata().map_err(|error| reading(&error))?;
    if !about.is_file() {
        return Err(Error::failed(format!("the key file '{shown}' is not a regular file"))
            .advise(format!("name the file that holds the 32 bytes of {whose}")));
    }
    let (owner, us) = (about.uid(), rustix::process::geteuid().as_raw());
    if owner != us && owner != 0 {
        return Err(Error::failed(format!("the key file '{shown}' belongs to another user (uid {owner})"))
            .advise("whoever owns it can read and replace it: take a key of your own"));
    }
    if about.mode() & if credential { 0o007 } else { 0o077 } != 0 {
        let mode = about.mode() & 0o7777;
        return Err(Error::failed(format!(
            "the key file '{shown}' can be read or changed by others (mode {mode:04o})"
        ))
        .advise(format!("if nobody else has had it, run: chmod 600 '{shown}'; otherwise replace the key")));
    }
    if about.len() != 32 {
        return Err(wrong_length(&format!("the key file '{shown}'"), about.len()));
    }
    let mut bytes = SecretBytes::zeroed(32)?;
    file.read_exact_at(bytes.expose_secret_mut(), 0).map_err(|error| reading(&error))?;
    Ok(Some(bytes))
}

/// The key at a place, made if there is none: durable, mode 0600, and never in the place of another.
pub(super) fn read_or_make(place: &Place) -> Result<HostKey, Error> {
    if let Some(key) = read(place)? {
        return Ok(key);
    }
    let key = HostKey::random().map_err(|error| Error::failed(error.to_string()))?;
    let made = make(place, &key);
    if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
        && let Some(others) = read(place)?
    {
        return Ok(others); // somebody made one just now
    }
    made.map_err(|error| {
        let plain = Error::system(format!("cannot make the key file '{}'", place.path.display()), &error);
        plain.advise("name a place that you may write to with --key-file FILE")
    })?;
    Ok(key)
}

fn make(place: &Place, key: &HostKey) -> io::Result<()> {
    let directory = place.path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // Written beside its name and linked to it: a half-written key is never found, an existing one never replaced.
    let beside = place.path.with_extension(format!("new-{}", std::process::id()));
    // What has this name was left by a process that is no more: its pid is ours now.
    _ = std::fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written = file
        .write_all(key.bytes().expose_secret())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::hard_link(&beside, &place.path));
    std::fs::remove_file(&beside)?;
    written?;
    File::open(directory)?.sync_all()
}

/// A FIFO in the key's place must not make us wait.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn place(path: PathBuf) -> Place {
        Place { path, credential: false }
    }

    #[test]
    fn a_key_is_made_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path().join("a/b/host.key"));
        assert!(read(&place).unwrap().is_none());
        let made = read_or_make(&place).unwrap();
        let again = read_or_make(&place).unwrap();
        assert_eq!(made.bytes().expose_secret(), again.bytes().expose_secret());
        assert_eq!(std::fs::metadata(&place.path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(place.path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_can_read_or_of_another_length_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path().join("host.key"));
        std::fs::write(&place.path, [7; 33]).unwrap();
        std::fs::set_permissions(&place.path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(read(&place).unwrap_err().to_string().contains("mode 0640"));
        std::fs::set_permissions(&place.path, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(read(&place).unwrap_err().to_string().contains("33 bytes"));
    }
}
