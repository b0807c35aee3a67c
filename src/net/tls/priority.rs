//! GnuTLS's priority strings, as far as their wishes can be met: versions of TLS and the three ciphers that it is spoken with.
//!
//! Leans on rustls for what there is. Refuses, loudly, a wish that it can't fulfil; what is taken away that was never there
//! (old versions, old ciphers) is no such wish. The system's own policy (`@SYSTEM`) can't be read here: that is a warning.

use rustls::crypto::{CryptoProvider, ring};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedProtocolVersion};

use super::error::TlsError;

/// What is spoken.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    /// With the suites in the order of the wish.
    pub(super) provider: CryptoProvider,
    /// Whether a server goes by its own order of suites, not by its client's.
    pub(super) server_precedence: bool,
    /// What isn't as the string says.
    pub(super) warning: Option<String>,
}

/// What a string asks for; without one, all.
pub(super) fn choose(priority: Option<&str>) -> Result<Choice, TlsError> {
    let text = priority.unwrap_or("NORMAL");
    let refused = |word: &str| {
        TlsError::new(format!("Failed to set TLS session priority to {text}: '{word}' is not supported"))
            .advise("leave it out, or choose among NORMAL, SECURE256, @SYSTEM, -VERS-TLS1.3 and -VERS-TLS1.2")
    };
    let mut words = text.split(':');
    let base = words.next().unwrap_or_default();
    // GnuTLS's order.
    let mut ciphers = vec!["AES-256-GCM", "CHACHA20-POLY1305", "AES-128-GCM"];
    let mut versions = vec!["VERS-TLS1.3", "VERS-TLS1.2"];
    let (mut server_precedence, mut warning) = (false, None);
    match base {
        "NORMAL" | "PFS" | "SECURE128" => {}
        "PERFORMANCE" => ciphers = vec!["AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305"],
        _ if base.starts_with('@') => {
            warning = Some(format!(
                "TLS session priority {text}: {base} is taken for NORMAL, for the system's policy is GnuTLS's own: \
                 where it is to be stricter than TLS 1.2 with AES-128, say so here, as in SECURE256:-VERS-TLS1.2"
            ));
        }
        "SECURE192" | "SECURE256" => ciphers.retain(|cipher| *cipher != "AES-128-GCM"),
        "NONE" => (ciphers, versions) = (Vec::new(), Vec::new()),
        _ => return Err(refused(base)),
    }
    for word in words.filter(|word| !word.is_empty()) {
        let (sign, name) = word.split_at_checked(1).unwrap_or(("", word));
        let all = match name {
            "VERS-ALL" | "VERS-TLS-ALL" => Some((&mut versions, &["VERS-TLS1.3", "VERS-TLS1.2"][..])),
            "CIPHER-ALL" => Some((&mut ciphers, &["AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305"][..])),
            "VERS-TLS1.3" => Some((&mut versions, &["VERS-TLS1.3"][..])),
            "VERS-TLS1.2" => Some((&mut versions, &["VERS-TLS1.2"][..])),
            "AES-256-GCM" => Some((&mut ciphers, &["AES-256-GCM"][..])),
            "AES-128-GCM" => Some((&mut ciphers, &["AES-128-GCM"][..])),
            "CHACHA20-POLY1305" => Some((&mut ciphers, &["CHACHA20-POLY1305"][..])),
            _ => None,
        };
        match (sign, all) {
            ("+", Some((list, added))) => added.iter().for_each(|one| {
                if !list.contains(one) {
                    list.push(one);
                }
            }),
            ("-" | "!", Some((list, removed))) => list.retain(|one| !removed.contains(one)),
            ("-" | "!", None) if NEVER_THERE.iter().any(|never| name.starts_with(never)) => {}
            ("%", None) if name == "SERVER_PRECEDENCE" => server_precedence = true,
            ("%", None) if HARMLESS.contains(&name) => {}
            _ => return Err(refused(word)),
        }
    }
    let mut provider = ring::default_provider();
    let place = |suite: CipherSuite| ciphers.iter().position(|known| *known == cipher(suite));
    provider.cipher_suites.retain(|suite| place(suite.suite()).is_some());
    provider.cipher_suites.sort_by_key(|suite| place(suite.suite()));
    let all: [(&str, &'static SupportedProtocolVersion); 2] =
        [("VERS-TLS1.3", &TLS13), ("VERS-TLS1.2", &TLS12)];
    let versions: Vec<_> =
        all.into_iter().filter(|(name, _)| versions.contains(name)).map(|(_, version)| version).collect();
    if versions.is_empty() || provider.cipher_suites.is_empty() {
        return Err(TlsError::new(format!(
            "Failed to set TLS session priority to {text}: nothing is left to speak"
        ))
        .advise("leave in TLS 1.3 or 1.2, and one of AES-256-GCM, AES-128-GCM and CHACHA20-POLY1305"));
    }
    Ok(Choice { versions, provider, server_precedence, warning })
}

/// What GnuTLS calls a suite's cipher.
fn cipher(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "AES-128-GCM",
        CipherSuite::TLS13_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "AES-256-GCM",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "CHACHA20-POLY1305",
        _ => "",
    }
}

/// What was never spoken here, so that it can be taken away.
const NEVER_THERE: &[&str] = &[
    "VERS-SSL",
    "VERS-TLS1.0",
    "VERS-TLS1.1",
    "VERS-DTLS",
    "ARCFOUR",
    "3DES",
    "DES-",
    "RC2",
    "NULL",
    "CAMELLIA",
    "AES-128-CBC",
    "AES-256-CBC",
    "AES-128-CCM",
    "AES-256-CCM",
    "RSA",
    "DHE-",
    "ANON-",
    "PSK",
    "SRP",
    "MD5",
    "SHA1",
    "COMP-",
    "CTYPE-OPENPGP",
];
/// Switches that ask for what is done anyway.
const HARMLESS: &[&str] =
    &["COMPAT", "SAFE_RENEGOTIATION", "DISABLE_SAFE_RENEGOTIATION", "NO_TICKETS", "NO_TICKETS_TLS12"];
