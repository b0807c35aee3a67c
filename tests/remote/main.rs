//! Every client with every server by every way: what each must see, what each is refused.
//!
//! The matrix is {virsh, python3-libvirt, strongroom} × {libvirtd, strongroomd} × the [`transports`], on a host's
//! own loopback and between hosts, over IPv4 and IPv6. A cell lives a secret's whole life, then comes with wrong
//! credentials. It passes, or it is listed in [`exceptions`] with its reason; a listed one that passes fails the test.
//! `CELL=words` in the environment runs a part of it. [`refusals`], [`bad_servers`], [`crowd`] and [`capture`] are tests of
//! their own.
//! Leans on real daemons, a real KDC and a real sshd, each on a host made of namespaces: root alone can run this.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod bad_servers;
mod capture;
mod clients;
mod crowd;
mod exceptions;
#[path = "../support/host.rs"]
mod host;
#[allow(dead_code, reason = "memory isn't looked at here")]
#[path = "../support/markers.rs"]
mod markers;
#[path = "../support/pki.rs"]
mod pki;
mod refusals;
#[allow(dead_code, reason = "the client of a bench")]
#[path = "../../benches/socket/client.rs"]
mod rpc;
mod server;
#[path = "../../benches/remote/client.rs"]
mod tls_client;
mod transports;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use clients::{Client, SEEN};
use exceptions::EXCEPTIONS;
use host::{Host, said};
use server::{Kind, Pki, Server, Setup, neighbour};
use transports::Transport;

/// A server with the hosts from which it is called.
struct Side {
    server: Server,
    by_ipv4: Host,
    by_ipv6: Host,
}

/// From where a client calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// The server's own host.
    Here,
    Ipv4,
    Ipv6,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    client: Client,
    kind: Kind,
    transport: Transport,
    from: From,
}

#[test]
fn every_client_reaches_every_server_by_every_way() {
    let only = std::env::var("CELL").unwrap_or_default();
    let cells: Vec<Cell> = cells().into_iter().filter(|cell| cell.name().contains(&only)).collect();
    assert!(!cells.is_empty(), "no cell's name has {only:?} in it");
    let pki = Pki::new();
    let sides = sides(&pki, &cells);
    let next = Mutex::new(cells.iter().enumerate());
    let judge = Mutex::new(Judge::default());
    // Much of a cell is waiting, for programs and for the other side.
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let taken = next.lock().unwrap().next();
                    let Some((number, cell)) = taken else { break };
                    let side = sides.iter().find(|(asked, _)| *asked == cell.server());
                    let started = Instant::now();
                    let failed = cell.run(&side.unwrap().1, number).err();
                    judge.lock().unwrap().judge(cell, failed, started.elapsed().as_millis());
                }
            });
        }
    });
    let mut judge = judge.into_inner().unwrap();
    if only.is_empty() {
        judge.miss_what_did_not_occur();
    }
    assert!(judge.report.is_empty(), "\n{}\n{}", judge.table(&cells), judge.report);
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for kind in [Kind::Libvirtd, Kind::Strongroomd] {
        for client in Client::ALL {
            let local = Transport::LOCAL.map(|transport| (transport, From::Here));
            let across = Transport::ACROSS
                .into_iter()
                .flat_map(|transport| [(transport, From::Ipv4), (transport, From::Ipv6)]);
            cells.extend(local.into_iter().chain(across).map(|(transport, from)| Cell {
                client,
                kind,
                transport,
                from,
            }));
        }
    }
    cells
}

/// A daemon has one way to authenticate over TLS, so there are two of each kind.
type Which = (Kind, bool);

/// All servers that the cells need, started side by side.
fn sides(pki: &Pki, cells: &[Cell]) -> Vec<(Which, Side)> {
    let mut needed: Vec<Which> = Vec::new();
    for cell in cells {
        if !needed.contains(&cell.server()) {
            needed.push(cell.server());
        }
    }
    thread::scope(|scope| {
        let starting: Vec<_> = needed
            .iter()
            .map(|&(kind, scram)| scope.spawn(move || ((kind, scram), side(pki, kind, scram))))
            .collect();
        starting.into_iter().map(|side| side.join().unwrap()).collect()
    })
}

