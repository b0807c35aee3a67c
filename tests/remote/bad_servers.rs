//! Clients before servers that aren't what they should be: ours, beside libvirt's own through its Python binding.
//!
//! Each server is a thread of this test that speaks TLS, or doesn't, on a port of loopback; it confirms everybody, as whoever
//! wants to hear something would. Both clients must end alike, or the difference is listed with its reason; a difference
//! that doesn't occur fails the test. Whoever is refused has heard no byte of RPC: the right ones show that it would have.

use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, SerialNumber, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use strongroom::Connection;

use crate::pki::{Authority, Pair};

/// What a server does when somebody has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It shakes hands, says this, and listens.
    Says(&'static [u8]),
    /// It shakes hands, and ends TLS.
    Closes,
    /// It shakes hands, and hangs up without a word of TLS.
    HangsUp,
    /// It knows nothing of TLS, and greets.
    Greets,
    /// It hangs up at once.
    Shuts,
}

/// How a client fared.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It has begun to speak RPC.
    GoesOn,
    /// Code, domain and message.
    Refuses(i32, i32, String),
}

struct Case {
    name: &'static str,
    certificate: fn(&Authority) -> Pair,
    manner: Manner,
    /// The server by the URI's words.
    host: &'static str,
    /// `?pkipath=`, below this test's directory.
    files: &'static str,
    refused: bool,
    /// Whether `?no_verify=1` is to help.
    forgivable: bool,
    differs: Differs,
}

/// What libvirt's client does otherwise, and why.
#[derive(Debug, Clone, Copy)]
enum Differs {
    Not,
    /// Code and domain are the same.
    Words(&'static str),
    /// It goes on where ours doesn't.
    Fates(&'static str),
}

use Differs::{Fates, Not, Words};

impl Differs {
    fn reason(self) -> &'static str {
        match self {
            Not => "none",
            Words(reason) | Fates(reason) => reason,
        }
    }

    fn fits(self, ours: &Fate, theirs: &Fate) -> bool {
        match (self, ours, theirs) {
            (Not, ours, theirs) => ours == theirs,
            (
                Words(_),
                Fate::Refuses(code, domain, words),
                Fate::Refuses(their_code, their_domain, their_words),
            ) => (code, domain) == (their_code, their_domain) && words != their_words,
            (Words(_), ..) => false,
            (Fates(_), ours, theirs) => matches!((ours, theirs), (Fate::Refuses(..), Fate::GoesOn)),
        }
    }
}

const GOOD: Case = Case {
    name: "",
    certificate: |authority| authority.server(&["localhost"], |_| ()),
    manner: Manner::Says(&[1]),
    host: "localhost",
    files: "good",
    refused: true,
    forgivable: false,
    differs: Not,
};

const BAD_CERTIFICATE: Case =
    Case { forgivable: true, differs: Words("libvirt 9 says what is wrong in its log alone"), ..GOOD };

const GNUTLS: Differs = Words("libvirt passes on what GnuTLS says");

const CASES: &[Case] = &[
    Case { name: "as it should be", refused: false, ..GOOD },
    Case {
        name: "its name in its subject alone",
        certificate: |authority| named_by_subject(authority, &[]),
        refused: false,
        ..GOOD
    },
    Case { name: "no certificate of ours", files: "authority-alone", refused: false, ..GOOD },
    Case {
        name: "for another name",
        certificate: |authority| authority.server(&["other.test"], |_| ()),
        ..BAD_CERTIFICATE
    },
    Case {
        name: "for another name, with the right one in its subject",
        certificate: |authority| named_by_subject(authority, &["other.test"]),
        ..BAD_CERTIFICATE
    },
    Case { name: "called by its address, which it isn't for", host: "127.0.0.1", ..BAD_CERTIFICATE },
    Case {
        name: "of another authority",
        certificate: |_| Authority::new("Somebody else").server(&["localhost"], |_| ()),
        ..BAD_CERTIFICATE
    },
    Case {
        name: "of another authority by the same name",
        certificate: |_| Authority::new(AUTHORITY).server(&["localhost"], |_| ()),
        ..BAD_CERTIFICATE
    },
    Case {
        name: "expired",
        certificate: |authority| {
            authority.server(&["localhost"], |params| params.not_after = date_time_ymd(2024, 2, 1))
        },
        ..BAD_CERTIFICATE
    },
    Case {
        name: "not yet valid",
        certificate: |authority| {
            authority.server(&["localhost"], |params| params.not_before = date_time_ymd(2123, 1, 1))
        },
        ..BAD_CERTIFICATE
    },
    Case {
        name: "revoked",
        certificate: |authority| {
            authority
                .server(&["localhost"], |params| params.serial_number = Some(SerialNumber::from(REVOKED)))
        },
        ..BAD_CERTIFICATE
    },
    Case {
        name: "for clients, not for servers",
        certificate: |authority| {
            authority.server(&["localhost"], |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            })
        },
        differs: Fates("libvirt doesn't look at a peer's extended key usage"),
        ..BAD_CERTIFICATE
    },
    Case { name: "closes instead of confirming", manner: Manner::Closes, ..GOOD },
    Case { name: "hangs up instead of confirming", manner: Manner::HangsUp, ..GOOD },
    Case { name: "says no", manner: Manner::Says(&[0]), ..GOOD },
    Case { name: "says something else", manner: Manner::Says(&[2, 1]), ..GOOD },
    Case { name: "speaks no TLS", manner: Manner::Greets, differs: GNUTLS, ..GOOD },
    Case { name: "hangs up at once", manner: Manner::Shuts, differs: GNUTLS, ..GOOD },
    Case { name: "none of our files", files: "empty", ..GOOD },
    Case { name: "no such directory", files: "missing", ..GOOD },
    Case {
        name: "our certificate without its key, which is as good as none",
        files: "keyless",
        refused: false,
        ..GOOD
    },
    Case {
        name: "our authority's file is garbage",
        files: "garbage",
        differs: Words("ours says what is wrong with it"),
        ..GOOD
    },
];

