//! STUB
#![allow(dead_code)]
use super::layer::{Broken, Layer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
pub(crate) struct Files {
    pub(crate) ca: PathBuf,
    pub(crate) crl: Option<PathBuf>,
    pub(crate) own: Vec<(PathBuf, PathBuf)>,
}
impl Files {
    pub(crate) fn server(_: Option<&Path>) -> Self {
        Self { ca: "/".into(), crl: None, own: Vec::new() }
    }
}
pub(crate) struct Rules {
    pub(crate) sanity: bool,
    pub(crate) verify: bool,
    pub(crate) priority: Option<String>,
}
#[derive(Debug)]
pub(crate) struct TlsError;
impl TlsError {
    pub(crate) fn advice(&self) -> &str {
        ""
    }
}
impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stub")
    }
}
pub(crate) struct Acceptor;
impl Acceptor {
    pub(crate) fn load(_: &Files, _: &Rules, _: Option<&[String]>) -> Result<Self, TlsError> {
        Err(TlsError)
    }
    pub(crate) fn warnings(&self) -> &[String] {
        &[]
    }
    pub(crate) fn accept(self: &Arc<Self>) -> Result<Handshake, TlsError> {
        Err(TlsError)
    }
}
pub(crate) struct Handshake;
impl Handshake {
    pub(crate) fn step(&mut self, _: &mut [u8], _: &mut Vec<u8>) -> Result<Option<Established>, TlsError> {
        Err(TlsError)
    }
    pub(crate) fn record(_: &[u8]) -> Result<Option<usize>, Broken> {
        Ok(None)
    }
}
pub(crate) struct Established {
    pub(crate) layer: Layer,
    pub(crate) peer: Option<String>,
    pub(crate) verdict: Result<(), TlsError>,
}
