//! The daemon on the network, by a client that is rustls' own: what each setting of TLS changes for those who come, and what a
//! herd of clients that read nothing leaves for others.
//!
//! Leans on rcgen for certificates, and on openssl for the one kind of key that ring can't make. Every daemon listens on
//! loopback, on a port that the kernel chooses. Refuses to verify a server where the test is about something else.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/pki.rs"]
mod pki;
mod support;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Instant;

use pki::{Authority, Pair};
use rcgen::{KeyPair, PKCS_ED25519, date_time_ymd};
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ALL_VERSIONS, ClientConfig, ClientConnection, DigitallySignedStruct, ProtocolVersion, SignatureScheme,
    StreamOwned, SupportedProtocolVersion,
};
use support::Place;
use support::daemon::{Daemon, PATIENCE};
use support::wire::{Client, Xdr, call, flagged_body, number, open_body};

#[test]
fn a_herd_that_reads_no_replies_takes_no_memory_from_others() {
    let site = Site::new();
    let (daemon, address) = site.listen(&site.usual());
    let caller = Caller { own: Some(site.client.clone()), ..Caller::default() };
    let mut local = daemon.client();
    let xml = format!("<secret private='no'><description>{}</description></secret>", "x".repeat(3000));
    let uuid = local.define(&xml).unwrap().unwrap();
    let value = vec![b'v'; 20_000];
    local.set(uuid, &value).unwrap().unwrap();

    // Small calls, as many as a record takes, for replies that nobody reads.
    let asks = call(number::GET_XML, 7, &flagged_body(uuid));
    let record = asks.repeat((16 << 10) / asks.len());
    let mut herd: Vec<Tls> = (0..HERD)
        .map(|_| {
            let client = caller.open(narrow(address));
            client.stream.sock.set_nonblocking(true).unwrap();
            client.stream
        })
        .collect();
    // Until nobody's socket takes any more.
    let (mut idle, deadline) = (0, Instant::now() + PATIENCE);
    while idle < 20 && Instant::now() < deadline {
        let taken: usize = herd.iter_mut().map(|client| push(client, &record)).sum();
        idle = if taken == 0 { idle + 1 } else { 0 };
        std::thread::yield_now();
    }

    for _ in 0..5 {
        assert_eq!(local.get(uuid).unwrap(), Ok(value.clone()), "this host's own");
    }
    let mut late = caller.open(TcpStream::connect(address).unwrap());
    assert_eq!(late.get(uuid).unwrap(), Ok(value), "one that comes late");
    site.place.hear(&["it stands still, and others wait for the memory that it holds"]);
}

#[test]
fn whoever_comes_is_let_in_where_that_is_meant() {
    let site = Site::new();
    let stranger =
        Caller { own: Some(Authority::new("another").client("stranger", |_| ())), ..Caller::default() };
    let bare = Caller::default();
    let (daemon, address) = site.listen(&site.usual());
    assert!(bare.call_on(address).is_err() && stranger.call_on(address).is_err());
    assert!(daemon.stop().success());

    let lines = site.usual() + "tls_no_verify_certificate = 1\n";
    let (status, said) = site.refuse(&lines);
    assert!(status.code() == Some(1) && said.contains("whoever reaches the TLS port"), "{status}: {said}");
    let (_daemon, address) = site.listen(&(lines + "allow_unauthenticated = 1\n"));
    for caller in [bare, stranger] {
        let mut client = caller.open(TcpStream::connect(address).unwrap());
        client.define("<secret/>").unwrap().unwrap();
    }
    site.place.hear(&["let in all the same, because tls_no_verify_certificate is set"]);
}

#[test]
fn what_comes_with_the_end_of_a_handshake_is_for_the_connection() {
    let site = Site::new();
    let (_daemon, address) = site.listen(&site.usual());
    let asks = call(number::AUTH_LIST, 1, &Xdr::default());
    for (versions, longest_record) in
        [(NEWEST, None), (NEWEST, Some(128)), (ALL_VERSIONS, Some(4096)), (OLDER, Some(128))]
    {
        let mut config = Caller { own: Some(site.client.clone()), versions, ..Caller::default() }.config();
        config.max_fragment_size = longest_record;
        let mut hasty = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        // It goes out with the last records of the handshake, unless those have to be answered.
        hasty.writer().write_all(&asks.repeat(3)).unwrap();
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut heard = [0; 1 + 3 * 36];
        StreamOwned::new(hasty, socket).read_exact(&mut heard).unwrap();
        assert_eq!(heard[0], 1, "{versions:?}, {longest_record:?}");
        assert!(heard[1..].chunks(36).all(|reply| reply[..4] == 36_u32.to_be_bytes()), "{heard:?}");
    }
}

