//! The key of libvirt's encrypted values: 32 raw bytes in a file, or the systemd credential.
//!
//! Leans on `memory`. Refuses a key file that others can read, and any other length, the trailing newline above all.

use std::env;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use secrecy::{ExposeSecret, ExposeSecretMut};

use crate::memory::SecretBytes;
use crate::secret::Error;

/// The key with which libvirt 12.1 and later encrypts values.
#[derive(Debug)]
pub struct LibvirtKey(SecretBytes);

impl LibvirtKey {
    /// The key in a file.
    pub fn read(file: &Path) -> Result<Self, Error> {
        Self::read_from(file, 0o077)
    }

    /// The key that the service manager gives: the credential `secrets-encryption-key`. `None` if it gives none.
    pub fn credential() -> Result<Option<Self>, Error> {
        let file =
            env::var_os("CREDENTIALS_DIRECTORY").map(|directory| Path::new(&directory).join(CREDENTIAL));
        // A group is of no harm here: the directory is the service's alone.
        file.filter(|file| file.exists()).map(|file| Self::read_from(&file, 0o007)).transpose()
    }

    /// These bytes, which must be 32.
    pub fn from_bytes(bytes: SecretBytes) -> Result<Self, Error> {
        match bytes.len() {
            LEN => Ok(Self(bytes)),
            len => Err(wrong_length("the key that was given", len as u64)),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.expose_secret()
    }

    fn read_from(path: &Path, others: u32) -> Result<Self, Error> {
        let shown = path.display();
        let reading = |error: &io::Error| Error::system(format!("cannot read the key file '{shown}'"), error);
        let file = open(path).map_err(|error| reading(&error))?;
        let about = file.metadata().map_err(|error| reading(&error))?;
        if !about.is_file() {
            return Err(Error::failed(format!("the key file '{shown}' is not a regular file"))
                .advise("name the file that holds the 32 bytes of libvirt's key"));
        }
        let us = rustix::process::geteuid().as_raw();
        if about.uid() != us && about.uid() != 0 {
            let detail = format!("the key file '{shown}' belongs to another user (uid {})", about.uid());
            return Err(Error::failed(detail).advise("take a copy that is yours, mode 0600"));
        }
        if about.mode() & others != 0 {
            let mode = about.mode() & 0o7777;
            let detail = format!("the key file '{shown}' can be read or changed by others (mode {mode:04o})");
            return Err(Error::failed(detail).advise(format!(
                "if nobody else has had it, run: chmod 600 '{shown}'; else its values are known to others"
            )));
        }
        if about.len() != LEN as u64 {
            return Err(wrong_length(&format!("the key file '{shown}'"), about.len()));
        }
        let mut bytes = SecretBytes::zeroed(LEN)?;
        file.read_exact_at(bytes.expose_secret_mut(), 0).map_err(|error| reading(&error))?;
        Ok(Self(bytes))
    }
}

/// A FIFO in the key's place must not make us wait.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
}

fn wrong_length(what: &str, len: u64) -> Error {
    let advice = match len {
        33 => "one byte too many is most often a newline at the end; cut it off with: head -c 32 OLD > NEW",
        43..=46 => "this looks like base64; the file holds the raw bytes: base64 -d OLD > NEW",
        64..=66 => "this looks like hexadecimal; the file holds the raw bytes: xxd -r -p OLD > NEW",
        _ => "take the file that libvirt's setting secrets_encryption_key names, byte for byte",
    };
    Error::failed(format!("{what} has {len} bytes; libvirt's key is exactly {LEN} raw bytes")).advise(advice)
}

/// AES-256's.
const LEN: usize = 32;

/// The systemd credential that libvirt 12.1 looks for.
const CREDENTIAL: &str = "secrets-encryption-key";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(contents: &[u8], mode: u32) -> Result<LibvirtKey, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        LibvirtKey::read(&path)
    }

    #[test]
    fn a_key_is_32_raw_bytes_and_private() {
        assert_eq!(read(&[9; 32], 0o600).unwrap().bytes(), [9; 32]);
        let error = read(&[9; 32], 0o640).unwrap_err();
        assert!(error.to_string().contains("mode 0640"), "{error}");
        assert!(LibvirtKey::read(Path::new("/nowhere/key")).is_err());
        assert!(LibvirtKey::read(Path::new("/")).unwrap_err().to_string().contains("regular file"));
    }

    #[test]
    fn a_newline_behind_the_key_is_named() {
        let error = read(&[9; 33], 0o600).unwrap_err();
        assert!(error.to_string().contains("33 bytes"), "{error}");
        assert!(error.advice().unwrap().contains("newline"), "{error:?}");
        assert!(read(&[b'a'; 64], 0o600).unwrap_err().advice().unwrap().contains("hexadecimal"));
        assert!(LibvirtKey::from_bytes(SecretBytes::zeroed(31).unwrap()).is_err());
    }
}
