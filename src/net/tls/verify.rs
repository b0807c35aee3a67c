//! Whether the other end's certificate is accepted: its chain to a CA of ours, dates, revocation, purpose, and its name.
//!
//! Leans on webpki for chains and signatures, and on `revocation`. Refuses what GnuTLS would refuse in libvirt's place, and
//! three things more: a certificate whose purposes don't hold the one it comes with, even if that extension isn't critical
//! (RFC 5280, 4.2.1.12); one that was signed by a certificate of version 3 that doesn't say that it is a CA's; and a common
//! name in the place of a host's where a CA may sign for certain names alone. Revocation lists count as far as they go: a CA
//! without one is no error, nor is a list that should have been renewed.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use webpki::{
    EndEntityCert, Error, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage, RequiredEkuNotFoundContext,
    VerifiedPath,
};

use super::certificate::{Certificate, Name};
use super::error::TlsError;
use super::files::garbled;
use super::revocation::Revoked;

/// Whose certificate it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// A server's.
    Server,
    /// A client's.
    Client,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Client => "client",
        })
    }
}

/// The CAs that are believed, and what they have revoked.
#[derive(Debug)]
pub(super) struct Judge {
    authorities: Vec<Authority>,
    revoked: Revoked,
}

/// What a chain has proved.
#[derive(Debug)]
pub(super) struct Proof {
    /// Whom it is for.
    pub(super) name: String,
    /// Whether a certificate on the way binds the names of those below it.
    pub(super) constrained: bool,
}

#[derive(Debug)]
struct Authority {
    anchor: TrustAnchor<'static>,
    key: SubjectPublicKeyInfoDer<'static>,
    /// In seconds since 1970.
    not_before: u64,
    not_after: u64,
}

impl Judge {
    /// What may sign no certificates becomes no authority, whoever has put it into the file.
    pub(super) fn new(
        file: &Path,
        authorities: &[CertificateDer<'static>],
        revoked: Revoked,
    ) -> Result<Self, TlsError> {
        let authority = |der: &CertificateDer<'static>| {
            let unfit = |error: String| garbled("CA certificate", file, &error);
            let about = Certificate::read(der).map_err(|error| unfit(error.to_string()))?;
            let anchor = webpki::anchor_from_trusted_cert(der).map_err(|error| unfit(told(&error)))?;
            if !about.may_sign() {
                return Ok(None);
            }
            let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
            let (not_before, not_after) = (seconds(about.not_before), seconds(about.not_after));
            Ok(Some(Authority { anchor: anchor.to_owned(), key: about.key, not_before, not_after }))
        };
        let authorities = authorities.iter().filter_map(|der| authority(der).transpose());
        Ok(Self { authorities: authorities.collect::<Result<_, TlsError>>()?, revoked })
    }

