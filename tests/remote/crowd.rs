//! A crowd over TLS: 200 clients that are there at the same time, each with a value of its own, beside 300 that stall in
//! their handshakes, more than may shake hands.
//!
//! Half of the stalled come from the good ones' own address, the others from elsewhere.
//! Who loses its place comes again. Leans on rustls as the client, so that nothing of ours is at that end. Refuses to
//! measure: benches/remote does.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use uuid::Uuid;

use crate::rpc::{DEFINE, text};
use crate::server::{Kind, Pki, Server, Setup};
use crate::tls_client::{TlsClient, config, connect, inside, stall};

#[test]
fn two_hundred_are_served_at_once_beside_three_hundred_that_stall() {
    let pki = Pki::new();
    let setup =
        Setup { settings: "listen_tcp = 0", mechanisms: "gssapi", kerberos: false, ssh: false, secrets: 0 };
    let server = Server::start(Kind::Strongroomd, &pki, &setup);
    let host = &server.host;
    let config = config(&pki);
    let (over, sent_away) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let (begin, begun) = channel();
        for group in 0..10 {
            let address = if group < 5 { [127, 0, 0, 1] } else { [127, 0, 0, group] };
            let (begin, over, sent_away) = (begin.clone(), &over, &sent_away);
            scope.spawn(move || inside(host, || keep_stalling(address, &begin, over, sent_away)));
        }
        let _however_it_ends = Raised(&over);
        (0..10).for_each(|_| begun.recv_timeout(PATIENCE).unwrap());
        let one = || inside(host, || connect(&config, PATIENCE).unwrap());
        let coming: Vec<_> = (0..GOOD).map(|_| scope.spawn(one)).collect();
        let mut crowd: Vec<TlsClient> = coming.into_iter().map(|client| client.join().unwrap()).collect();
        let counted = host.sh("virt-admin -c virtsecretd:///system srv-clients-info virtsecretd");
        let there = counted.lines().find(|line| line.starts_with("nclients ")).unwrap_or(&counted);
        assert_eq!(there.split_whitespace().last(), Some("200"), "{counted}");
        thread::scope(|scope| {
            for (part, clients) in crowd.chunks_mut(PART).enumerate() {
                scope.spawn(move || each_gets_its_own(part * PART, clients));
            }
        });
    });
    assert!(sent_away.into_inner() > 0, "none of those who stalled had to go");
    let log = server.log();
    assert!(log.contains("stood still, and others waited"), "nobody waited:\n{log}");
}

/// A flag that is up when this is gone.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Thirty of them, until it is over.
fn keep_stalling(address: [u8; 4], begin: &Sender<()>, over: &AtomicBool, sent_away: &AtomicUsize) {
    let come = || {
        let socket = stall(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    let mut stalled: Vec<TcpStream> = (0..30).map(|_| come()).collect();
    begin.send(()).unwrap();
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(20)); // they do nothing: there is nothing to wait for
        for socket in &mut stalled {
            // It isn't answered; it is hung up on, or not.
            if !socket.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                sent_away.fetch_add(1, Ordering::Relaxed);
                *socket = come();
            }
        }
    }
}

/// Each sets a value; all ask for it before one reads the answer.
fn each_gets_its_own(first: usize, clients: &mut [TlsClient]) {
    for (client, number) in clients.iter_mut().zip(first..) {
        let document =
            format!("<secret ephemeral='yes'><uuid>{}</uuid></secret>", Uuid::from_bytes(name(number)));
        client.prepare(DEFINE, &[&text(document.as_bytes()), &[0; 4]]);
        client.call();
        client.prepare_set(name(number), &value(number));
        client.call();
        client.prepare_get(name(number));
    }
    clients.iter_mut().for_each(TlsClient::send);
    for (client, number) in clients.iter_mut().zip(first..) {
        assert!(client.receive().ends_with(&text(&value(number))), "number {number} got another value");
    }
}

fn name(number: usize) -> [u8; 16] {
    (0x5ce1_1000_0000_4000_8000 << 48 | number as u128).to_be_bytes()
}

/// 4,000 bytes that nobody else has.
fn value(number: usize) -> Vec<u8> {
    (number as u64).to_be_bytes().repeat(500)
}

const GOOD: usize = 200;
/// As many speak on one thread.
const PART: usize = 20;

/// For the slowest of machines.
const PATIENCE: Duration = Duration::from_secs(60);
