//! What passes over the network: tcpdump listens while clients set and get planted markers.
//!
//! Nothing of them is to be found in what was TLS or TCP with GSSAPI, raw or as people write bytes. Where TCP is
//! deliberately left open they are found: so the search works. Leans on tcpdump, on a host that has its network alone.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use crate::clients::Client;
use crate::host::{Host, inner, said};
use crate::markers::Needles;
use crate::server::{Kind, Pki, Server, Setup};
use crate::transports::{Access, Transport};

#[test]
fn what_passes_over_the_network_holds_no_value() {
    let pki = Pki::new();
    std::thread::scope(|scope| {
        for kind in [Kind::Libvirtd, Kind::Strongroomd] {
            let pki = &pki;
            scope.spawn(move || {
                let setup =
                    Setup { settings: "", mechanisms: "gssapi", kerberos: true, ssh: false, secrets: 0 };
                let server = Server::start(kind, pki, &setup);
                for client in [Client::Virsh, Client::Strongroom] {
                    for transport in [Transport::Tls, Transport::Kerberos] {
                        let uri = transport.access(&server, client).uri;
                        let (found, bytes) = overhear(&server.host, client, &uri);
                        let way = format!("{} on {kind:?}, {}", client.name(), transport.name());
                        assert!(bytes > 4 * SIZE, "{way}: only {bytes} bytes were heard");
                        assert!(found.is_empty(), "{way}: {found:?}");
                    }
                }
                // The control.
                let settings = match kind {
                    Kind::Libvirtd => "auth_tcp = \"none\"",
                    Kind::Strongroomd => "auth_tcp = \"none\"\nallow_cleartext_tcp = 1",
                };
                let server = Server::start(kind, pki, &Setup { settings, kerberos: false, ..setup });
                let (found, _) = overhear(&server.host, Client::Virsh, "secret+tcp://server.test/system");
                assert!(
                    !found.is_empty(),
                    "{kind:?}: the markers aren't even found where they are in the clear"
                );
            });
        }
    });
}

/// What is found of a marker in all that passes while it is set and read. And how much passed.
fn overhear(host: &Host, client: Client, uri: &str) -> (Vec<String>, usize) {
    let marker: Vec<u8> = (0..SIZE).map(|at| (at * at % 251) as u8 ^ 0x5C).collect();
    host.write("/run/marker", &marker);
    host.write("/run/marked.xml", format!("<secret><uuid>{UUID}</uuid></secret>"));
    let access = Access { uri: uri.to_owned(), ..Access::default() };
    let ear = listen(host);
    for words in [
        &["secret-define", "/run/marked.xml"][..],
        &["secret-set-value", UUID, "--plain", "--file", "/run/marker"],
        &["secret-get-value", UUID],
        &["secret-undefine", UUID],
    ] {
        let output = client.run(host, &access, words);
        assert!(output.status.success(), "{uri} {words:?}: {}", said(&output));
    }
    hush(ear);
    let mut needles = Needles::new();
    needles.add_written("the marker", &marker);
    let heard = host.path("/run/heard.pcap");
    let bytes = std::fs::metadata(&heard).unwrap().len();
    (needles.in_file(&heard), usize::try_from(bytes).unwrap())
}

/// Starts tcpdump, and waits until it listens.
fn listen(host: &Host) -> Child {
    let mut command = host.command("tcpdump");
    command.args([
        "-i",
        "lo",
        "-s",
        "0",
        "-B",
        "16384",
        "--immediate-mode",
        "-U",
        "-w",
        "/run/heard.pcap",
        "-Z",
    ]);
    command.args(["root", "tcp"]);
    let mut ear = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(ear.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        assert!(told.read_line(&mut line).unwrap() > 0, "tcpdump doesn't listen");
    }
    std::thread::spawn(move || std::io::copy(&mut told, &mut std::io::sink()));
    ear
}

/// Lets it write what it has, and end.
fn hush(mut ear: Child) {
    rustix::process::kill_process(inner(&ear), rustix::process::Signal::INT).unwrap();
    ear.wait().unwrap();
}

const UUID: &str = "5ce11000-0000-4000-8000-00000000cafe";
/// virsh 9.0 reads no file of more than 1,024 bytes.
const SIZE: usize = 1000;
