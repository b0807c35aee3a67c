//! Revocation lists: which certificates their CAs have taken back.
//!
//! Whoever has put a list into the file means it to count. So it does for every certificate by a CA of its issuer's name, be
//! there several lists by one CA, or a CA that was renewed under its name with another key. One alone counts for nothing: a
//! list that none of the keys has signed that the CA file has for its name, where that can be told. Leans on x509-cert's DER
//! for reading lists, also the old ones without a version or an end that GnuTLS takes, and on webpki for signatures. Refuses
//! lists in part (delta lists, indirect ones, ones for some reasons alone), because what isn't in them would pass for good,
//! and what an extension says that must be understood and isn't.

use std::collections::BTreeSet;
use std::path::Path;

use rustls::pki_types::{CertificateRevocationListDer, SubjectPublicKeyInfoDer};
use webpki::{ALL_VERIFICATION_ALGS, Cert, Error, RawPublicKeyEntity};
use x509_cert::der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use x509_cert::der::{self, Decode, Reader, SliceReader, Tag, TagMode, TagNumber, Tagged};
use x509_cert::ext::Extensions;
use x509_cert::ext::pkix::crl::dp::IssuingDistributionPoint;
use x509_cert::name::Name;
use x509_cert::time::Time;

use super::error::TlsError;
use super::files::garbled;

/// All lists of a file.
#[derive(Debug)]
pub(super) struct Revoked(Vec<List>);

impl Revoked {
    pub(super) fn read(path: &Path, lists: &[CertificateRevocationListDer<'_>]) -> Result<Self, TlsError> {
        let read = |der: &CertificateRevocationListDer<'_>| {
            List::read(der).map_err(|unfit| {
                let error = garbled("CA revocation list", path, &unfit.to_string());
                match unfit {
                    Unfit::Garbled(_) => error,
                    _ => error.advise("put a list there by the CA itself that names all that it has revoked"),
                }
            })
        };
        lists.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a certificate is in any list of its issuer's name, but for those that are none of its issuer's: `keys` are all
    /// that are known to be. Without any, nobody can tell. They are asked for if it is in a list at all: then alone are
    /// signatures worth their time.
    pub(super) fn holds<'k>(
        &self,
        certificate: &Cert<'_>,
        keys: impl Fn() -> Vec<SubjectPublicKeyInfoDer<'k>>,
    ) -> bool {
        let mut named = self
            .0
            .iter()
            .filter(|list| list.by == certificate.issuer() && list.serials.contains(certificate.serial()));
        named.any(|list| list.seal.is_by_any(&keys()) != Some(false))
    }
}

/// One list.
#[derive(Debug)]
pub(super) struct List {
    pub(super) issuer: Name,
    pub(super) next_update: Option<Time>,
    pub(super) seal: Seal,
    /// The issuer's name as it stands there, without its head.
    by: Vec<u8>,
    /// The numbers as they stand there.
    serials: BTreeSet<Vec<u8>>,
}

impl List {
    pub(super) fn read(list: &[u8]) -> Result<Self, Unfit> {
        let mut parts = sequence(list)?;
        let body = parts.tlv_bytes()?;
        let algorithm = AnyRef::decode(&mut parts)?.value().to_vec();
        let signature = BitStringRef::decode(&mut parts)?.raw_bytes().to_vec();
        parts.finish()?;
        let mut parts = sequence(body)?;
        let seal = Seal { body: body.to_vec(), algorithm, signature };
        // RFC 5280 wants version 2 and an end of each, X.509 neither.
        if Option::<u8>::decode(&mut parts)?.is_some_and(|version| version > 1) {
            return Err(Unfit::Version);
        }
        if AnyRef::decode(&mut parts)?.value() != seal.algorithm {
            return Err(Unfit::Algorithm);
        }
        let name = parts.tlv_bytes()?;
        Time::decode(&mut parts)?;
        let next_update = Option::decode(&mut parts)?;
        let mut serials = BTreeSet::new();
        if !parts.is_finished() && Tag::peek(&parts)? == Tag::Sequence {
            let mut entries = sequence(parts.tlv_bytes()?)?;
            while !entries.is_finished() {
                serials.insert(entry(entries.tlv_bytes()?)?);
            }
        }
        let extensions = parts.context_specific::<Extensions>(TagNumber(0), TagMode::Explicit)?;
        parts.finish()?;
        understood(&extensions.unwrap_or_default())?;
        let by = AnyRef::from_der(name)?.value().to_vec();
        Ok(Self { issuer: Name::from_der(name)?, next_update, seal, by, serials })
    }
}