    /// Judges the chain that the other end has shown.
    pub(super) fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        side: Side,
        now: UnixTime,
    ) -> Result<Proof, TlsError> {
        let Some(first) = chain.first() else {
            return Err(TlsError::refusal("Unable to verify TLS peer: No certificate was found.")
                .advise(format!("the {side} shows none: give it one that this host's CA has signed")));
        };
        let certificate = Certificate::read(first).map_err(|error| {
            TlsError::refusal(format!("Unable to verify TLS peer: its certificate cannot be read: {error}"))
                .advise("give it another: this one isn't as X.509 wants it")
        })?;
        let purpose = match side {
            Side::Server => KeyUsage::server_auth(),
            Side::Client => KeyUsage::client_auth(),
        };
        let constrained =
            self.follow(chain, Purpose(purpose), now).map_err(|error| refusal(&error, &certificate, side))?;
        // As libvirt does, after GnuTLS has said yes: a usage that must be understood must fit.
        if let Some(usage) = &certificate.usage
            && usage.critical
            && !usage.value.digital_signature()
        {
            let subject = &certificate.subject;
            return Err(TlsError::refusal(format!(
                "Certificate {subject} usage does not permit digital signature"
            ))
            .advise("make it anew with the key usage digitalSignature (certtool: signing_key)"));
        }
        Ok(Proof { name: certificate.subject, constrained })
    }

    /// Whether a chain leads to one of the authorities, whatever it is for. For one's own.
    pub(super) fn leads_here(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        self.follow(chain, AnyPurpose, now).map(|_| ())
    }

    /// Whether a chain leads here through a certificate that binds the names of those below it.
    pub(super) fn constrains(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        self.follow(chain, AnyPurpose, now).unwrap_or_default()
    }

    /// Follows a chain to an authority. `true`: names were bound on the way.
    fn follow(
        &self,
        chain: &[CertificateDer<'_>],
        purpose: impl ExtendedKeyUsageValidator,
        now: UnixTime,
    ) -> Result<bool, Error> {
        let (first, others) = chain.split_first().ok_or(Error::UnknownIssuer)?;
        let first = EndEntityCert::try_from(first)?;
        let anchors: Vec<_> = self.authorities.iter().map(|authority| authority.anchor.clone()).collect();
        // webpki asks no anchor how old it is, no CA between whether it may sign, and looks at the first list of each alone.
        let passes = |path: &VerifiedPath<'_>| {
            self.is_in_time(path.anchor(), now)?;
            if !between(path, Certificate::may_sign)? {
                return Err(Error::EndEntityUsedAsCa);
            }
            self.is_not_revoked(path)
        };
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        let path = first.verify_for_usage(algorithms, &anchors, others, now, purpose, None, Some(&passes))?;
        Ok(path.anchor().name_constraints.is_some()
            || !between(&path, |certificate| !certificate.constrains)?)
    }

    /// Whether no certificate of a path is in a list by its issuer: by the key that has signed it, or by that of a CA that
    /// has the same name. A CA that was renewed with a new key revokes with that what it has signed with the old one.
    /// Where the CA file has none of that name, a key that comes with the certificate doesn't rule a list out: a thief would
    /// show the old one.
    fn is_not_revoked(&self, path: &VerifiedPath<'_>) -> Result<(), Error> {
        let whole = || std::iter::once(&**path.end_entity()).chain(path.intermediate_certificates());
        for certificate in whole() {
            let keys = || {
                let issuer = certificate.issuer();
                let own = self.authorities.iter().filter(|one| one.anchor.subject.as_ref() == issuer);
                let mut keys: Vec<_> = own.map(|authority| authority.key.clone()).collect();
                if !keys.is_empty() {
                    let between = path.intermediate_certificates().filter(|one| one.subject() == issuer);
                    keys.extend(between.map(|one| one.subject_public_key_info()));
                }
                keys
            };
            if self.revoked.holds(certificate, keys) {
                return Err(Error::CertRevoked);
            }
        }
        Ok(())
    }

    fn is_in_time(&self, anchor: &TrustAnchor<'_>, now: UnixTime) -> Result<(), Error> {
        let known = self.authorities.iter().filter(|authority| authority.anchor == *anchor);
        let mut wrong = Error::UnknownIssuer;
        for authority in known {
            wrong = match now.as_secs() {
                time if time < authority.not_before => {
                    let not_before = unix(authority.not_before);
                    Error::CertNotValidYet { time: now, not_before }
                }
                time if time > authority.not_after => {
                    Error::CertExpired { time: now, not_after: unix(authority.not_after) }
                }
                _ => return Ok(()),
            };
        }
        Err(wrong)
    }
}

