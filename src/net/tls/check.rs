//! libvirt's checks of a host's certificates before they are used: what would never work is said at the start, not to the
//! first client.
//!
//! In libvirt's order and words; and beyond it what will be wrong soon, or what makes a revocation list useless. Leans on
//! `certificate` and `verify`. Refuses what libvirt refuses: wrong dates, a CA that is none, a usage that doesn't fit where
//! the extension is critical, one's own certificate that the CA file doesn't prove.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use webpki::Error;

use super::certificate::Certificate;
use super::error::{TlsError, visible};
use super::revocation::List;
use super::verify::{Judge, Side, words};
use crate::net::dn;

/// Something that is wrong, in a sentence, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) text: String,
    pub(crate) advice: String,
    /// TLS doesn't start with it.
    pub(crate) fatal: bool,
    /// TLS starts with it, as libvirt's does, and no other end of ours accepts it.
    pub(super) vain: bool,
}

impl Fault {
    pub(super) fn new(fatal: bool, text: String, advice: impl Into<String>) -> Self {
        Self { text: visible(text), advice: visible(advice), fatal, vain: false }
    }
}

impl From<Fault> for TlsError {
    fn from(fault: Fault) -> Self {
        Self::new(fault.text).advise(fault.advice)
    }
}

impl From<TlsError> for Fault {
    fn from(error: TlsError) -> Self {
        Self::new(true, error.to_string(), error.advice())
    }
}

/// What a certificate in a file is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// To prove others.
    Authority,
    /// To be shown.
    Own(Side),
}

/// What is wrong with one certificate by itself.
pub(super) fn certificate(path: &Path, der: &CertificateDer<'_>, role: Role, now: UnixTime) -> Vec<Fault> {
    let file = path.display();
    let certificate = match Certificate::read(der) {
        Ok(certificate) => certificate,
        Err(error) => {
            let text = format!("Unable to import certificate {file}: {error}");
            return vec![Fault::new(true, text, "make it anew")];
        }
    };
    let mut faults = Vec::new();
    dates(&file.to_string(), &certificate, role, now, &mut faults);
    let mut fault = |fatal, text, advice: &str| faults.push(Fault::new(fatal, text, advice));
    match (role, certificate.is_ca) {
        (Role::Authority, Some(false)) => fault(
            true,
            format!("The certificate {file} basic constraints do not show a CA"),
            "put the CA's own certificate there (certtool: ca)",
        ),
        (Role::Authority, None) => fault(
            true,
            format!("The certificate {file} is missing basic constraints for a CA"),
            "make the CA's certificate anew with basic constraints (certtool: ca)",
        ),
        (Role::Own(side), Some(true)) => fault(
            true,
            format!("The certificate {file} basic constraints show a CA, but we need one for a {side}"),
            "put a certificate there that the CA has signed, not the CA's own",
        ),
        _ => {}
    }
    let usage = certificate.usage.as_ref();
    let lacks = |what: fn(&x509_cert::ext::pkix::KeyUsage) -> bool| {
        usage.filter(|usage| !what(&usage.value)).map(|usage| usage.critical)
    };
    match role {
        Role::Authority => {
            if let Some(critical) = lacks(|usage| usage.key_cert_sign()) {
                let text = format!("Certificate {file} usage does not permit certificate signing");
                fault(
                    critical,
                    text,
                    "make it anew with the key usage keyCertSign (certtool: cert_signing_key)",
                );
            }
        }
        Role::Own(side) => {
            if let Some(critical) = lacks(|usage| usage.digital_signature()) {
                let text = format!("Certificate {file} usage does not permit digital signature");
                fault(
                    critical,
                    text,
                    "make it anew with the key usage digitalSignature (certtool: signing_key)",
                );
            }
            if !certificate.serves(side) {
                let critical = certificate.purposes.as_ref().is_some_and(|purposes| purposes.critical);
                let text = format!("Certificate {file} purpose does not allow use for with a TLS {side}");
                let advice = format!("make it anew with the purpose {side}Auth (certtool: tls_www_{side})");
                faults.push(Fault { vain: true, ..Fault::new(critical, text, advice) });
            }
        }
    }
    faults
}

/// A certificate that is out of its time, or soon will be: where it isn't looked at closer, and is used all the same.
pub(super) fn out_of_time(path: &Path, der: &CertificateDer<'_>, role: Role, now: UnixTime) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Ok(certificate) = Certificate::read(der) {
        dates(&path.display().to_string(), &certificate, role, now, &mut faults);
    }
    faults.iter_mut().for_each(|fault| fault.fatal = false);
    faults
}

/// A certificate among those of the CAs that may sign no others, and so proves nobody: where it isn't looked at closer.
pub(super) fn proves_nobody(path: &Path, der: &CertificateDer<'_>) -> Option<Fault> {
    let certificate = Certificate::read(der).ok().filter(|certificate| !certificate.may_sign())?;
    let text = format!(
        "The certificate of {} in {} is no CA's, or may not sign certificates: it proves nobody",
        certificate.subject,
        path.display()
    );
    Some(Fault::new(false, text, "put the certificate of the CA there that has signed it"))
}