/// A list's signature, and what it is of.
#[derive(Debug)]
pub(super) struct Seal {
    body: Vec<u8>,
    algorithm: Vec<u8>,
    signature: Vec<u8>,
}

impl Seal {
    /// Whether one of these keys has signed the list; `None` if that can't be told.
    pub(super) fn is_by_any(&self, keys: &[SubjectPublicKeyInfoDer<'_>]) -> Option<bool> {
        let judged: Vec<_> = keys.iter().map(|key| self.is_by(key)).collect();
        if judged.contains(&Some(true)) {
            return Some(true);
        }
        (!judged.is_empty() && !judged.contains(&None)).then_some(false)
    }

    /// `None`: ring has no algorithm for such a signature with such a key, as for those with SHA-1.
    pub(super) fn is_by(&self, key: &SubjectPublicKeyInfoDer<'_>) -> Option<bool> {
        let key = RawPublicKeyEntity::try_from(key).ok()?;
        let algorithms = ALL_VERIFICATION_ALGS.iter();
        let fitting = algorithms.filter(|known| known.signature_alg_id().as_ref() == self.algorithm);
        let mut judged = None;
        for algorithm in fitting {
            match key.verify_signature(*algorithm, &self.body, &self.signature) {
                Ok(()) => return Some(true),
                Err(Error::InvalidSignatureForPublicKey) => judged = Some(false),
                Err(_) => {}
            }
        }
        judged
    }
}

/// Why a list can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("it is garbled: {0}")]
    Garbled(#[from] der::Error),
    #[error("it is of a version after 2")]
    Version,
    #[error("it names two algorithms for its signature")]
    Algorithm,
    #[error("it is a delta list: it has only what has changed since another")]
    Delta,
    #[error("it is an indirect list: it may be about other CAs' certificates")]
    Indirect,
    #[error("it is for some reasons of revocation, or kinds of certificate, alone")]
    Partial,
    #[error("its extension {0} must be understood, and is unknown")]
    Unknown(ObjectIdentifier),
}

/// What stands in a SEQUENCE.
fn sequence(der: &[u8]) -> der::Result<SliceReader<'_>> {
    let whole = AnyRef::from_der(der)?;
    whole.tag().assert_eq(Tag::Sequence)?;
    SliceReader::new(whole.value())
}

/// The number of a certificate that is revoked.
fn entry(der: &[u8]) -> Result<Vec<u8>, Unfit> {
    let mut parts = sequence(der)?;
    let serial = AnyRef::decode(&mut parts)?;
    serial.tag().assert_eq(Tag::Integer)?;
    Time::decode(&mut parts)?;
    if !parts.is_finished() {
        understood(&Extensions::decode(&mut parts)?)?;
    }
    parts.finish()?;
    Ok(serial.value().to_vec())
}

/// Whether extensions of a list, or of what is in it, leave it a whole one.
fn understood(extensions: &Extensions) -> Result<(), Unfit> {
    for extension in extensions {
        match extension.extn_id {
            DELTA => return Err(Unfit::Delta),
            CERTIFICATE_ISSUER => return Err(Unfit::Indirect),
            ISSUING_POINT => {
                let point = IssuingDistributionPoint::from_der(extension.extn_value.as_bytes())?;
                if point.indirect_crl {
                    return Err(Unfit::Indirect);
                }
                if point.only_some_reasons.is_some() || point.only_contains_attribute_certs {
                    return Err(Unfit::Partial);
                }
            }
            known if extension.critical && !HARMLESS.contains(&known) => return Err(Unfit::Unknown(known)),
            _ => {}
        }
    }
    Ok(())
}

const DELTA: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.27");
const ISSUING_POINT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.28");
const CERTIFICATE_ISSUER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.29");
/// The list's number, its key's identifier; a revocation's reason and since when it should have been.
const HARMLESS: [ObjectIdentifier; 4] = [
    ObjectIdentifier::new_unwrap("2.5.29.20"),
    ObjectIdentifier::new_unwrap("2.5.29.35"),
    ObjectIdentifier::new_unwrap("2.5.29.21"),
    ObjectIdentifier::new_unwrap("2.5.29.24"),
];
