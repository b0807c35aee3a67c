//! Revocation lists: which certificates their CAs have taken back.
//!
//! Every list counts that a believed CA of its issuer's name has signed, be there several by one CA, or by a CA that was
//! renewed under its name with another key; whoever is in any of them is revoked. One that none of those keys has signed is
//! none of theirs. Leans on webpki for reading lists and for signatures. Refuses lists in part (delta lists, indirect ones),
//! because what isn't in them would pass for good.

use std::path::Path;

use rustls::pki_types::{CertificateRevocationListDer, SubjectPublicKeyInfoDer};
use webpki::{ALL_VERIFICATION_ALGS, Cert, CertRevocationList, OwnedCertRevocationList, RawPublicKeyEntity};
use x509_cert::der::asn1::{AnyRef, BitStringRef};
use x509_cert::der::{self, Decode, Reader, SliceReader};

use super::error::TlsError;
use super::files::garbled;
use super::verify::told;

/// All lists of a file.
#[derive(Debug)]
pub(super) struct Revoked(Vec<List>);

#[derive(Debug)]
struct List {
    list: CertRevocationList<'static>,
    seal: Seal,
}

impl Revoked {
    pub(super) fn read(path: &Path, lists: &[CertificateRevocationListDer<'_>]) -> Result<Self, TlsError> {
        let read = |der: &CertificateRevocationListDer<'_>| {
            let unfit = |why: &str| garbled("CA revocation list", path, why);
            let list = OwnedCertRevocationList::from_der(der).map_err(|error| unfit(&told(&error)))?;
            let seal = Seal::read(der).map_err(|error| unfit(&error.to_string()))?;
            Ok(List { list: list.into(), seal })
        };
        lists.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a certificate is in any list by one of its issuer's keys. They are asked for if it is in a list at all: then
    /// alone are signatures worth their time.
    pub(super) fn holds<'k>(
        &self,
        certificate: &Cert<'_>,
        keys: impl Fn() -> Vec<SubjectPublicKeyInfoDer<'k>>,
    ) -> bool {
        // What can't be searched is taken for a hit: it was read whole before.
        let named = |list: &&List| {
            list.list.issuer() == certificate.issuer()
                && !matches!(list.list.find_serial(certificate.serial()), Ok(None))
        };
        self.0.iter().filter(named).any(|list| keys().iter().any(|key| list.seal.is_by(key)))
    }
}

/// Whether this key has signed a list.
pub(super) fn is_signed_by(
    list: &CertificateRevocationListDer<'_>,
    key: &SubjectPublicKeyInfoDer<'_>,
) -> bool {
    Seal::read(list).is_ok_and(|seal| seal.is_by(key))
}

/// A list's signature, and what it is of.
#[derive(Debug)]
struct Seal {
    body: Vec<u8>,
    algorithm: Vec<u8>,
    signature: Vec<u8>,
}

impl Seal {
    fn read(list: &[u8]) -> der::Result<Self> {
        let whole = AnyRef::from_der(list)?;
        let mut parts = SliceReader::new(whole.value())?;
        let body = parts.tlv_bytes()?.to_vec();
        let algorithm = AnyRef::decode(&mut parts)?.value().to_vec();
        let signature = BitStringRef::decode(&mut parts)?.raw_bytes().to_vec();
        Ok(Self { body, algorithm, signature })
    }

    fn is_by(&self, key: &SubjectPublicKeyInfoDer<'_>) -> bool {
        let Ok(key) = RawPublicKeyEntity::try_from(key) else { return false };
        let algorithms = ALL_VERIFICATION_ALGS.iter();
        let mut fitting = algorithms.filter(|known| known.signature_alg_id().as_ref() == self.algorithm);
        fitting.any(|algorithm| key.verify_signature(*algorithm, &self.body, &self.signature).is_ok())
    }
}
