//! One's own certificates, each with its key, and which of them to show.
//!
//! Leans on rustls for the keys themselves: ring's, in ordinary memory, for as long as the context lives. Refuses a key that
//! isn't its certificate's.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::check::Fault;
use super::error::TlsError;
use super::files::{Key, SYSTEM, certificates, open};
use super::verify::Side;

/// All that one may show, the preferred first.
#[derive(Debug)]
pub(super) struct Identities {
    pub(super) all: Vec<Identity>,
    /// What a client goes without, though it may be there: it isn't this user's, or half of it is missing.
    pub(super) passed_over: Vec<Fault>,
}

/// A certificate with those that lead to its CA, and its key.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) path: PathBuf,
    key: Arc<CertifiedKey>,
}

impl Identities {
    /// Reads them. A server needs all that are named; a client goes without those that are missing, or are the host's and
    /// none of this user's business.
    pub(super) fn load(own: &[(PathBuf, PathBuf)], side: Side) -> Result<Self, TlsError> {
        let (mut all, mut passed_over) = (Vec::new(), Vec::new());
        for (certificate, key) in own {
            match (side, Found::at(certificate), Found::at(key)) {
                (Side::Client, Found::There, Found::Missing) => passed_over.push(half(certificate, key)),
                (Side::Client, Found::Missing, Found::There) => passed_over.push(half(key, certificate)),
                (Side::Client, Found::Missing, _) | (Side::Client, _, Found::Missing) => {}
                (Side::Client, Found::Hidden, _) => passed_over.push(not_ours(certificate)),
                (Side::Client, _, Found::Hidden) => passed_over.push(not_ours(key)),
                _ => all.push(Identity::load(certificate, key)?),
            }
        }
        Ok(Self { all, passed_over })
    }

    /// The first whose key can sign in one of these ways.
    fn choose(&self, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let chosen = self.all.iter().find(|identity| identity.key.key.choose_scheme(schemes).is_some());
        chosen.map(|identity| Arc::clone(&identity.key))
    }
}

/// Whether a key is the host's own, and none of this user's business.
pub(super) fn is_hidden(key: &Path) -> bool {
    Found::at(key) == Found::Hidden
}

fn not_ours(path: &Path) -> Fault {
    let text = format!("This user may not read '{}': going without a certificate", path.display());
    Fault::new(false, text, "if the server wants a certificate, put one, with its key, into ~/.pki/libvirt")
}

fn half(there: &Path, missing: &Path) -> Fault {
    let (there, missing) = (there.display(), missing.display());
    let text = format!("'{there}' is there without '{missing}': going without a certificate");
    Fault::new(false, text, "put the other there too, or take this one away")
}

/// Whether a file is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Or something stands in the way that reading it will tell of.
    There,
    Missing,
    /// It is the host's own, and this user may not read it, or not even see whether it is there.
    Hidden,
}

impl Found {
    fn at(path: &Path) -> Self {
        Self::of(path, open(path).map(|_| ()).map_err(|error| error.kind()))
    }

    fn of(path: &Path, opened: Result<(), ErrorKind>) -> Self {
        match opened {
            Err(ErrorKind::NotFound) => Self::Missing,
            Err(ErrorKind::PermissionDenied) if path.starts_with(SYSTEM) => Self::Hidden,
            _ => Self::There,
        }
    }
}

impl Identity {
    pub(super) fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let unfit = |why: &str| {
            let (certificate, key) = (certificate.display(), key.display());
            TlsError::new(format!("Unable to set x509 key and certificate: {key}, {certificate}: {why}"))
        };
        let chain = certificates("certificate", certificate)?;
        let der = Key::read(key)?;
        let signing = any_supported_type(&der.der()).map_err(|_| {
            unfit("the key is of no kind that can be used")
                .advise("use a key for RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, or Ed25519")
        })?;
        let whole = CertifiedKey::new(chain, signing);
        whole.keys_match().map_err(|_| {
            unfit("The certificate and the given key do not match.")
                .advise("put the key there that the certificate was made for")
        })?;
        Ok(Self { path: certificate.to_owned(), key: Arc::new(whole) })
    }

    /// The certificate first, behind it those that lead to its CA.
    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.signature_schemes())
    }
}

impl ResolvesClientCert for Identities {
    /// Whatever CAs the server names: if it doesn't know ours, it shall say so itself.
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.choose(schemes)
    }

    fn has_certs(&self) -> bool {
        !self.all.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_user_may_not_read_is_missing_where_it_is_the_hosts() {
        let denied = Err(ErrorKind::PermissionDenied);
        let hosts = Path::new("/etc/pki/libvirt/private/clientkey.pem");
        assert_eq!(Found::of(hosts, denied), Found::Hidden, "it stops the client");
        let fault = not_ours(hosts);
        assert!(!fault.fatal && fault.text.contains("/etc/pki/libvirt/private/clientkey.pem"));
        for named in
            ["/home/joe/.pki/libvirt/clientkey.pem", "/srv/pki/clientkey.pem", "/etc/pki/libvirtx/key.pem"]
        {
            assert_eq!(Found::of(Path::new(named), denied), Found::There, "to be read, and complained of");
        }
        assert_eq!(Found::of(hosts, Err(ErrorKind::NotFound)), Found::Missing);
        assert_eq!(Found::of(hosts, Ok(())), Found::There);
    }

    #[test]
    fn half_of_a_pair_is_no_certificate_and_worth_a_word() {
        let directory = tempfile::tempdir().unwrap();
        let [certificate, key] = ["clientcert.pem", "clientkey.pem"].map(|name| directory.path().join(name));
        let own = [(certificate.clone(), key.clone())];
        let passed_over = || {
            let identities = Identities::load(&own, Side::Client).unwrap();
            assert!(identities.all.is_empty());
            identities.passed_over
        };
        assert_eq!(passed_over(), []);
        for (there, missing) in [(&certificate, &key), (&key, &certificate)] {
            std::fs::write(there, "").unwrap();
            let [fault] = &passed_over()[..] else { panic!("not a word") };
            let (one, other) = (there.display(), missing.display());
            assert_eq!(
                fault.text,
                format!("'{one}' is there without '{other}': going without a certificate")
            );
            assert!(!fault.fatal);
            std::fs::remove_file(there).unwrap();
        }
    }
}