fn side(pki: &Pki, kind: Kind, scram: bool) -> Side {
    let settings = if scram { "auth_tls = \"sasl\"\nlisten_tcp = 0" } else { "" };
    let setup = Setup {
        settings,
        mechanisms: if scram { "scram-sha-256" } else { "gssapi" },
        kerberos: !scram,
        ssh: true,
        secrets: 1000,
    };
    let server = Server::start(kind, pki, &setup);
    let by_ipv4 = neighbour(&server, pki, ["10.9.0.1/24", "10.9.0.2/24"]);
    let by_ipv6 = neighbour(&server, pki, ["fd09::1/64", "fd09::2/64"]);
    Side { server, by_ipv4, by_ipv6 }
}

impl Cell {
    fn name(&self) -> String {
        let from = match self.from {
            From::Here => "",
            From::Ipv4 => ", IPv4",
            From::Ipv6 => ", IPv6",
        };
        format!("{} on {:?}, {}{from}", self.client.name(), self.kind, self.transport.name())
    }

    fn server(&self) -> Which {
        (self.kind, self.transport == Transport::Scram)
    }

    fn run(&self, side: &Side, number: usize) -> Result<(), String> {
        let host = match self.from {
            From::Here => &side.server.host,
            From::Ipv4 => &side.by_ipv4,
            From::Ipv6 => &side.by_ipv6,
        };
        let access = self.transport.access(&side.server, self.client);
        let uuid = format!("5ce11000-0000-4000-8000-{number:012}");
        let seen = self.client.live(host, &access, &uuid)?;
        if seen != SEEN {
            return Err(format!("it saw:\n{seen}"));
        }
        let (access, words) = self.transport.refused(&side.server, self.client);
        let output = self.client.look(host, &access);
        match output.status.code() {
            Some(1) if String::from_utf8_lossy(&output.stderr).contains(words) => Ok(()),
            _ => Err(format!("with wrong credentials, without saying {words:?}: {}", said(&output))),
        }
    }
}

#[derive(Default)]
struct Judge {
    report: String,
    failed: BTreeSet<String>,
    excused: BTreeSet<usize>,
    times: Vec<(u128, String)>,
}

impl Judge {
    fn judge(&mut self, cell: &Cell, failed: Option<String>, millis: u128) {
        self.times.push((millis, cell.name()));
        let Some(failed) = failed else { return };
        let excuse = EXCEPTIONS.iter().position(|known| {
            known.client == cell.client
                && known.server.is_none_or(|kind| kind == cell.kind)
                && known.transport == cell.transport
                && failed.contains(known.shows)
        });
        self.failed.insert(cell.name());
        match excuse {
            Some(index) => _ = self.excused.insert(index),
            None => writeln!(self.report, "== {}\n{failed}", cell.name()).unwrap(),
        }
    }

    /// A line that isn't needed any more is as bad as one that is missing.
    fn miss_what_did_not_occur(&mut self) {
        for (index, known) in EXCEPTIONS.iter().enumerate() {
            if !self.excused.contains(&index) {
                let transport = known.transport.name();
                writeln!(self.report, "no longer needed in EXCEPTIONS: {transport} ({})", known.reason)
                    .unwrap();
            }
        }
    }

    fn table(&self, cells: &[Cell]) -> String {
        let mark = |cell: &Cell| if self.failed.contains(&cell.name()) { "FAILED" } else { "ok" };
        let mut slow = self.times.clone();
        slow.sort();
        let slow: Vec<_> = slow.iter().rev().take(5).collect();
        let lines: Vec<_> = cells.iter().map(|cell| format!("{:<7} {}", mark(cell), cell.name())).collect();
        format!("{}\nslowest: {slow:?}", lines.join("\n"))
    }
}

/// More than there are processors.
const WORKERS: usize = 4;
