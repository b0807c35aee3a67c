//! wire: a stand-in for the room's TLS, until it is here.
#![allow(dead_code, clippy::unnecessary_wraps, clippy::needless_pass_by_value, unused_variables)]

use std::fmt;
use std::path::{Path, PathBuf};

use super::layer::{Broken, Layer};

pub(crate) struct Files {
    pub(crate) ca: PathBuf,
}

impl Files {
    pub(crate) fn client(pkipath: Option<&Path>, home: Option<&Path>) -> Self {
        Self { ca: PathBuf::from("/etc/pki/CA/cacert.pem") }
    }
}

pub(crate) struct Rules {
    pub(crate) sanity: bool,
    pub(crate) verify: bool,
    pub(crate) priority: Option<String>,
}

#[derive(Debug)]
pub(crate) struct TlsError;

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this build has no TLS yet")
    }
}

impl TlsError {
    pub(crate) fn advice(&self) -> &str {
        ""
    }
}

pub(crate) struct Connector;

impl Connector {
    pub(crate) fn load(files: &Files, rules: &Rules) -> Result<Self, TlsError> {
        Err(TlsError)
    }

    pub(crate) fn connect(&self, host: &str) -> Result<Handshake, TlsError> {
        Err(TlsError)
    }
}

pub(crate) struct Handshake;

impl Handshake {
    pub(crate) fn step(
        &mut self,
        record: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Established>, TlsError> {
        Err(TlsError)
    }

    pub(crate) fn record(front: &[u8]) -> Result<Option<usize>, Broken> {
        Ok(None)
    }
}

pub(crate) struct Established {
    pub(crate) layer: Layer,
    pub(crate) peer: Option<String>,
    pub(crate) verdict: Result<(), TlsError>,
}
