//! TLS with X.509, as libvirt's servers and clients speak it: who may be at the other end, and the layer between.
//!
//! [`Acceptor`] and [`Connector`] are made from [`Files`] and [`Rules`] and live long; each connection gets a [`Handshake`]
//! from them, which takes records and gives records until it is [`Established`]. Leans on rustls for the handshake alone
//! (`handshake`): what comes behind it is opened and sealed here (`record`), because rustls leaves what it decrypts in
//! ordinary memory. Refuses to touch a socket, and every certificate that isn't proved.

mod after;
mod certificate;
mod check;
mod cipher;
mod error;
mod files;
mod handshake;
mod identity;
mod named;
mod priority;
mod record;
#[cfg(any(fuzzing, test))]
pub(crate) mod rehearsal;
mod revocation;
mod scalar;
mod survey;
mod verify;
#[cfg(test)]
mod tests;

use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::Arc;

use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::{ClientConfig, ServerConfig};

use super::glob;
use check::{Fault, Role};
pub(crate) use error::TlsError;
pub(crate) use files::Files;
use handshake::{AnyClient, OneServer};
pub(crate) use handshake::{Established, Handshake};
use identity::Identities;
#[cfg_attr(
    not(any(feature = "cli", feature = "daemon")),
    allow(unused_imports, reason = "a configuration is the daemon's, and the command line looks into it")
)]
pub(crate) use named::{Certificates, Named};
use priority::Choice;
use revocation::Revoked;
#[cfg_attr(not(feature = "cli"), allow(unused_imports, reason = "to survey is the command line's"))]
pub(crate) use survey::{Places, Survey};
pub(crate) use verify::Side;
use verify::{Judge, Proof};

/// What is insisted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// That the certificates in the files are fit, before they are used.
    pub(crate) sanity: bool,
    /// That the other end's certificate is proved.
    pub(crate) verify: bool,
    /// GnuTLS's priority string.
    pub(crate) priority: Option<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { sanity: true, verify: true, priority: None }
    }
}

/// A server's side: its certificates, and whom it lets in. To reload is to make a new one.
#[derive(Debug)]
pub(crate) struct Acceptor {
    config: Arc<ServerConfig>,
    judge: Judge,
    allowed: Option<Vec<String>>,
    verify: bool,
    revokes: bool,
    warnings: Vec<String>,
}

impl Acceptor {
    /// Reads the files. `allowed`: patterns of the names that may come in; `None` for all, none of them for nobody.
    pub(crate) fn load(files: &Files, rules: &Rules, allowed: Option<&[String]>) -> Result<Self, TlsError> {
        let Loaded { identities, judge, choice, revokes, mut warnings } =
            Loaded::from(files, rules, Side::Server)?;
        let algorithms = choice.provider.signature_verification_algorithms;
        if !rules.verify {
            warnings.push("clients are not verified: whoever reaches the TLS port is let in".to_owned());
            if allowed.is_some() {
                warnings.push(
                    "the list of allowed names is of no effect, because clients are not verified".to_owned(),
                );
            }
        }
        let config = ServerConfig::builder_with_provider(Arc::new(choice.provider))
            .with_protocol_versions(&choice.versions)
            .map_err(|error| TlsError::new(format!("Unable to initialize TLS: {error}")))?;
        let mut config = config
            .with_client_cert_verifier(Arc::new(AnyClient(algorithms)))
            .with_cert_resolver(Arc::new(identities));
        config.enable_secret_extraction = true;
        // libvirt's clients read one record after the handshake, and it must be the byte that says yes.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ignore_client_order = choice.server_precedence;
        let allowed = allowed.map(<[String]>::to_vec);
        Ok(Self { config: Arc::new(config), judge, allowed, verify: rules.verify, revokes, warnings })
    }

    /// What isn't as it should be, though it works.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether it has a list of what is revoked.
    pub(crate) fn revokes(&self) -> bool {
        self.revokes
    }

    /// A handshake with a client that has just come.
    pub(crate) fn accept(self: &Arc<Self>) -> Result<Handshake, TlsError> {
        let connection = UnbufferedServerConnection::new(Arc::clone(&self.config));
        let connection =
            connection.map_err(|error| TlsError::new(format!("Unable to initialize TLS: {error}")))?;
        Ok(Handshake::server(connection, Arc::clone(self)))
    }

