//! A CA of one's own, peers made by rustls alone, and the conversations between them and us.

mod authorities;
mod gnutls;
mod handshakes;
mod judging;
mod revoking;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, ClientConfig, Connection, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::*;

/// A directory with a CA, and certificates by it.
pub(super) struct Pki {
    pub(super) directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    /// The same, who may sign lists: rcgen asks.
    lists: Issuer<'static, KeyPair>,
    /// What stands behind each certificate that is issued.
    behind: String,
}

/// All in one directory.
fn within(directory: &Path) -> Places<'_> {
    Places { pkipath: Some(directory), home: None, named: None }
}

impl Pki {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    /// With a CA that isn't quite as usual.
    pub(super) fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(directory.path().join("cacert.pem"), certificate.pem()).unwrap();
        Self::of(directory, params, key)
    }

    fn of(directory: tempfile::TempDir, params: CertificateParams, key: KeyPair) -> Self {
        let mut lists = params.clone();
        lists.key_usages.push(KeyUsagePurpose::CrlSign);
        let lists = Issuer::new(lists, KeyPair::from_pem(&key.serialize_pem()).unwrap());
        Self { directory, issuer: Issuer::new(params, key), lists, behind: String::new() }
    }

    /// A CA that this one has signed; what it issues comes with its certificate.
    pub(super) fn below(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "CA below");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serial_number = Some(SerialNumber::from(5));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let mut below = Self::of(tempfile::tempdir().unwrap(), params, key);
        below.behind = certificate;
        std::fs::copy(self.files(Side::Server).ca, below.files(Side::Server).ca).unwrap();
        below
    }

    /// With a server's and a client's certificate, both good.
    pub(super) fn whole() -> Self {
        let pki = Self::new();
        pki.issue(Side::Server, |_| {});
        pki.issue(Side::Client, |_| {});
        pki
    }

    /// Puts a certificate, and its key, in their places.
    pub(super) fn issue(&self, side: Side, change: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::generate().unwrap();
        self.issue_for(&key, &self.files(side).own[0], side, change);
    }

    /// The same for a key, and a place, of one's choice.
    pub(super) fn issue_for(
        &self,
        key: &KeyPair,
        (place, key_place): &(PathBuf, PathBuf),
        side: Side,
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CountryName, DnValue::PrintableString("GB".try_into().unwrap()));
        params.distinguished_name.push(DnType::CommonName, format!("{side}.example"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        params.serial_number = Some(SerialNumber::from(7));
        match side {
            Side::Server => {
                params.subject_alt_names =
                    CertificateParams::new(["host.example".to_owned(), "127.0.0.1".to_owned()])
                        .unwrap()
                        .subject_alt_names;
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }
            Side::Client => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        }
        change(&mut params);
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        std::fs::write(place, certificate.pem() + &self.behind).unwrap();
        self.private(key_place, &key.serialize_pem());
    }

    /// Puts a revocation list in its place, with these serial numbers.
    pub(super) fn revoke(&self, serials: &[u64], next_update: i32) {
        std::fs::write(self.directory.path().join("cacrl.pem"), self.list(serials, next_update)).unwrap();
    }

    /// A revocation list as PEM.
    pub(super) fn list(&self, serials: &[u64], next_update: i32) -> String {
        let revoked_cert = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(next_update, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked_cert).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.lists).unwrap().pem().unwrap()
    }

    pub(super) fn files(&self, side: Side) -> Files {
        Files::within(self.directory.path(), side)
    }

    pub(super) fn acceptor(&self) -> Arc<Acceptor> {
        Arc::new(Acceptor::load(&self.files(Side::Server), &Rules::default(), None).unwrap())
    }

    pub(super) fn connector(&self) -> Connector {
        Connector::load(&self.files(Side::Client), &Rules::default()).unwrap()
    }

    fn private(&self, path: &PathBuf, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    /// A peer that is rustls through and through, and our side's handshake with it. `side` is the peer's.
    pub(super) fn peer(
        &self,
        side: Side,
        suite: CipherSuite,
        version: &'static SupportedProtocolVersion,
    ) -> (Connection, Handshake) {
        let mut provider = default_provider();
        provider.cipher_suites.retain(|known| known.suite() == suite);
        let provider = Arc::new(provider);
        let (certificate, key) = self.files(side).own.remove(0);
        let chain: Vec<_> = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        match side {
            Side::Client => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(self.files(side).ca).unwrap()).unwrap();
                let config = ClientConfig::builder_with_provider(provider)
                    .with_protocol_versions(&[version])
                    .unwrap()
                    .with_root_certificates(roots)
                    .with_client_auth_cert(chain, key)
                    .unwrap();
                let name = "host.example".try_into().unwrap();
                let client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
                (client.into(), self.acceptor().accept().unwrap())
            }
            Side::Server => {
                let algorithms = provider.signature_verification_algorithms;
                let config = ServerConfig::builder_with_provider(provider)
                    .with_protocol_versions(&[version])
                    .unwrap()
                    .with_client_cert_verifier(Arc::new(AnyClient(algorithms)))
                    .with_single_cert(chain, key)
                    .unwrap();
                let server = rustls::ServerConnection::new(Arc::new(config)).unwrap();
                (server.into(), self.connector().connect("host.example").unwrap())
            }
        }
    }
}

