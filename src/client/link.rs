//! What is known of a connection before anybody has authenticated: where it leads, what protects it, whose credentials fit.
//!
//! Leans on `net` for what may be around. Refuses nothing; SASL judges by it, in builds that have it.
#![cfg_attr(not(feature = "sasl"), allow(dead_code, reason = "only SASL asks"))]

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::net::around::Around;

/// A connection, as SASL sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// The host that the URI names; `localhost` where none is. Kerberos proves that it is this one.
    pub(super) host: String,
    /// What protects the stream.
    pub(super) around: Around,
    /// The two ends' addresses, if they have such.
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: Option<SocketAddr>,
    /// The file with credentials, if the URI names one.
    pub(super) authfile: Option<PathBuf>,
    /// Who we are, if the URI says so.
    pub(super) user: Option<String>,
}

impl Link {
    /// One to a socket of this host.
    pub(super) fn local() -> Self {
        let host = "localhost".to_owned();
        Self { host, around: Around::Unix, local: None, remote: None, authfile: None, user: None }
    }
}
