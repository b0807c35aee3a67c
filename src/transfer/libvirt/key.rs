//! The key of libvirt's encrypted values: 32 raw bytes in a file, or the systemd credential.
//!
//! Leans on `driver`, which reads key files. Refuses a key file that others can read, and any other length, the trailing
//! newline above all.

use std::env;
use std::path::Path;

use secrecy::ExposeSecret;

use crate::driver::{CREDENTIAL, read_key_file};
use crate::memory::SecretBytes;
use crate::secret::Error;

/// The key with which libvirt 12.1 and later encrypts values.
#[derive(Debug)]
pub struct LibvirtKey(SecretBytes);

impl LibvirtKey {
    /// The key in a file.
    pub fn read(file: &Path) -> Result<Self, Error> {
        Self::read_from(file, false)?.ok_or_else(|| {
            Error::failed(format!("no key file '{}'", file.display())).advise("mind the spelling")
        })
    }

    /// The key that the service manager gives: the credential `secrets-encryption-key`. `None` if it gives none.
    pub fn credential() -> Result<Option<Self>, Error> {
        let file =
            env::var_os("CREDENTIALS_DIRECTORY").map(|directory| Path::new(&directory).join(CREDENTIAL));
        file.map_or(Ok(None), |file| Self::read_from(&file, true))
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

    fn read_from(path: &Path, credential: bool) -> Result<Option<Self>, Error> {
        Ok(read_key_file(path, credential, "libvirt's key", wrong_length)?.map(Self))
    }
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
