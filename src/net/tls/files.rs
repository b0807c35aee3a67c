//! Where certificates, their keys and revocation lists lie, and how they are read.
//!
//! The places are libvirt's. Private keys are read and decoded in secret memory; what rustls parses from them is its own,
//! in ordinary memory, for as long as the context lives. Leans on `memory`, on `secret` for base64 and on rustls' reader of
//! PEM. Refuses files that are longer than any of these is (64 KiB) and CA files with more than 16 certificates.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer,
    PrivateSec1KeyDer,
};
use secrecy::{ExposeSecret, ExposeSecretMut};

use super::error::TlsError;
use super::named::Certificates;
use super::scalar;
use super::verify::Side;
use crate::memory::SecretBytes;
use crate::secret::Base64;

/// Where they lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    /// The CAs whose certificates are accepted.
    pub(crate) ca: PathBuf,
    /// What they have revoked. In its usual place a file that isn't there is a list that nobody has made.
    pub(crate) crl: Option<PathBuf>,
    /// It was named: the file must be there.
    pub(crate) crl_is_named: bool,
    /// One's own certificates, each with its key. Those of a client may be missing.
    pub(crate) own: Vec<(PathBuf, PathBuf)>,
}

impl Files {
    /// A server's usual places. `home`: a user's; root has none.
    pub(crate) fn server(home: Option<&Path>) -> Self {
        Self::usual(Side::Server, home)
    }

    /// A client's places: those in `pkipath`, or the usual ones.
    pub(crate) fn client(pkipath: Option<&Path>, home: Option<&Path>) -> Self {
        pkipath.map_or_else(
            || Self::usual(Side::Client, home),
            |directory| Self::within(directory, Side::Client),
        )
    }

    /// The same, but for what the server's configuration names. With a CA of its own there is no list in the usual place.
    pub(crate) fn with(mut self, named: &Certificates) -> Self {
        if let Some((ca, own)) = &named.own {
            self = Self { ca: ca.clone(), crl: None, crl_is_named: false, own: own.clone() };
        }
        if named.crl.is_some() {
            (self.crl, self.crl_is_named) = (named.crl.clone(), true);
        }
        self
    }

    /// All in one directory.
    pub(super) fn within(directory: &Path, side: Side) -> Self {
        Self {
            ca: directory.join("cacert.pem"),
            crl: Some(directory.join("cacrl.pem")),
            crl_is_named: false,
            own: vec![(directory.join(format!("{side}cert.pem")), directory.join(format!("{side}key.pem")))],
        }
    }

    fn usual(side: Side, home: Option<&Path>) -> Self {
        let mut files = Self {
            ca: "/etc/pki/CA/cacert.pem".into(),
            crl: Some("/etc/pki/CA/cacrl.pem".into()),
            crl_is_named: false,
            own: vec![(
                format!("{SYSTEM}/{side}cert.pem").into(),
                format!("{SYSTEM}/private/{side}key.pem").into(),
            )],
        };
        // Each of them by itself; certificate and key as a pair.
        let Some(home) = home else { return files };
        let users = Self::within(&home.join(".pki/libvirt"), side);
        if users.ca.exists() {
            files.ca = users.ca;
        }
        if users.crl.as_ref().is_some_and(|crl| crl.exists()) {
            files.crl = users.crl;
        }
        match users.own.iter().map(|(certificate, key)| (certificate.exists(), key.exists())).next() {
            Some((true, true)) => files.own = users.own,
            // It is passed over, but not without a word.
            Some((true, false) | (false, true)) if side == Side::Client => {
                files.own.splice(..0, users.own);
            }
            _ => {}
        }
        files
    }

    /// The revocation lists.
    pub(super) fn revocation_lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        match &self.crl {
            None => Ok(Vec::new()),
            Some(crl) if self.crl_is_named => lists_in(crl),
            Some(crl) => revocation_lists(crl),
        }
    }
}

/// The certificates in a file, in its order.
pub(super) fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = text(what, path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = read.map_err(|error| garbled(what, path, &error.to_string()))?;
    match certificates.len() {
        0 => Err(garbled(what, path, "there is no certificate in it")),
        1..=MAX_CERTIFICATES => Ok(certificates),
        many => {
            Err(garbled(what, path, &format!("it holds {many} certificates, more than {MAX_CERTIFICATES}")))
        }
    }
}

/// The revocation lists in a file; none if there is no file.
pub(super) fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    if matches!(path.try_exists(), Ok(false)) { Ok(Vec::new()) } else { lists_in(path) }
}