    /// Whether the client with these certificates may come in.
    fn judge(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Judged {
        let judged =
            self.judge.judge(chain, Side::Client, now).and_then(|Proof { name, .. }| match &self.allowed {
                Some(allowed) if !allowed.iter().any(|pattern| glob::matches(pattern, &name)) => {
                    let text = "Client's Distinguished name is not on the list of allowed clients";
                    Err(TlsError::refusal(format!("{text}: {name}")).advise(
                        "if it is to come in, add the name, or a pattern of it, to tls_allowed_dn_list",
                    ))
                }
                _ => Ok(name),
            });
        match judged {
            Ok(name) => Judged::Proved(name),
            Err(error) if !self.verify => Judged::Excused(error),
            Err(error) => Judged::Refused(error),
        }
    }
}

/// What comes of a client's certificate.
enum Judged {
    /// It may come in by this name.
    Proved(String),
    /// It may come in, because nobody is refused, and has no name.
    Excused(TlsError),
    Refused(TlsError),
}

/// A client's side: the CAs that it believes, and what it shows.
#[derive(Debug)]
pub(crate) struct Connector {
    config: Arc<ClientConfig>,
    warnings: Vec<String>,
}

impl Connector {
    /// Reads the files.
    pub(crate) fn load(files: &Files, rules: &Rules) -> Result<Self, TlsError> {
        let Loaded { identities, judge, choice, warnings, .. } = Loaded::from(files, rules, Side::Client)?;
        let algorithms = choice.provider.signature_verification_algorithms;
        let config = ClientConfig::builder_with_provider(Arc::new(choice.provider))
            .with_protocol_versions(&choice.versions)
            .map_err(|error| TlsError::new(format!("Unable to initialize TLS: {error}")))?;
        let mut config = config
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OneServer { judge, verify: rules.verify, algorithms }))
            .with_client_cert_resolver(Arc::new(identities));
        config.enable_secret_extraction = true;
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), warnings })
    }

    /// What isn't as it should be, though it works.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A handshake with the server of this name or address, as the URI has it (an IPv6 address without brackets).
    pub(crate) fn connect(&self, host: &str) -> Result<Handshake, TlsError> {
        // A zone says by which of this host's links an address is reached: no certificate knows it.
        let address = host.split_once('%').map(|(address, _)| address);
        let host = address.filter(|address| address.parse::<Ipv6Addr>().is_ok()).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            TlsError::new(format!("Unable to set TLS server name: no certificate can be for '{host}'"))
                .advise("use the host's name as it stands in its certificate")
        })?;
        let connection = UnbufferedClientConnection::new(Arc::clone(&self.config), name);
        let connection =
            connection.map_err(|error| TlsError::new(format!("Unable to initialize TLS: {error}")))?;
        Ok(Handshake::client(connection))
    }
}

/// What both sides read.
struct Loaded {
    identities: Identities,
    judge: Judge,
    choice: Choice,
    revokes: bool,
    warnings: Vec<String>,
}

impl Loaded {
    fn from(files: &Files, rules: &Rules, side: Side) -> Result<Self, TlsError> {
        let choice = priority::choose(rules.priority.as_deref())?;
        let authorities = files::certificates("CA certificate", &files.ca)?;
        let lists = files.revocation_lists()?;
        let identities = Identities::load(&files.own, side)?;
        let revoked = Revoked::read(files.crl.as_deref().unwrap_or(Path::new("")), &lists)?;
        let judge = Judge::new(&files.ca, &authorities, revoked)?;
        let now = UnixTime::now();
        let mut faults = identities.passed_over.clone();
        if rules.sanity {
            for identity in &identities.all {
                let first = identity.chain().first();
                faults.extend(
                    first
                        .iter()
                        .flat_map(|der| check::certificate(&identity.path, der, Role::Own(side), now)),
                );
            }
            for der in &authorities {
                faults.extend(check::certificate(&files.ca, der, Role::Authority, now));
            }
            for identity in &identities.all {
                faults.extend(check::own_chain(&identity.path, identity.chain(), &files.ca, &judge, now));
            }
        } else {
            faults.extend(authorities.iter().filter_map(|der| check::proves_nobody(&files.ca, der)));
            let old = |path, der, role| check::out_of_time(path, der, role, now);
            for identity in &identities.all {
                let first = identity.chain().first();
                faults.extend(first.iter().flat_map(|der| old(&identity.path, der, Role::Own(side))));
            }
            faults.extend(authorities.iter().flat_map(|der| old(&files.ca, der, Role::Authority)));
        }
        if let Some(crl) = &files.crl {
            faults.extend(check::revocation_lists(crl, &lists, &authorities, now));
        }
        faults.extend(files.own.iter().filter_map(|(_, key)| check::key_file(key)));
        let (fatal, rest): (Vec<Fault>, Vec<Fault>) = faults.into_iter().partition(|fault| fault.fatal);
        if let Some(first) = fatal.into_iter().next() {
            return Err(first.into());
        }
        let rest = rest.into_iter().map(|fault| format!("{}: {}", fault.text, fault.advice));
        let warnings = choice.warning.iter().cloned().chain(rest).collect();
        Ok(Self { identities, judge, choice, revokes: !lists.is_empty(), warnings })
    }
}

/// The first certificate in a PEM file, as DER.
pub(crate) fn first_certificate(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut read = files::certificates("certificate", path)?;
    Ok(read.swap_remove(0).to_vec())
}