/// Whether this is so of all CAs between a certificate and its authority.
fn between(path: &VerifiedPath<'_>, holds: fn(&Certificate) -> bool) -> Result<bool, Error> {
    for one in path.intermediate_certificates() {
        let certificate = Certificate::read(&one.der()).map_err(|_| Error::BadDer)?;
        if !holds(&certificate) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a server's certificate is for this host. With webpki's rules, and where those say no, with GnuTLS's two
/// indulgences: a certificate that names no host at all beside its subject may do so there, in its one common name; and an
/// address may be written as if it were a name. Neither where names are `constrained` by a CA: that binds what webpki reads.
pub(super) fn is_for(
    der: &CertificateDer<'_>,
    host: &ServerName<'_>,
    constrained: bool,
) -> Result<(), TlsError> {
    let strict =
        EndEntityCert::try_from(der).is_ok_and(|der| der.verify_is_valid_for_subject_name(host).is_ok());
    if strict {
        return Ok(());
    }
    let certificate = Certificate::read(der).map_err(|error| {
        TlsError::refusal(format!("Unable to verify TLS peer: its certificate cannot be read: {error}"))
            .advise("give it another: this one isn't as X.509 wants it")
    })?;
    let text = host.to_str();
    let indulged = match (host, certificate.names.is_empty(), &certificate.common_names[..]) {
        (ServerName::IpAddress(_), false, _) => {
            certificate.names.iter().any(|name| matches!(name, Name::Dns(name) if *name == text))
        }
        (_, true, [name]) => certificate.serves(Side::Server) && fits(name, &text),
        _ => false,
    };
    if indulged && !constrained {
        return Ok(());
    }
    let subject = &certificate.subject;
    let names = hosts(&certificate, constrained);
    let advice = if indulged {
        "its CA may sign for certain names alone: have it made anew with this one among its subject's other names \
         (certtool: dns_name)"
            .to_owned()
    } else if names.is_empty() {
        "it is for no host: have it made anew with this one among its subject's other names (certtool: dns_name)"
            .to_owned()
    } else {
        format!("it is for {}: use such a name in the URI", names.join(", "))
    };
    Err(TlsError::refusal(format!("Certificate {subject} owner does not match the hostname {text}"))
        .advise(advice))
}

/// The hosts that a certificate is for, as [`is_for`] sees it.
pub(super) fn hosts(certificate: &Certificate, constrained: bool) -> Vec<String> {
    let mut names: Vec<_> = certificate.names.iter().map(shown).collect();
    if let ([], false, [name]) = (&names[..], constrained, &certificate.common_names[..])
        && certificate.serves(Side::Server)
    {
        names.push(name.clone());
    }
    let mut known = BTreeSet::new();
    names.retain(|name| known.insert(name.clone()));
    names
}

/// Whether a name in a certificate, perhaps with `*` for its first part, is this host's.
fn fits(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(domain) => {
            domain.contains('.')
                && host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(domain))
                && host.parse::<IpAddr>().is_err()
        }
        None => name.eq_ignore_ascii_case(host),
    }
}

/// A name that a certificate is for, as people write it.
fn shown(name: &Name) -> String {
    match name {
        Name::Dns(name) => name.clone(),
        Name::Address(bytes) => match (<[u8; 4]>::try_from(&bytes[..]), <[u8; 16]>::try_from(&bytes[..])) {
            (Ok(four), _) => IpAddr::from(four).to_string(),
            (_, Ok(sixteen)) => IpAddr::from(sixteen).to_string(),
            _ => "no address".to_owned(),
        },
    }
}