#[test]
fn the_priority_says_which_versions_are_spoken() {
    let site = Site::new();
    let (daemon, address) = site.listen(&site.usual());
    let any = Caller { own: Some(site.client.clone()), ..Caller::default() };
    let newest = Caller { versions: NEWEST, ..any.clone() };
    let spoken =
        |caller: &Caller| caller.call_on(address).map(|client| client.conn.protocol_version().unwrap()).ok();
    assert_eq!([&any, &newest].map(spoken), [Some(ProtocolVersion::TLSv1_3); 2]);
    assert!(daemon.stop().success());

    let (_daemon, address) = site.listen(&(site.usual() + "tls_priority = \"NORMAL:-VERS-TLS1.3\"\n"));
    let spoken =
        |caller: &Caller| caller.call_on(address).map(|client| client.conn.protocol_version().unwrap()).ok();
    assert_eq!([&any, &newest].map(spoken), [Some(ProtocolVersion::TLSv1_2), None]);
}

#[test]
fn a_certificate_that_looks_unfit_is_served_where_that_is_meant() {
    let site = Site::new();
    let old = site.authority.server(&["localhost"], |params| params.not_after = date_time_ymd(2024, 2, 1));
    let lines = site.certified(&[("server", &old)]);
    let (status, said) = site.refuse(&lines);
    assert!(
        status.code() == Some(6) && said.contains("has expired") && said.contains("hint: "),
        "{status}: {said}"
    );
    let (_daemon, address) = site.listen(&(lines + "tls_no_sanity_certificate = 1\n"));
    site.place.hear(&["warning", "has expired", "it was valid until 2024-02-01"]);
    let caller = Caller { own: Some(site.client.clone()), ..Caller::default() };
    assert_eq!(caller.sees(address), Some(der(&old)));
}

#[test]
fn of_several_certificates_each_client_sees_one_that_it_understands() {
    let site = Site::new();
    let made = Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .expect("openssl: apt-get install openssl");
    let rsa_key = KeyPair::from_pem(&String::from_utf8(made.stdout).unwrap()).unwrap();
    let [rsa, ed25519] = [rsa_key, KeyPair::generate_for(&PKCS_ED25519).unwrap()]
        .map(|key| site.authority.server_with(key, &["localhost"], |_| ()));
    let lines = site.certified(&[("rsa", &rsa), ("ecdsa", &site.server), ("ed25519", &ed25519)]);
    let (_daemon, address) = site.listen(&lines);
    for (schemes, expected) in [
        (&[SignatureScheme::RSA_PSS_SHA256][..], &rsa),
        (&[SignatureScheme::ECDSA_NISTP256_SHA256], &site.server),
        (&[SignatureScheme::ED25519], &ed25519),
        (&[SignatureScheme::ED25519, SignatureScheme::RSA_PSS_SHA256], &rsa), // the first that fits
    ] {
        let caller =
            Caller { own: Some(site.client.clone()), schemes: schemes.to_vec(), ..Caller::default() };
        assert_eq!(caller.sees(address), Some(der(expected)), "{schemes:?}");
    }
}

#[test]
fn a_list_of_revoked_certificates_that_is_named_must_be_there() {
    let site = Site::new();
    let list = site.place.0.join("cacrl.pem");
    let lines = format!("{}crl_file = \"{}\"\n", site.usual(), list.display());
    let (status, said) = site.refuse(&lines);
    let missing = format!("Cannot read CA revocation list '{}'", list.display());
    assert!(
        status.code() == Some(6) && said.contains(&missing) && said.contains("hint: "),
        "{status}: {said}"
    );

    let lost = site.authority.client("lost", |params| params.serial_number = Some(4711_u64.into()));
    let lost = Caller { own: Some(lost), ..Caller::default() };
    std::fs::write(&list, site.authority.revoke(4711)).unwrap();
    let (daemon, address) = site.listen(&lines);
    assert!(lost.call_on(address).is_err());
    std::fs::remove_file(&list).unwrap();
    let pid = rustix::process::Pid::from_child(&daemon.process);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    site.place.hear(&[&missing, "the certificates from before stay in use"]);
    assert!(lost.call_on(address).is_err(), "it has come back");
}

