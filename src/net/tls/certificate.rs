//! A certificate, as far as it is judged by more than its chain: names, dates, what it may be used for.
//!
//! Leans on x509-cert. Refuses nothing of its own: what can't be read is an error of that crate's.

use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use x509_cert::certificate::{TbsCertificate, Version};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{self, Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectAltName};
use x509_cert::time::Time;

use super::verify::Side;
use crate::net::dn;

/// What is read from one.
#[derive(Debug)]
pub(super) struct Certificate {
    /// Whose it is, as GnuTLS prints it.
    pub(super) subject: String,
    /// Who has signed it.
    pub(super) issuer: String,
    /// Its public key.
    pub(super) key: SubjectPublicKeyInfoDer<'static>,
    /// The common names, from the first to the last.
    pub(super) common_names: Vec<String>,
    pub(super) not_before: Time,
    pub(super) not_after: Time,
    /// Whether it says that it is a CA's, or that it is none.
    pub(super) is_ca: Option<bool>,
    /// Whether it is of version 1, which knows no CAs, and is its own issuer's.
    is_old_root: bool,
    /// Whether it binds the names in certificates below it.
    pub(super) constrains: bool,
    pub(super) usage: Option<Extension<KeyUsage>>,
    pub(super) purposes: Option<Extension<ExtendedKeyUsage>>,
    /// The names and addresses that it is for.
    pub(super) names: Vec<Name>,
}

/// An extension, and whether it must be understood.
#[derive(Debug)]
pub(super) struct Extension<T> {
    pub(super) critical: bool,
    pub(super) value: T,
}

/// What a certificate may be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    Dns(String),
    Address(Vec<u8>),
}

impl Certificate {
    pub(super) fn read(der: &CertificateDer<'_>) -> der::Result<Self> {
        let whole = x509_cert::Certificate::from_der(der)?;
        let certificate = whole.tbs_certificate();
        let names = extension::<SubjectAltName>(certificate)?.map(|names| names.value.0).unwrap_or_default();
        let name = |name: &GeneralName| match name {
            GeneralName::DnsName(name) => Some(Name::Dns(name.as_str().to_owned())),
            GeneralName::IpAddress(bytes) => Some(Name::Address(bytes.as_bytes().to_vec())),
            _ => None,
        };
        Ok(Self {
            subject: dn::print(certificate.subject()),
            issuer: dn::print(certificate.issuer()),
            key: certificate.subject_public_key_info().to_der()?.into(),
            common_names: dn::common_names(certificate.subject()),
            not_before: certificate.validity().not_before,
            not_after: certificate.validity().not_after,
            is_ca: extension::<BasicConstraints>(certificate)?.map(|basic| basic.value.ca),
            is_old_root: certificate.version() == Version::V1
                && certificate.subject() == certificate.issuer(),
            constrains: certificate
                .extensions()
                .is_some_and(|all| all.iter().any(|one| one.extn_id == NameConstraints::OID)),
            usage: extension(certificate)?,
            purposes: extension(certificate)?,
            names: names.iter().filter_map(name).collect(),
        })
    }

    /// Whether it may sign others. Of the old roots, which can't say so, GnuTLS believes those that are in a CA file.
    pub(super) fn may_sign(&self) -> bool {
        self.is_ca.unwrap_or(self.is_old_root)
            && self.usage.as_ref().is_none_or(|usage| usage.value.key_cert_sign())
    }

    /// Whether its purposes, if it has any, are good for this side.
    pub(super) fn serves(&self, side: Side) -> bool {
        let wanted = match side {
            Side::Server => SERVER_AUTH,
            Side::Client => CLIENT_AUTH,
        };
        let fits = |purpose: &ObjectIdentifier| *purpose == wanted || *purpose == ANY_PURPOSE;
        self.purposes.as_ref().is_none_or(|purposes| purposes.value.0.iter().any(fits))
    }
}

fn extension<'a, T: Decode<'a, Error = der::Error> + AssociatedOid>(
    certificate: &'a TbsCertificate,
) -> der::Result<Option<Extension<T>>> {
    let found = certificate.get_extension::<T>()?;
    Ok(found.map(|(critical, value)| Extension { critical, value }))
}

const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const ANY_PURPOSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