/// The records in a stream, one by one.
pub(super) fn records(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some(length) = Handshake::record(stream).unwrap() {
        let (record, rest) = stream.split_at(length);
        records.push(record.to_vec());
        stream = rest;
    }
    assert!(stream.is_empty(), "half a record");
    records
}

/// All that a peer has to send.
pub(super) fn sent(peer: &mut Connection) -> Vec<u8> {
    let mut stream = Vec::new();
    while peer.wants_write() {
        peer.write_tls(&mut stream).unwrap();
    }
    stream
}

/// Gives a peer what we have sent.
pub(super) fn give(peer: &mut Connection, mut stream: &[u8]) -> Result<Vec<u8>, rustls::Error> {
    let mut read = Vec::new();
    while !stream.is_empty() {
        peer.read_tls(&mut stream).unwrap();
        peer.process_new_packets()?;
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = peer.reader().read(&mut buffer) {
            read.extend_from_slice(&buffer[..length]);
        }
    }
    Ok(read)
}

/// What a peer sends, opened by us.
pub(super) fn opened(layer: &mut Layer, stream: &[u8]) -> Result<Vec<u8>, Broken> {
    let mut data = Vec::new();
    for mut record in records(stream) {
        assert_eq!(layer.opener.record(&record[..5])?, Some(record.len()));
        layer.opener.open(&mut record, &mut |part| data.extend_from_slice(part))?;
    }
    Ok(data)
}

/// The handshake between us and a peer, to its end.
pub(super) fn meet(ours: &mut Handshake, peer: &mut Connection) -> Established {
    let mut out = Vec::new();
    let mut established = match peer {
        Connection::Server(_) => ours.step(&mut [], &mut out).unwrap(),
        Connection::Client(_) => None,
    };
    for _ in 0..10 {
        give(peer, &std::mem::take(&mut out)).unwrap();
        if let Some(established) = established {
            assert!(!peer.is_handshaking());
            return established;
        }
        for mut record in records(&sent(peer)) {
            assert!(established.is_none(), "a record behind the end");
            established = ours.step(&mut record, &mut out).unwrap();
        }
    }
    panic!("the handshake goes on for ever");
}

/// The handshake between our client and our server, to its end: what each has got, the client first.
pub(super) fn both(
    client: &mut Handshake,
    server: &mut Handshake,
) -> (Result<Established, TlsError>, Option<Result<Established, TlsError>>) {
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let mut clients = client.step(&mut [], &mut to_server).map(|_| None);
    let mut servers = None;
    for _ in 0..10 {
        for mut record in records(&std::mem::take(&mut to_server)) {
            if servers.is_none() {
                servers = server.step(&mut record, &mut to_client).transpose();
            }
        }
        for mut record in records(&std::mem::take(&mut to_client)) {
            if matches!(clients, Ok(None)) {
                clients = client.step(&mut record, &mut to_server);
            }
        }
        if to_server.is_empty() && to_client.is_empty() {
            break;
        }
    }
    let clients =
        clients.transpose().unwrap_or_else(|| Err(TlsError::new("the client never came to its end")));
    (clients, servers)
}

pub(super) fn write(peer: &mut Connection, data: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for part in data.chunks(10_000) {
        peer.writer().write_all(part).unwrap();
        stream.extend(sent(peer));
    }
    stream
}

use super::super::layer::{Broken, Layer};
