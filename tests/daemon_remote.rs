//! The daemon on the network: stock virsh by TCP, a made-up client and stock virsh by TLS, and who is refused.
//!
//! Leans on stock virsh, virt-admin and GnuTLS' client, and fails without them; and on rcgen for certificates. Every
//! daemon listens on loopback, on a port that the kernel chooses. Refuses to take a silence for a refusal: the log must
//! say why.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/gnutls.rs"]
mod gnutls;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gnutls::Gnutls;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use support::Place;
use support::daemon::{Daemon, PATIENCE};
use support::wire::{Xdr, call, number, open_body, packet};

const UUID: &str = "3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234";

#[test]
fn stock_virsh_is_served_by_tcp_where_that_is_meant() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let (_daemon, address) = listen_in_the_clear(&place);
    let uri = format!("secret+tcp://{address}/system");
    a_day_with_virsh(&place, &uri);
    assert!(Client::virsh(&uri).says(&["secret-list"]).is_ok());

    // A value of the largest size, there and back; and what isn't a Unix socket carries no descriptors.
    let mut client = Bare::open(address);
    let uuid = uuid::Uuid::parse_str(UUID).unwrap();
    client.call(
        number::DEFINE,
        &Xdr::default()
            .opaque(format!("<secret private='no'><uuid>{UUID}</uuid></secret>").as_bytes())
            .number(0),
    );
    let value: Vec<u8> = (0..65_536_u32).map(|at| (at % 251) as u8).collect();
    client.call(number::SET_VALUE, &support::wire::set_body(uuid, &value));
    let answer = client.call(number::GET_VALUE, &support::wire::flagged_body(uuid));
    assert!(answer[4..] == value[..]);
    client
        .0
        .write_all(&packet(support::wire::REMOTE, number::NUM_OF_SECRETS, 4, 9, 0, &1_u32.to_be_bytes()))
        .unwrap();
    assert_eq!(client.0.read(&mut [0; 1]).unwrap(), 0, "it goes on");
}

#[test]
fn who_comes_by_the_network_is_shown_to_administration() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let (_daemon, address) = listen_in_the_clear(&place);
    let client = Bare::open(address);
    let said = |words: &[&str]| virt_admin(&place, words);
    let (_, list) = said(&["client-list", "virtsecretd"]);
    assert!(list.contains("tcp"), "{list}");
    let (_, info) = said(&["client-info", "virtsecretd", "1"]);
    let own = client.0.local_addr().unwrap().to_string();
    assert!(info.lines().any(|line| line.starts_with("sock_addr") && line.ends_with(&own)), "{info}");
    assert!(!info.contains("unix_user_id"), "{info}");
    let (updated, why) = said(&["server-update-tls", "virtsecretd"]);
    assert!(!updated && why.contains("no tls service found, unable to update tls files"), "{why}");
}

#[test]
fn what_would_let_everybody_listen_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    for (lines, status, expected) in [
        (
            "listen_tls = 0\nlisten_tcp = 1\nauth_tcp = \"none\"\n",
            1,
            "auth_tcp is \"none\": on TCP every secret would pass",
        ),
        (
            "ca_file = \"/no/such/place/ca.pem\"\ncert_file = \"/no/such/place/c.pem\"\nkey_file = \"/no/such/place/k.pem\"\n",
            6,
            "'/no/such/place/ca.pem'",
        ),
        ("key_file = \"/no/such/place/k.pem\"\n", 1, "No CA certificate path set"),
    ] {
        std::fs::write(place.daemon_output(), "").unwrap();
        // Sockets that were handed to somebody else are none: what is judged is what would be listened on.
        let mut command = place.command(lines);
        command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1").env("LISTEN_FDNAMES", "virtsecretd.socket");
        let ended = command.arg("--listen").status().unwrap();
        let said = std::fs::read_to_string(place.daemon_output()).unwrap();
        assert!(
            ended.code() == Some(status) && said.contains(expected) && said.contains("hint: "),
            "{ended}: {said}"
        );
    }
}