/// Why a certificate is refused, and what whoever has made it can do.
fn refusal(error: &Error, certificate: &Certificate, side: Side) -> TlsError {
    let Certificate { subject, issuer, .. } = certificate;
    let (text, advice) = match error {
        Error::CertExpired { not_after, .. } => {
            let (what, until) =
                (aged(certificate, side, certificate.not_after, *not_after), date(*not_after));
            (format!("The {what} has expired"), format!("it was valid until {until}: make a new one"))
        }
        Error::CertNotValidYet { not_before, .. } => {
            let (what, from) =
                (aged(certificate, side, certificate.not_before, *not_before), date(*not_before));
            (
                format!("The {what} is not yet active"),
                format!("it is valid from {from}: is this host's clock right?"),
            )
        }
        Error::RequiredEkuNotFoundContext(_) => (
            format!("Certificate {subject} purpose does not allow use for with a TLS {side}"),
            format!("make it anew with the extended key usage {side}Auth (certtool: tls_www_{side})"),
        ),
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => (
            failed(error, subject),
            format!(
                "it was issued by {issuer}: have it signed by a CA of this host's CA file, or add that CA to the file"
            ),
        ),
        Error::CertRevoked => {
            (failed(error, subject), format!("{issuer} has revoked it: give the {side} a new one"))
        }
        _ => (failed(error, subject), format!("give the {side} a certificate without that fault")),
    };
    TlsError::refusal(text).advise(advice)
}

/// Which certificate of a chain is too old or too young: its first, or a CA's, by the date that was complained of.
fn aged(certificate: &Certificate, side: Side, own: x509_cert::time::Time, told: UnixTime) -> String {
    if own.to_unix_duration().as_secs() == told.as_secs() {
        format!("{side} certificate {}", certificate.subject)
    } else {
        format!("CA certificate behind {side} certificate {}", certificate.subject)
    }
}

fn failed(error: &Error, subject: &str) -> String {
    format!("Certificate failed validation: {} ({subject})", words(error))
}

/// GnuTLS's words, as libvirt passes them on, where there are some.
pub(super) fn words(error: &Error) -> String {
    match error {
        Error::UnknownIssuer => "The certificate hasn't got a known issuer.".to_owned(),
        Error::CertRevoked => "The certificate has been revoked.".to_owned(),
        Error::InvalidSignatureForPublicKey => "The certificate is not trusted.".to_owned(),
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "The certificate uses an insecure algorithm".to_owned()
        }
        Error::CertExpired { not_after, .. } => format!("A certificate has expired on {}.", date(*not_after)),
        Error::CertNotValidYet { not_before, .. } => {
            format!("A certificate is not yet active, but from {} on.", date(*not_before))
        }
        other => told(other),
    }
}

/// webpki's own words: names of what is wrong, as it calls them.
pub(super) fn told(error: &Error) -> String {
    match error {
        Error::BadDer | Error::TrailingData(_) => "it is garbled".to_owned(),
        Error::CaUsedAsEndEntity => "a CA's certificate stands in the place of somebody's own".to_owned(),
        Error::EndEntityUsedAsCa => "it was signed by a certificate that is no CA's".to_owned(),
        Error::UnsupportedCertVersion => "it is no certificate of version 3".to_owned(),
        other => other.to_string(),
    }
}

fn unix(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

/// A point in time, as certificates have it.
fn date(time: UnixTime) -> String {
    let time = x509_cert::der::DateTime::from_unix_duration(std::time::Duration::from_secs(time.as_secs()));
    time.map_or_else(|_| "a day beyond the calendar".to_owned(), |time| time.to_string())
}

/// Lets those pass that have this purpose, no purpose at all, or every one: a certificate may say so (RFC 5280, 4.2.1.12),
/// and webpki knows no word for it.
struct Purpose(KeyUsage);

impl ExtendedKeyUsageValidator for Purpose {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        let present =
            purposes.map(|purpose| Ok(purpose?.to_decoded_oid())).collect::<Result<Vec<_>, Error>>()?;
        let fits = |purpose: &Vec<usize>| {
            *purpose == ANY_PURPOSE || *purpose == self.0.oid_values().collect::<Vec<_>>()
        };
        if present.is_empty() || present.iter().any(fits) {
            return Ok(());
        }
        Err(Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext { required: self.0, present }))
    }
}

/// anyExtendedKeyUsage.
const ANY_PURPOSE: [usize; 5] = [2, 5, 29, 37, 0];

/// Lets every purpose pass.
struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, _purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        Ok(())
    }
}
