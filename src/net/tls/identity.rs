//! One's own certificates, each with its key, and which of them to show.
//!
//! Leans on rustls for the keys themselves: ring's, in ordinary memory, for as long as the context lives. Refuses a key that
//! isn't its certificate's.

use std::io::{self, ErrorKind};
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
use super::files::{Key, SYSTEM, certificates};
use super::verify::Side;

/// All that one may show, the preferred first.
#[derive(Debug)]
pub(super) struct Identities {
    pub(super) all: Vec<Identity>,
    /// What was passed over because this user may not see whether it is there.
    pub(super) hidden: Vec<Fault>,
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
        let (mut all, mut hidden) = (Vec::new(), Vec::new());
        for (certificate, key) in own {
            let found = |path: &Path| Found::of(path, path.try_exists());
            match (side, found(certificate), found(key)) {
                (Side::Client, Found::Missing, _) | (Side::Client, _, Found::Missing) => {}
                (Side::Client, Found::Hidden(fault), _) | (Side::Client, _, Found::Hidden(fault)) => {
                    hidden.push(fault);
                }
                _ => all.push(Identity::load(certificate, key)?),
            }
        }
        Ok(Self { all, hidden })
    }

    /// The first whose key can sign in one of these ways.
    fn choose(&self, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let chosen = self.all.iter().find(|identity| identity.key.key.choose_scheme(schemes).is_some());
        chosen.map(|identity| Arc::clone(&identity.key))
    }
}

/// Whether a file is there.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Or something stands in the way that reading it will tell of.
    There,
    Missing,
    /// It is the host's own, in a directory that this user may not look into.
    Hidden(Fault),
}

impl Found {
    fn of(path: &Path, exists: io::Result<bool>) -> Self {
        match exists {
            Ok(false) => Self::Missing,
            Err(error) if error.kind() == ErrorKind::PermissionDenied && path.starts_with(SYSTEM) => {
                let text = format!("This user may not look at '{}': going without it", path.display());
                let advice = "if the server wants a certificate, put one, with its key, into ~/.pki/libvirt";
                Self::Hidden(Fault::new(false, text, advice))
            }
            _ => Self::There,
        }
    }
}

impl Identity {
    fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
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
    fn what_this_user_may_not_look_at_is_missing_where_it_is_the_hosts() {
        let denied = || Err(io::Error::from(ErrorKind::PermissionDenied));
        let hosts = Path::new("/etc/pki/libvirt/private/clientkey.pem");
        let Found::Hidden(fault) = Found::of(hosts, denied()) else { panic!("it stops the client") };
        assert!(!fault.fatal && fault.text.contains("/etc/pki/libvirt/private/clientkey.pem"));
        for named in
            ["/home/joe/.pki/libvirt/clientkey.pem", "/srv/pki/clientkey.pem", "/etc/pki/libvirtx/key.pem"]
        {
            assert_eq!(Found::of(Path::new(named), denied()), Found::There, "to be read, and complained of");
        }
        assert_eq!(Found::of(hosts, Ok(false)), Found::Missing);
        assert_eq!(Found::of(hosts, Ok(true)), Found::There);
    }
}
