//! We and GnuTLS's own programs, over a socket: tickets, KeyUpdates and certificates as libvirt's peers send them.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;

/// The next whole record.
fn record(socket: &mut TcpStream) -> Vec<u8> {
    let mut record = vec![0; 5];
    socket.read_exact(&mut record).unwrap();
    record.resize(Handshake::record(&record).unwrap().unwrap(), 0);
    socket.read_exact(&mut record[5..]).unwrap();
    record
}

fn shake(handshake: &mut Handshake, socket: &mut TcpStream, client: bool) -> Established {
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut out = Vec::new();
    let mut established = if client { handshake.step(&mut [], &mut out).unwrap() } else { None };
    loop {
        socket.write_all(&std::mem::take(&mut out)).unwrap();
        if let Some(established) = established {
            return established;
        }
        established = handshake.step(&mut record(socket), &mut out).unwrap();
    }
}

/// Reads until so much data has come.
fn read(layer: &mut Layer, socket: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut data = Vec::new();
    while data.len() < length {
        layer.opener.open(&mut record(socket), &mut |part| data.extend_from_slice(part)).unwrap();
    }
    data
}

fn send(layer: &mut Layer, socket: &mut TcpStream, data: &[u8]) {
    let mut sealed = Vec::new();
    layer.sealer.seal(&[data], &mut sealed).unwrap();
    socket.write_all(&sealed).unwrap();
}

/// A program that is stopped when the test ends, however it does.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl Program {
    fn start(pki: &Pki, name: &str, side: Side, more: &[&str]) -> Self {
        let files = pki.files(side);
        let child = Command::new(name)
            .arg("--x509cafile")
            .arg(&files.ca)
            .arg("--x509certfile")
            .arg(&files.own[0].0)
            .arg("--x509keyfile")
            .arg(&files.own[0].1)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("GnuTLS's programs must be there: sh tests/packages"))
    }
}

#[test]
fn gnutls_comes_as_a_client_and_takes_new_keys() {
    let pki = Pki::whole();
    for priority in ["NORMAL", "NORMAL:-VERS-TLS1.3", "NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let more =
            ["--priority", priority, "--verify-hostname", "host.example", "--inline-commands", "-p", &port];
        let more = [&more[..], &["127.0.0.1"]].concat();
        let mut program = Program::start(&pki, "gnutls-cli", Side::Client, &more);
        let (mut socket, _) = listener.accept().unwrap();
        let mut established = shake(&mut pki.acceptor().accept().unwrap(), &mut socket, false);
        assert_eq!(
            (established.verdict, established.peer.as_deref()),
            (Ok(()), Some("C=GB,CN=client.example"))
        );
        let mut stdin = program.0.stdin.take().unwrap();
        for word in ["hello", "again"] {
            stdin.write_all(format!("{word}\n").as_bytes()).unwrap();
            assert_eq!(
                read(&mut established.layer, &mut socket, 6),
                format!("{word}\n").as_bytes(),
                "{priority}"
            );
            send(&mut established.layer, &mut socket, b"you said so\n");
            if !priority.ends_with("1.3") {
                stdin.write_all(b"^rekey^\n").unwrap();
            }
        }
        drop(stdin);
        let mut end = record(&mut socket);
        let mut ended = established.layer.opener.open(&mut end, &mut |_| panic!("no data"));
        while ended.is_ok() {
            ended = established.layer.opener.open(&mut record(&mut socket), &mut |_| panic!("no data"));
        }
        assert_eq!(ended, Err(Broken::Closed), "{priority}");
    }
}

#[test]
fn gnutls_serves_us_and_its_tickets_do_no_harm() {
    let pki = Pki::whole();
    for priority in ["NORMAL", "NORMAL:-VERS-TLS1.3"] {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let port = free.port().to_string();
        let more = ["--priority", priority, "--require-client-cert", "--echo", "-p", &port];
        let _program = Program::start(&pki, "gnutls-serv", Side::Server, &more);
        let mut socket = (0..500)
            .find_map(|_| {
                TcpStream::connect(free).ok().or_else(|| {
                    std::thread::sleep(Duration::from_millis(10));
                    None
                })
            })
            .unwrap();
        let mut established = shake(&mut pki.connector().connect("host.example").unwrap(), &mut socket, true);
        assert_eq!(established.peer.as_deref(), Some("C=GB,CN=server.example"));
        for line in ["one line\n", "and one more\n"] {
            send(&mut established.layer, &mut socket, line.as_bytes());
            assert_eq!(read(&mut established.layer, &mut socket, line.len()), line.as_bytes(), "{priority}");
        }
    }
}