fn lists_in(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let what = "CA revocation list";
    let text = text(what, path)?;
    let read: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&text).collect();
    let lists = read.map_err(|error| garbled(what, path, &error.to_string()))?;
    if lists.is_empty() { Err(garbled(what, path, "there is no list in it")) } else { Ok(lists) }
}

/// A private key, as DER in secret memory.
pub(super) struct Key {
    form: Form,
    der: SecretBytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Pkcs1,
    Pkcs8,
    Sec1,
}

impl Key {
    /// Reads the first key in a file.
    pub(super) fn read(path: &Path) -> Result<Self, TlsError> {
        let unreadable = |error: &io::Error| TlsError::unreadable("private key", path, error);
        let mut file = open(path).map_err(|error| unreadable(&error))?;
        let no_memory = |exhausted: crate::memory::Exhausted| {
            TlsError::new(format!("Cannot read private key '{}': {exhausted}", path.display()))
                .advise("let this process lock more memory (RLIMIT_MEMLOCK)")
        };
        // One byte more than it may have is asked for, to see that there is none.
        let mut text = SecretBytes::zeroed(MAX_FILE + 1).map_err(no_memory)?;
        let mut length = 0;
        while length <= MAX_FILE {
            match file.read(&mut text.expose_secret_mut()[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(&error)),
            }
        }
        if length > MAX_FILE {
            return Err(garbled("private key", path, "it is longer than 64 KiB"));
        }
        text.truncate(length);
        let (form, body) = section(text.expose_secret()).map_err(|why| garbled("private key", path, why))?;
        let mut der = SecretBytes::zeroed(body.len() / 4 * 3 + 3).map_err(no_memory)?;
        let mut length = 0;
        let mut reader = Base64::default();
        for byte in body.iter().flat_map(|&character| reader.take(character)) {
            der.expose_secret_mut()[length] = byte;
            length += 1;
        }
        der.truncate(length);
        if let Some(full) = scalar::in_full(form, der.expose_secret()) {
            der = full.map_err(no_memory)?;
        }
        Ok(Self { form, der })
    }

    /// The key, as rustls takes it.
    pub(super) fn der(&self) -> PrivateKeyDer<'_> {
        let der = self.der.expose_secret();
        match self.form {
            Form::Pkcs1 => PrivatePkcs1KeyDer::from(der).into(),
            Form::Pkcs8 => PrivatePkcs8KeyDer::from(der).into(),
            Form::Sec1 => PrivateSec1KeyDer::from(der).into(),
        }
    }
}

/// The first private key in a PEM text: its form, and its base64.
fn section(text: &[u8]) -> Result<(Form, &[u8]), &'static str> {
    const NONE: &str = "there is no private key in it";
    let mut rest = text;
    while let Some(at) = find(rest, b"-----BEGIN ") {
        let from = &rest[at + b"-----BEGIN ".len()..];
        let end = find(from, b"-----").ok_or(NONE)?;
        let (label, body) = (&from[..end], &from[end + b"-----".len()..]);
        let end = find(body, b"-----END ").ok_or("its end is missing")?;
        rest = &body[end..];
        let body = &body[..end];
        let form = match label {
            b"RSA PRIVATE KEY" => Form::Pkcs1,
            b"PRIVATE KEY" => Form::Pkcs8,
            b"EC PRIVATE KEY" => Form::Sec1,
            b"ENCRYPTED PRIVATE KEY" => return Err(ENCRYPTED),
            _ => continue,
        };
        return if find(body, b"ENCRYPTED").is_some() { Err(ENCRYPTED) } else { Ok((form, body)) };
    }
    Err(NONE)
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// A file that isn't secret, as a whole.
fn text(what: &str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut text = Vec::new();
    let read = open(path).and_then(|file| file.take(MAX_FILE as u64 + 1).read_to_end(&mut text));
    read.map_err(|error| TlsError::unreadable(what, path, &error))?;
    if text.len() > MAX_FILE { Err(garbled(what, path, "it is longer than 64 KiB")) } else { Ok(text) }
}

pub(super) fn open(path: &Path) -> io::Result<File> {
    // A FIFO in its place must not make us wait.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    File::options().read(true).custom_flags(nonblock).open(path)
}

pub(super) fn garbled(what: &str, path: &Path, why: &str) -> TlsError {
    TlsError::new(format!("Unable to import {what} '{}': {why}", path.display()))
        .advise("the file is to be PEM text, as certtool and openssl write it")
}

/// The host's own certificates and keys.
pub(super) const SYSTEM: &str = "/etc/pki/libvirt";
const ENCRYPTED: &str = "it is encrypted, and nobody is there to ask for its passphrase";
const MAX_FILE: usize = 64 << 10;
const MAX_CERTIFICATES: usize = 16;