#[test]
fn tls_lets_in_whom_the_authority_knows_and_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let pki = Pki::new(&place.0.join("pki"), "O=Strongroom,CN=good*");
    let (daemon, address) = listen(&place, &pki.lines, "tls");
    let good = pki.client("good", &pki.own);
    let mut served = pki.connect(address, Some(&good));
    assert_eq!(served.next(1), [1], "the byte that says yes");
    served.write(&call(number::AUTH_LIST, 1, &Xdr::default()));
    served.write(&call(number::OPEN, 2, &open_body("secret:///system")));
    assert_eq!(served.next(36)[..4], 36_u32.to_be_bytes());
    assert_eq!(served.next(28)[24..], [0; 4], "it isn't open");
    let (_, info) = virt_admin(&place, &["client-info", "virtsecretd", "1"]);
    let name = info.lines().find(|line| line.starts_with("tls_x509_dname")).unwrap_or_default();
    assert!(name.ends_with(": O=Strongroom,CN=good"), "{info}");

    let stranger = Authority::new("another authority");
    for (who, certificate, advice) in [
        ("no certificate", None, "give it one that this host's CA has signed"),
        ("another authority's", Some(pki.client("stranger", &stranger)), "or add that CA to the file"),
        ("not on the list", Some(pki.client("bad", &pki.own)), "to tls_allowed_dn_list"),
    ] {
        let before = place.log().len();
        let mut refused = pki.connect(address, certificate.as_ref());
        assert_eq!(refused.next(1), [0; 0], "{who}: it heard something");
        place.hear_behind(before, &["refused 127.0.0.1", advice]);
    }
    // Certificates of no use change nothing, and new ones are for those who come.
    let reload = |expected: &str| reload(&place, &daemon, expected);
    let server = std::fs::read(pki.directory.join("server.pem")).unwrap();
    std::fs::write(pki.directory.join("server.pem"), "garbage").unwrap();
    reload("the certificates from before stay in use");
    assert_eq!(pki.connect(address, Some(&good)).next(1), [1]);
    std::fs::write(pki.directory.join("server.pem"), server).unwrap();
    reload("reloaded: the certificates for TLS");
    assert_eq!(pki.connect(address, Some(&good)).next(1), [1]);
    let (updated, why) = virt_admin(&place, &["server-update-tls", "virtsecretd"]);
    assert!(updated, "{why}");
    assert_eq!(pki.connect(address, Some(&good)).next(1), [1]);
    served.write(&call(number::NUM_OF_SECRETS, 3, &Xdr::default()));
    assert_eq!(served.next(28)[24..], [0; 4], "who was there before is still served");

    let uri = format!("secret://localhost:{}/system?pkipath={}", address.port(), pki.directory.display());
    std::fs::copy(&good.0, pki.directory.join("clientcert.pem")).unwrap();
    std::fs::copy(&good.1, pki.directory.join("clientkey.pem")).unwrap();
    a_day_with_virsh(&place, &uri);
}

#[test]
fn a_certificate_that_is_revoked_is_refused_from_the_reload_on() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let pki = Pki::new(&place.0.join("pki"), "*");
    let list = pki.directory.join("cacrl.pem");
    std::fs::write(&list, pki.own.revoke(&[])).unwrap();
    let lines = format!("{}crl_file = \"{}\"\n", pki.lines, list.display());
    let (daemon, address) = listen(&place, &lines, "tls");
    let [lost, kept] = ["lost", "kept"].map(|name| pki.client(name, &pki.own));
    assert_eq!(pki.connect(address, Some(&lost)).next(1), [1]);
    std::fs::write(&list, pki.own.revoke(&serial_of("lost"))).unwrap();
    reload(&place, &daemon, "reloaded: the certificates for TLS");
    let before = place.log().len();
    assert_eq!(pki.connect(address, Some(&lost)).next(1), [0; 0]);
    place.hear_behind(before, &["refused 127.0.0.1", "has been revoked", "CN=lost"]);
    assert_eq!(pki.connect(address, Some(&kept)).next(1), [1]);
}

/// SIGHUP, and the log's word on it.
fn reload(place: &Place, daemon: &Daemon, expected: &str) {
    let before = place.log().len();
    let pid = rustix::process::Pid::from_child(&daemon.process);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    place.hear_behind(before, &[expected]);
}

/// Whether virt-admin had success, and what it said.
fn virt_admin(place: &Place, words: &[&str]) -> (bool, String) {
    needs("virt-admin");
    let uri = format!("virtsecretd:///system?socket={}", place.admin_socket().display());
    let done = Command::new("virt-admin").args(["-c", &uri]).args(words).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&said).trim().to_owned())
}

/// A daemon that listens on loopback, and where.
fn listen(place: &Place, lines: &str, kind: &str) -> (Daemon, SocketAddr) {
    let lines = format!("listen_addr = \"127.0.0.1\"\ntls_port = \"0\"\ntcp_port = \"0\"\n{lines}");
    let daemon = place.serve_with(&lines, &["--listen"]);
    (daemon, place.listens(kind))
}

/// The same by TCP alone, where nothing asks who comes.
fn listen_in_the_clear(place: &Place) -> (Daemon, SocketAddr) {
    listen(place, "listen_tls = 0\nlisten_tcp = 1\nauth_tcp = \"none\"\nallow_cleartext_tcp = 1\n", "tcp")
}