/// A daemon's place, and the certificates around it.
struct Site {
    _directory: tempfile::TempDir,
    place: Place,
    authority: Authority,
    server: Pair,
    client: Pair,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("authority");
        Self {
            place: Place(directory.path().into()),
            server: authority.server(&["localhost"], |_| ()),
            client: authority.client("client", |_| ()),
            authority,
            _directory: directory,
        }
    }

    /// The settings for one good certificate.
    fn usual(&self) -> String {
        self.certified(&[("server", &self.server)])
    }

    /// The settings for these certificates.
    fn certified(&self, pairs: &[(&str, &Pair)]) -> String {
        let file = |name: String, text: &str| -> PathBuf {
            let path = self.place.0.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let ca = file("ca.pem".into(), &self.authority.pem());
        let certificates: Vec<_> =
            pairs.iter().map(|(name, pair)| file(format!("{name}.pem"), &pair.certificate)).collect();
        let keys: Vec<_> = pairs.iter().map(|(name, pair)| file(format!("{name}.key"), &pair.key)).collect();
        let own = match (&certificates[..], &keys[..]) {
            ([certificate], [key]) => format!("cert_file = {certificate:?}\nkey_file = {key:?}\n"),
            _ => format!("cert_files = {certificates:?}\nkey_files = {keys:?}\n"),
        };
        format!("listen_addr = \"127.0.0.1\"\ntls_port = \"0\"\nca_file = {ca:?}\n{own}")
    }

    /// A daemon that listens on loopback, and where.
    fn listen(&self, lines: &str) -> (Daemon, SocketAddr) {
        _ = std::fs::remove_file(self.place.daemon_log());
        let daemon = self.place.serve_with(lines, &["--listen"]);
        (daemon, self.place.listens("tls"))
    }

    /// A start that must fail: how, and what is said.
    fn refuse(&self, lines: &str) -> (ExitStatus, String) {
        std::fs::write(self.place.daemon_output(), "").unwrap();
        let mut process = self.place.command(lines).arg("--listen").spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match process.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() < deadline => std::thread::yield_now(),
                None => {
                    process.kill().unwrap();
                    break process.wait().unwrap();
                }
            }
        };
        (status, std::fs::read_to_string(self.place.daemon_output()).unwrap())
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Somebody who comes by TLS.
#[derive(Debug, Clone)]
struct Caller {
    own: Option<Pair>,
    versions: &'static [&'static SupportedProtocolVersion],
    /// The signatures that it understands.
    schemes: Vec<SignatureScheme>,
}

impl Default for Caller {
    fn default() -> Self {
        let provider = ring::default_provider();
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        Self { own: None, versions: ALL_VERSIONS, schemes }
    }
}

impl Caller {
    fn config(&self) -> ClientConfig {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(Anybody { provider: Arc::clone(&provider), schemes: self.schemes.clone() });
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        match &self.own {
            None => config.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![der(pair)], key).unwrap()
            }
        }
    }

    /// Shakes hands, and waits for the byte that says yes.
    fn call(&self, socket: TcpStream) -> io::Result<Tls> {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = StreamOwned::new(ClientConnection::new(Arc::new(self.config()), name).unwrap(), socket);
        let mut yes = [0];
        tls.read_exact(&mut yes)?;
        assert_eq!(yes, [1]);
        Ok(tls)
    }

    fn call_on(&self, address: SocketAddr) -> io::Result<Tls> {
        self.call(TcpStream::connect(address)?)
    }

    /// Comes in, and opens the keystore.
    fn open(&self, socket: TcpStream) -> Client<Tls> {
        let mut client = Client::over(self.call(socket).unwrap());
        client.call(number::AUTH_LIST, &Xdr::default()).unwrap().unwrap();
        client.call(number::OPEN, &open_body("secret:///system")).unwrap().unwrap();
        client
    }

    /// The server's certificate.
    fn sees(&self, address: SocketAddr) -> Option<CertificateDer<'static>> {
        let tls = self.call_on(address).unwrap();
        tls.conn.peer_certificates()?.first().cloned()
    }
}

/// Believes every server, but for signatures that it doesn't understand.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

fn der(pair: &Pair) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()
}

/// A socket that has next to no room for replies.
fn narrow(address: SocketAddr) -> TcpStream {
    let narrow = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&narrow, 4096).unwrap();
    connect(&narrow, &address).unwrap();
    narrow.into()
}

/// Sends of this what goes at once, from where it stopped the last time: how many bytes the socket took.
fn push(client: &mut Tls, record: &[u8]) -> usize {
    if !client.conn.wants_write() {
        client.conn.writer().write_all(record).unwrap();
    }
    match client.conn.write_tls(&mut client.sock) {
        Ok(taken) => taken,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(_) => 0, // it was sent away
    }
}

static NEWEST: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
static OLDER: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// With a record each, more than fit into secret memory.
const HERD: usize = 300;
