//! One's own certificates, each with its key, and which of them to show.
//!
//! Leans on rustls for the keys themselves: ring's, in ordinary memory, for as long as the context lives. Refuses a key that
//! isn't its certificate's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::error::TlsError;
use super::files::{Key, certificates};
use super::verify::Side;

/// All that one may show, the preferred first.
#[derive(Debug)]
pub(super) struct Identities(pub(super) Vec<Identity>);

/// A certificate with those that lead to its CA, and its key.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) path: PathBuf,
    key: Arc<CertifiedKey>,
}

impl Identities {
    /// Reads them. A server needs all that are named; a client goes without those that are missing.
    pub(super) fn load(own: &[(PathBuf, PathBuf)], side: Side) -> Result<Self, TlsError> {
        let missing = |path: &Path| side == Side::Client && matches!(path.try_exists(), Ok(false));
        let own = own.iter().filter(|(certificate, key)| !missing(certificate) && !missing(key));
        own.map(|(certificate, key)| Identity::load(certificate, key)).collect::<Result<_, _>>().map(Self)
    }

    /// The first whose key can sign in one of these ways.
    fn choose(&self, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let chosen = self.0.iter().find(|identity| identity.key.key.choose_scheme(schemes).is_some());
        chosen.map(|identity| Arc::clone(&identity.key))
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
        !self.0.is_empty()
    }
}
