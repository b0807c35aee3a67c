//! Any bytes as what the other end sends, for fuzzers: records behind a handshake, and handshakes.
//!
//! Leans on the certificates in tests/data/tls. Refuses nothing, and panics if a promise is broken.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::ConnectionTrafficSecrets as Secrets;
use rustls::crypto::cipher::{AeadKey, Iv};

use super::cipher::{Cipher, Version, kind};
use super::record::{self, Next};
use super::{Acceptor, Connector, Files, Handshake, Rules, Side};
use crate::net::layer::{Broken, Layer};

/// What somebody who has the keys sends: each piece of `bytes` is a kind, a length and what a record carries, sealed as it
/// is. No data comes that wasn't sent as data, and nothing comes behind a fault.
pub(crate) fn records(old: bool, mut bytes: &[u8]) {
    let version = if old { Version::Tls12 } else { Version::Tls13 };
    let Some((mut layer, mut craft)) = ends(version) else { return };
    let mut broken = None;
    while let Some((&[what, high, low], rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (content, rest) = rest.split_at(length);
        bytes = rest;
        let mut sealed = Vec::new();
        if craft
            .seal(what, content.len(), [content].into_iter(), &mut vec![0; content.len() + 1], &mut sealed)
            .is_err()
        {
            return;
        }
        let mut data = Vec::new();
        let result = layer.opener.open(&mut sealed, &mut |part| data.extend_from_slice(part));
        if let Some(broken) = broken {
            assert_eq!(result, Err(broken), "it goes on");
        }
        broken = result.err();
        if !data.is_empty() {
            // Zeros at the end may be padding that hides another kind in front of it.
            let own = what == kind::DATA && data == content;
            let padded = what == 0 && version == Version::Tls13 && content.starts_with(&data);
            assert!(own || padded, "data out of nothing");
        }
        // The sealer must never be led astray by what came.
        let mut sealed = Vec::new();
        assert_eq!(layer.sealer.seal(&[b"plain"], &mut sealed), Ok(()));
    }
}

/// What somebody without the keys sends: nothing opens.
pub(crate) fn noise(old: bool, bytes: &[u8]) {
    let version = if old { Version::Tls12 } else { Version::Tls13 };
    let Some((mut layer, _)) = ends(version) else { return };
    let Ok(Some(length)) = layer.opener.record(bytes) else { return };
    let Some(record) = bytes.get(..length) else { return };
    let result =
        layer.opener.open(&mut record.to_vec(), &mut |_| panic!("a record opened that nobody sealed"));
    assert!(matches!(result, Err(Broken::Malformed(_))));
}

/// A handshake with somebody who sends these records: it doesn't panic, and comes to no good end.
pub(crate) fn handshake(side: Side, mut bytes: &[u8]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
    static ACCEPTOR: OnceLock<Option<Arc<Acceptor>>> = OnceLock::new();
    static CONNECTOR: OnceLock<Option<Connector>> = OnceLock::new();
    let mut out = Vec::new();
    let ours = match side {
        Side::Server => {
            let load = || Acceptor::load(&Files::within(&directory, side), &Rules::default(), None);
            let acceptor = ACCEPTOR.get_or_init(|| load().ok().map(Arc::new));
            acceptor.as_ref().and_then(|acceptor| acceptor.accept().ok())
        }
        Side::Client => {
            let load = || Connector::load(&Files::within(&directory, side), &Rules::default());
            let connector = CONNECTOR.get_or_init(|| load().ok());
            connector.as_ref().and_then(|connector| connector.connect("host.example").ok())
        }
    };
    let Some(mut ours) = ours else { panic!("tests/data/tls can't be read") };
    if side == Side::Client {
        assert!(matches!(ours.step(&mut [], &mut out), Ok(None)));
    }
    while let Ok(Some(length)) = Handshake::record(bytes) {
        let Some((record, rest)) = bytes.split_at_checked(length) else { return };
        bytes = rest;
        match ours.step(&mut record.to_vec(), &mut out) {
            Ok(None) => {}
            Ok(Some(_)) => panic!("a handshake without keys"),
            Err(_) => return,
        }
    }
}

/// Our layer, and a cipher that seals for it whatever it is told to.
fn ends(version: Version) -> Option<(Layer, Cipher)> {
    let secrets = rustls::ExtractedSecrets { tx: (0, secrets(1)), rx: (0, secrets(1)) };
    let craft = Cipher::new(version, 0, &secrets.rx.1).ok()?;
    let layer = record::layer(version, secrets, Box::new(Always), true).ok()?;
    Some((layer, craft))
}

fn secrets(byte: u8) -> Secrets {
    Secrets::Aes256Gcm { key: AeadKey::from([byte; 32]), iv: Iv::from([byte; 12]) }
}

/// The next secrets are others, and always the same.
struct Always;

impl Next for Always {
    fn to_open(&mut self) -> Result<Secrets, rustls::Error> {
        Ok(secrets(2))
    }

    fn to_seal(&mut self) -> Result<Secrets, rustls::Error> {
        Ok(secrets(2))
    }
}