#[test]
fn a_server_that_proves_nothing_hears_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(AUTHORITY);
    write_files(directory.path(), &authority);
    let mut report = String::new();
    for case in CASES {
        let server = Fake::start((case.certificate)(&authority), case.manner);
        let uri = |more: &str| {
            let files = directory.path().join(case.files);
            format!("secret://{}:{}/system?pkipath={}{more}", case.host, server.port, files.display())
        };
        let mut tell = |what: String| writeln!(report, "== {}: {what}\n", case.name).unwrap();
        let [ours, theirs] =
            [our_client as fn(&str) -> _, libvirts_client].map(|client| server.meet(client, &uri("")));
        match (&ours, case.refused) {
            (Fate::GoesOn, true) | (Fate::Refuses(..), false) => tell(format!("ours fares ill: {ours:?}")),
            _ => {}
        }
        if !case.differs.fits(&ours, &theirs) {
            let reason = case.differs.reason();
            tell(format!("a difference is to be: {reason}\n--- stock\n{theirs:?}\n--- ours\n{ours:?}"));
        }
        if case.refused {
            let excused = [our_client as fn(&str) -> _, libvirts_client]
                .map(|client| server.meet(client, &uri("&no_verify=1")) == Fate::GoesOn);
            if excused != [case.forgivable; 2] {
                tell(format!("with no_verify=1, ours and theirs go on: {excused:?}"));
            }
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

/// The whole program, with a value at hand.
#[test]
fn a_server_of_another_name_is_not_given_the_value() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(AUTHORITY);
    write_files(directory.path(), &authority);
    let value = directory.path().join("value");
    fs::write(&value, [0x5A; 4096]).unwrap();
    for (name, heard_something) in [("other.test", false), ("localhost", true)] {
        let server = Fake::start(authority.server(&[name], |_| ()), Manner::Says(&[1]));
        let files = directory.path().join("good");
        let uri = format!("secret://localhost:{}/system?pkipath={}", server.port, files.display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.args([
            "-c",
            &uri,
            "secret-set-value",
            "5ce11000-0000-4000-8000-00000000beef",
            "--plain",
            "--file",
        ]);
        let output = command.arg(&value).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(server.heard() > 0, heard_something, "{name}: {output:?}");
    }
}

fn our_client(uri: &str) -> Fate {
    match Connection::open(uri) {
        Ok(_) => panic!("nobody has answered"),
        Err(error) => Fate::Refuses(error.code().number(), error.domain().number(), error.to_string()),
    }
}

fn libvirts_client(uri: &str) -> Fate {
    let output = Command::new("/usr/bin/python3").args(["-c", OPEN, uri]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let mut parts = said.trim_end().splitn(3, ' ');
    let mut number = || parts.next().and_then(|part| part.parse().ok());
    match (number(), number(), parts.next()) {
        (Some(code), Some(domain), Some(message)) => Fate::Refuses(code, domain, message.to_owned()),
        _ => panic!("{uri}: {said}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

const OPEN: &str = "import libvirt, sys
libvirt.registerErrorHandler(lambda *_: None, None)
try:
    libvirt.open(sys.argv[1])
except libvirt.libvirtError as error:
    print(error.get_error_code(), error.get_error_domain(), error.get_error_message())";

/// A server that serves one after the other, as long as the test lives.
struct Fake {
    port: u16,
    /// For each that has come: its port, and how many bytes it said behind the handshake.
    heard: Receiver<(u16, usize)>,
}

impl Fake {
    fn start(pair: Pair, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, heard) = channel();
        let config = config(&pair);
        thread::spawn(move || while serve(&listener, &config, manner, &tell) {});
        Self { port, heard }
    }

    /// How much those have said that were here.
    fn heard(&self) -> usize {
        // Whoever comes now is served when they are.
        let last = TcpStream::connect(("127.0.0.1", self.port)).unwrap().local_addr().unwrap().port();
        let told = || self.heard.recv_timeout(PATIENCE).unwrap();
        std::iter::repeat_with(told).take_while(|(port, _)| *port != last).map(|(_, heard)| heard).sum()
    }

    /// Has a client come. What is heard of it decides whether it went on.
    fn meet(&self, client: impl Fn(&str) -> Fate, uri: &str) -> Fate {
        let fate = client(uri);
        if self.heard() == 0 { fate } else { Fate::GoesOn }
    }
}

fn serve(
    listener: &TcpListener,
    config: &Arc<ServerConfig>,
    manner: Manner,
    tell: &Sender<(u16, usize)>,
) -> bool {
    let Ok((mut socket, from)) = listener.accept() else { return false };
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = match manner {
        Manner::Shuts => 0,
        Manner::Greets => {
            _ = socket.write_all(b"220 mail.test ready\r\n");
            beyond_handshakes(&mut socket)
        }
        _ => speak_tls(socket, config, manner),
    };
    tell.send((from.port(), heard)).is_ok()
}

fn speak_tls(socket: TcpStream, config: &Arc<ServerConfig>, manner: Manner) -> usize {
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), socket);
    while stream.conn.is_handshaking() {
        if stream.conn.complete_io(&mut stream.sock).is_err() {
            return 0; // it refuses us
        }
    }
    match manner {
        Manner::Says(words) => _ = stream.write_all(words).and_then(|()| stream.flush()),
        Manner::Closes => {
            stream.conn.send_close_notify();
            _ = stream.flush();
        }
        _ => return 0,
    }
    // Nothing is answered: a client that speaks learns by the end of the connection that this is no libvirt.
    match stream.read(&mut [0; 4096]) {
        Ok(count) => count,
        Err(error) => {
            assert_ne!(error.kind(), ErrorKind::WouldBlock, "the client neither speaks nor goes");
            0
        }
    }
}

/// How many bytes come that are no handshake and no alert.
fn beyond_handshakes(socket: &mut TcpStream) -> usize {
    let mut all = Vec::new();
    _ = socket.read_to_end(&mut all);
    let mut rest = &all[..];
    while let [0x15 | 0x16, _, _, high, low, record @ ..] = rest {
        rest = record.get(usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default();
    }
    rest.len()
}

fn config(pair: &Pair) -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    // libvirt's clients take the first record behind the handshake for the confirmation.
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// A certificate that says `localhost` in its subject, and these names where names belong.
fn named_by_subject(authority: &Authority, names: &[&str]) -> Pair {
    authority.server(names, |params: &mut CertificateParams| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "localhost");
    })
}

/// Directories for `?pkipath=`: one as it should be, and some that lack something.
fn write_files(directory: &Path, authority: &Authority) {
    let client = authority.client("client1", |_| ());
    let (ca, crl) = (authority.pem(), authority.revoke(REVOKED));
    let files = [
        ("good", "cacert.pem", ca.as_str()),
        ("good", "cacrl.pem", &crl),
        ("good", "clientcert.pem", &client.certificate),
        ("good", "clientkey.pem", &client.key),
        ("authority-alone", "cacert.pem", &ca),
        ("keyless", "cacert.pem", &ca),
        ("keyless", "clientcert.pem", &client.certificate),
        ("garbage", "cacert.pem", "-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n"),
        ("empty", "readme", "nothing\n"),
    ];
    for (place, file, content) in files {
        fs::create_dir_all(directory.join(place)).unwrap();
        fs::write(directory.join(place).join(file), content).unwrap();
    }
}

const AUTHORITY: &str = "Strongroom's tests";
const REVOKED: u64 = 4711;
const PATIENCE: Duration = Duration::from_secs(20);