fn dates(file: &str, certificate: &Certificate, role: Role, now: UnixTime, faults: &mut Vec<Fault>) {
    let whose = match role {
        Role::Authority => "CA".to_owned(),
        Role::Own(side) => side.to_string(),
    };
    let now = Duration::from_secs(now.as_secs());
    let (from, until) = (certificate.not_before, certificate.not_after);
    if until.to_unix_duration() < now {
        let text = format!("The {whose} certificate {file} has expired");
        faults.push(Fault::new(
            true,
            text,
            format!("it was valid until {}: make a new one", until.to_date_time()),
        ));
    } else if until.to_unix_duration() < now + SOON {
        let text = format!("The {whose} certificate {file} expires soon, at {}", until.to_date_time());
        faults.push(Fault::new(false, text, "make a new one in time"));
    }
    if from.to_unix_duration() > now {
        let text = format!("The {whose} certificate {file} is not yet active");
        let advice = format!("it is valid from {}: is this host's clock right?", from.to_date_time());
        faults.push(Fault::new(true, text, advice));
    }
}

/// Whether one's own certificate leads to the CA file.
pub(super) fn own_chain(
    path: &Path,
    chain: &[CertificateDer<'_>],
    ca: &Path,
    judge: &Judge,
    now: UnixTime,
) -> Option<Fault> {
    let why = judge.leads_here(chain, now).err()?;
    let advice = match why {
        Error::CertRevoked => "its CA has revoked it: get a new one",
        Error::CertExpired { .. } | Error::CertNotValidYet { .. } => {
            "a CA's certificate on its way is out of its time: put one there that isn't, or get a new one by another CA"
        }
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => {
            "have it signed by a CA of that file, or add the CA that has signed it"
        }
        _ => "get a new one without that fault",
    };
    let why = words(&why);
    let (file, ca) = (path.display(), ca.display());
    let text = format!("Our own certificate {file} failed validation against {ca}: {why}");
    Some(Fault::new(true, text, advice))
}

/// What is wrong with the revocation lists in a file.
pub(super) fn revocation_lists(
    path: &Path,
    lists: &[CertificateRevocationListDer<'_>],
    authorities: &[CertificateDer<'_>],
    now: UnixTime,
) -> Vec<Fault> {
    let file = path.display();
    let authorities: Vec<_> = authorities.iter().filter_map(|der| Certificate::read(der).ok()).collect();
    let now = Duration::from_secs(now.as_secs());
    let mut faults = Vec::new();
    let mut fault = |fatal, text, advice: &str| faults.push(Fault::new(fatal, text, advice));
    for der in lists {
        let list = match List::read(der) {
            Ok(list) => list,
            Err(error) => {
                fault(true, format!("Unable to import CA revocation list {file}: {error}"), "make it anew");
                continue;
            }
        };
        let issuer = dn::print(&list.issuer);
        let named: Vec<_> = authorities.iter().filter(|authority| authority.subject == issuer).collect();
        let signer = named.iter().find(|authority| list.seal.is_by(&authority.key) == Some(true));
        match signer {
            None if named.is_empty() => fault(
                false,
                format!(
                    "The revocation list {file} is by {issuer}, who is not in the CA file: it counts, unproved, for \
                     certificates that come with a CA's of that name"
                ),
                "put the list of the CA there that signs the certificates",
            ),
            None if named.iter().any(|authority| list.seal.is_by(&authority.key).is_none()) => fault(
                false,
                format!(
                    "The revocation list {file} is by {issuer}, and signed in a way that cannot be checked here: it \
                     counts, unproved"
                ),
                "have the CA sign it with SHA-256",
            ),
            None => fault(
                false,
                format!(
                    "The revocation list {file} is by {issuer}, but not signed by the CA of that name in the CA \
                     file: it counts for nothing"
                ),
                "put the list there that this CA has signed, or add the CA to the file that has signed it",
            ),
            // GnuTLS doesn't ask for it, and to pass over what a CA has revoked would be the worse fault.
            Some(signer) if signer.usage.as_ref().is_some_and(|usage| !usage.value.crl_sign()) => fault(
                false,
                format!(
                    "The revocation list {file} is by {issuer}, whose certificate does not permit signing such lists: \
                     it counts here, but others may pass over it"
                ),
                "make the CA's certificate anew with the key usage cRLSign (certtool: crl_signing_key)",
            ),
            Some(_) => {}
        }
        if let Some(next) = list.next_update
            && next.to_unix_duration() < now
        {
            let text =
                format!("The revocation list {file} should have been renewed by {}", next.to_date_time());
            fault(false, text, "what was revoked since then is not in it: put the newest list there");
        }
    }
    faults
}

/// Whether others than its owner can come to a private key.
pub(super) fn key_file(path: &Path) -> Option<Fault> {
    let mode = std::fs::metadata(path).ok()?.mode() & 0o7777;
    let file = path.display();
    (mode & 0o027 != 0).then(|| {
        let text =
            format!("The private key {file} can be read by all, or changed by others (mode {mode:04o})");
        Fault::new(
            false,
            text,
            format!("if nobody has had it, run: chmod 600 '{file}'; otherwise make a new one"),
        )
    })
}

/// So long before its end a certificate is worth a word.
const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);