fn a_day_with_virsh(place: &Place, uri: &str) {
    needs("virsh");
    let virsh = Client::virsh(uri);
    let file = place.0.join("secret.xml");
    std::fs::write(
        &file,
        format!("<secret private='no'><uuid>{UUID}</uuid><usage type='ceph'><name>n</name></usage></secret>"),
    )
    .unwrap();
    let value = place.0.join("value");
    std::fs::write(&value, [7; 1000]).unwrap(); // virsh reads no more from a file
    virsh.says(&["secret-define", file.to_str().unwrap()]).unwrap();
    virsh.says(&["secret-set-value", UUID, "--file", value.to_str().unwrap(), "--plain"]).unwrap();
    let got = virsh.says(&["secret-get-value", UUID, "--plain"]).unwrap();
    assert!(got.as_bytes().starts_with(&[7; 1000]), "{} bytes", got.len());
    assert!(virsh.says(&["secret-list"]).unwrap().contains("ceph n"));
    virsh.says(&["secret-undefine", UUID]).unwrap();

    // A private one's value stays here: nobody shows the host's token.
    std::fs::write(&file, format!("<secret private='yes'><uuid>{UUID}</uuid></secret>")).unwrap();
    virsh.says(&["secret-define", file.to_str().unwrap()]).unwrap();
    virsh.says(&["secret-set-value", UUID, "--file", value.to_str().unwrap(), "--plain"]).unwrap();
    let refused = virsh.says(&["secret-get-value", UUID]).unwrap_err();
    assert!(refused.contains("secret is private"), "{refused}");
    virsh.says(&["secret-undefine", UUID]).unwrap();
}

struct Client(String);

impl Client {
    fn virsh(uri: &str) -> Self {
        Self(uri.to_owned())
    }

    fn says(&self, words: &[&str]) -> Result<String, String> {
        let Output { status, stdout, stderr } =
            Command::new("virsh").args(["-q", "-c", &self.0]).args(words).output().unwrap();
        match status.success() {
            true => Ok(String::from_utf8(stdout).unwrap()),
            false => Err(format!("{words:?}: {}", String::from_utf8_lossy(&stderr))),
        }
    }
}

/// A client by TCP that knows the wire.
struct Bare(TcpStream);

impl Bare {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self(stream);
        client.call(number::AUTH_LIST, &Xdr::default());
        client.call(number::OPEN, &open_body("secret:///system"));
        client
    }

    fn call(&mut self, procedure: i32, body: &Xdr) -> Vec<u8> {
        self.0.write_all(&call(procedure, 1, body)).unwrap();
        let mut head = [0; 28];
        self.0.read_exact(&mut head).unwrap();
        assert_eq!(head[24..], [0; 4], "procedure {procedure} failed");
        let mut body = vec![0; u32::from_be_bytes(*head.first_chunk().unwrap()) as usize - 28];
        self.0.read_exact(&mut body).unwrap();
        body
    }
}

/// Who signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A list that revokes at most this serial number.
    fn revoke(&self, serial: &[u8]) -> String {
        let revoked = (!serial.is_empty()).then(|| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.into_iter().collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    fn sign(
        &self,
        directory: &Path,
        file: &str,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
    ) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from_slice(&serial_of(name)));
        params.distinguished_name = named(name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let paths = [format!("{file}.pem"), format!("{file}key.pem")].map(|name| directory.join(name));
        std::fs::write(&paths[0], params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(&paths[1], key.serialize_pem()).unwrap();
        let [certificate, key] = paths;
        (certificate, key)
    }
}

/// A certificate's serial number, by its name.
fn serial_of(name: &str) -> Vec<u8> {
    [b"\x01", name.as_bytes()].concat().into_iter().take(20).collect()
}

fn named(name: &str) -> rcgen::DistinguishedName {
    let mut distinguished = rcgen::DistinguishedName::new();
    distinguished.push(DnType::OrganizationName, "Strongroom");
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// An authority and a server's certificate, in files; and the settings that name them.
struct Pki {
    directory: PathBuf,
    own: Authority,
    lines: String,
}

impl Pki {
    fn new(directory: &Path, allowed: &str) -> Self {
        std::fs::create_dir(directory).unwrap();
        let own = Authority::new("authority");
        std::fs::write(directory.join("cacert.pem"), &own.pem).unwrap();
        own.sign(directory, "server", "server", ExtendedKeyUsagePurpose::ServerAuth);
        let shown = directory.display();
        let lines = format!(
            "ca_file = \"{shown}/cacert.pem\"\ncert_file = \"{shown}/server.pem\"\nkey_file = \"{shown}/serverkey.pem\"\n\
             tls_allowed_dn_list = [ \"{allowed}\" ]\n"
        );
        Self { directory: directory.into(), own, lines }
    }

    /// GnuTLS' own client, with this certificate and key.
    fn connect(&self, address: SocketAddr, own: Option<&(PathBuf, PathBuf)>) -> Gnutls {
        let own = own.map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        Gnutls::connect(address, &self.directory.join("cacert.pem"), own)
    }

    fn client(&self, name: &str, authority: &Authority) -> (PathBuf, PathBuf) {
        authority.sign(&self.directory, name, name, ExtendedKeyUsagePurpose::ClientAuth)
    }
}

fn needs(program: &str) {
    let found = Command::new(program).arg("--version").output().is_ok();
    assert!(found, "{program} isn't installed: apt-get install libvirt-clients gnutls-bin");
}
