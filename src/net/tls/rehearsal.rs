//! Any bytes as what the other end sends, for fuzzers: records behind a handshake, handshakes, and certificates.
//!
//! Leans on the certificates in tests/data/tls. Refuses nothing, and panics if a promise is broken.

use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use rustls::ConnectionTrafficSecrets as Secrets;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};

use super::check::{self, Role};
use super::cipher::{Cipher, Version, kind};
use super::record::{self, Next};
use super::revocation::Revoked;
use super::verify::{Judge, is_for};
use super::{Acceptor, Connector, Files, Handshake, Rules, Side, files};
use crate::net::dn;
use crate::net::layer::{Broken, Layer};

/// What somebody who has the keys sends: each piece of `bytes` is a kind, a length and what a record carries, sealed as it
/// is; behind a KeyUpdate that we have taken, under the next keys. No data comes that wasn't sent as data, and nothing comes
/// behind a fault. `tickets`: it is a server. Gives how much data has come.
pub(crate) fn records(old: bool, tickets: bool, mut bytes: &[u8]) -> usize {
    let version = if old { Version::Tls12 } else { Version::Tls13 };
    let Some((mut layer, mut craft, taken)) = ends(version, tickets) else { return 0 };
    let (mut broken, mut renewals, mut came) = (None, 0, 0);
    while let Some((&[what, high, low], rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (content, rest) = rest.split_at(length);
        bytes = rest;
        let mut sealed = Vec::new();
        let mut bench = vec![0; content.len() + 1];
        if craft.seal(what, content.len(), [content].into_iter(), &mut bench, &mut sealed).is_err() {
            return came;
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
            came += data.len();
        }
        let renewed = taken.load(Ordering::Relaxed);
        if renewed != renewals {
            assert!(
                version == Version::Tls13 && renewed == renewals.wrapping_add(1) && data.is_empty(),
                "keys out of nothing"
            );
            renewals = renewed;
            let Ok(next) = Cipher::new(version, 0, &secrets(nth(renewals))) else { return came };
            craft = next;
        }
        // The sealer must never be led astray by what came.
        let mut sealed = Vec::new();
        assert_eq!(layer.sealer.seal(&[b"plain"], &mut sealed), Ok(()));
    }
    came
}

/// What somebody without the keys sends: nothing opens.
pub(crate) fn noise(old: bool, bytes: &[u8]) {
    let version = if old { Version::Tls12 } else { Version::Tls13 };
    let Some((mut layer, ..)) = ends(version, true) else { return };
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

/// Certificates as somebody shows them, each behind its length in two bytes. The first byte says whose they are to be, and
/// whether the last one is in our CA file, or is a revocation list. Nobody is proved whom our CA hasn't signed, and nothing
/// that is said of them begins a line of its own.
pub(crate) fn certificates(bytes: &[u8]) {
    let Some((&what, mut rest)) = bytes.split_first() else { return };
    let mut pieces = Vec::new();
    while let Some((&length, behind)) = rest.split_first_chunk()
        && pieces.len() < 8
    {
        let (piece, behind) = behind.split_at(usize::from(u16::from_be_bytes(length)).min(behind.len()));
        pieces.push(piece.to_vec());
        rest = behind;
    }
    let side = if what & 1 == 0 { Side::Server } else { Side::Client };
    let (place, now) = (Path::new("noise"), UnixTime::now());
    let mut said = Vec::new();
    let known = known();
    let (mut authorities, mut lists) = (vec![known.ca.clone()], Vec::new());
    match what & 6 {
        2 => authorities.extend(pieces.pop().map(CertificateDer::from)),
        4 => lists.extend(pieces.pop().map(CertificateRevocationListDer::from)),
        _ => {}
    }
    let chain: Vec<_> = pieces.into_iter().map(CertificateDer::from).collect();
    for der in chain.iter().chain(&authorities) {
        said.extend(check::certificate(place, der, Role::Own(side), now));
        said.extend(check::certificate(place, der, Role::Authority, now));
        said.extend(check::proves_nobody(place, der));
        _ = dn::of(der);
    }
    said.extend(check::revocation_lists(place, &lists, &authorities, now));
    for host in &known.hosts {
        for constrained in [false, true] {
            let Some(Err(error)) = chain.first().map(|der| is_for(der, host, constrained)) else { continue };
            said.push(error.into());
        }
    }
    let judge = Revoked::read(place, &lists).and_then(|lists| Judge::new(place, &authorities, lists));
    match judge.map(|judge| (judge.judge(&chain, side, now), judge)) {
        Ok((Ok(_), judge)) => {
            assert!(what & 6 == 2 || known.signed.contains(&chain[0]), "proved out of nothing");
            assert_eq!(judge.leads_here(&chain, now), Ok(()));
        }
        Ok((Err(error), _)) | Err(error) => said.push(error.into()),
    }
    assert!(said.iter().all(|fault| !fault.text.contains(char::is_control)), "{said:?}");
    assert!(said.iter().all(|fault| !fault.advice.contains(char::is_control)), "{said:?}");
}

/// Our CA, all that it has signed, and hosts.
struct Known {
    ca: CertificateDer<'static>,
    signed: [CertificateDer<'static>; 2],
    hosts: [ServerName<'static>; 3],
}

fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
        let read = |name| match files::certificates("certificate", &directory.join(name)) {
            Ok(mut certificates) => certificates.swap_remove(0),
            Err(error) => panic!("tests/data/tls can't be read: {error}"),
        };
        let host = |name| ServerName::try_from(name);
        let (Ok(name), Ok(four), Ok(six)) = (host("host.example"), host("127.0.0.1"), host("fe80::1")) else {
            panic!("these are names")
        };
        Known {
            ca: read("cacert.pem"),
            signed: [read("servercert.pem"), read("clientcert.pem")],
            hosts: [name, four, six],
        }
    })
}

/// Our layer, a cipher that seals for it whatever it is told to, and how often the layer has taken new keys.
fn ends(version: Version, tickets: bool) -> Option<(Layer, Cipher, Arc<AtomicU8>)> {
    let secrets = rustls::ExtractedSecrets { tx: (0, secrets(nth(0))), rx: (0, secrets(nth(0))) };
    let craft = Cipher::new(version, 0, &secrets.rx.1).ok()?;
    let taken = Arc::new(AtomicU8::new(0));
    let layer = record::layer(version, secrets, Box::new(Counting(Arc::clone(&taken))), tickets).ok()?;
    Some((layer, craft, taken))
}

fn secrets(byte: u8) -> Secrets {
    Secrets::Aes256Gcm { key: AeadKey::from([byte; 32]), iv: Iv::from([byte; 12]) }
}

/// What the secrets are made of behind so many KeyUpdates: after enough of them the first ones come again.
fn nth(renewals: u8) -> u8 {
    renewals.wrapping_add(1)
}

/// The next secrets of what comes are others each time; those of what goes aren't looked at.
struct Counting(Arc<AtomicU8>);

impl Next for Counting {
    fn to_open(&mut self) -> Result<Secrets, rustls::Error> {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        Ok(secrets(nth(before.wrapping_add(1))))
    }

    fn to_seal(&mut self) -> Result<Secrets, rustls::Error> {
        Ok(secrets(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzzer_sees_what_is_behind_a_key_update() {
        let update = [22, 0, 5, 24, 0, 0, 1, 1];
        let data = [23, 0, 4, b'd', b'a', b't', b'a'];
        let all = [&data[..], &update, &data, &update, &update, &data].concat();
        assert_eq!(records(false, true, &all), 12);
        assert_eq!(records(true, true, &all), 4, "TLS 1.2 has none");
    }

    #[test]
    fn the_fuzzer_is_a_client_too_who_has_no_tickets_to_give() {
        let all = [&[22, 0, 8, 4, 0, 0, 4, 9, 9, 9, 9][..], &[23, 0, 2, b'o', b'n']].concat();
        assert_eq!((records(false, true, &all), records(false, false, &all)), (2, 0));
    }
}
