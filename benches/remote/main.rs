//! What TLS costs from end to end, beside Debian's libvirtd in the same run.
//!
//! `cargo bench --bench remote`, as root: each daemon has a host of its own, made of namespaces, and the same certificates.
//! One lean client calls them in turns, because machines drift; a figure is the median of the rounds. Nothing is asserted
//! but that the good are served. On a busy machine the figures mean little.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod client;
#[path = "../../tests/support/host.rs"]
mod host;
#[path = "../../tests/support/pki.rs"]
mod pki;
#[allow(dead_code, reason = "the client of another bench")]
#[path = "../socket/client.rs"]
mod rpc;
#[path = "../../tests/remote/server.rs"]
mod server;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use client::{TlsClient, config, connect, inside, stall};
use rustls::ClientConfig;
use server::{Kind, Pki, Server, Setup};

fn main() {
    // `cargo test --benches` runs this too: then once through, on little.
    let quick = std::env::args().any(|argument| argument == "--test");
    raise_descriptor_limit();
    let pki = Pki::new();
    let bench = Bench {
        servers: [Kind::Strongroomd, Kind::Libvirtd].map(|kind| started(&pki, kind)),
        config: config(&pki),
        rounds: if quick { 1 } else { 9 },
        turn: Duration::from_millis(if quick { 20 } else { 500 }),
    };
    println!("{:<44} {:>16} {:>16} {:>7}", "over TLS 1.3, on loopback", "strongroomd", "libvirtd", "ratio");
    bench.rate("connections a second, one after the other", |server| bench.connections(server, 1));
    bench.rate("connections a second, 8 side by side", |server| bench.connections(server, 8));
    bench.rate("gets a second, 32 bytes, 1 connection", |server| bench.gets(server, 0, 1));
    bench.rate("gets a second, 32 bytes, 8 connections", |server| bench.gets(server, 0, 8));
    bench.rate("gets a second, 65,536 bytes, 1 connection", |server| bench.gets(server, 1, 1));
    bench.crowd(if quick { 40 } else { 1000 });
    bench.stalled(if quick { 20 } else { 200 });
}

struct Bench {
    servers: [Server; 2],
    config: Arc<ClientConfig>,
    rounds: usize,
    turn: Duration,
}

impl Bench {
    /// Every daemon in every round. The median of each, and of the rounds' ratios.
    fn rate(&self, what: &str, measure: impl Fn(&Server) -> f64) {
        let mut rounds: Vec<[f64; 2]> = Vec::new();
        for _ in 0..self.rounds {
            rounds.push([0, 1].map(|which| measure(&self.servers[which])));
        }
        let [ours, theirs] = [0, 1].map(|which| median(rounds.iter().map(|round| round[which])));
        let ratio = median(rounds.iter().map(|round| round[0] / round[1]));
        println!("{what:<44} {ours:>16.0} {theirs:>16.0} {ratio:>7.2}");
    }

    /// Connections a second: from TCP's first packet to the reply to OPEN.
    fn connections(&self, server: &Server, threads: usize) -> f64 {
        self.per_second(server, threads, || (), |()| drop(connect(&self.config, PATIENCE).unwrap()))
    }

    fn gets(&self, server: &Server, secret: u8, threads: usize) -> f64 {
        let client = || {
            let mut client = connect(&self.config, PATIENCE).unwrap();
            client.prepare_get(uuid(secret));
            client
        };
        self.per_second(server, threads, client, |client| _ = client.call())
    }

    /// How often something can be done in a second on a server's network, by so many threads.
    fn per_second<C>(
        &self,
        server: &Server,
        threads: usize,
        prepare: impl Fn() -> C + Sync,
        act: impl Fn(&mut C) + Sync,
    ) -> f64 {
        let rates = side_by_side(server, threads, || {
            let mut with = prepare();
            act(&mut with);
            let (start, mut count) = (Instant::now(), 0);
            while start.elapsed() < self.turn {
                act(&mut with);
                count += 1;
            }
            f64::from(count) / start.elapsed().as_secs_f64()
        });
        rates.iter().sum()
    }

    /// Many clients that are there at once: all come, then all ask for a value and are answered, then all go.
    fn crowd(&self, count: usize) {
        let share = count / CROWD_THREADS;
        let took = [0, 1].map(|which| {
            let start = Instant::now();
            let mut crowd = side_by_side(&self.servers[which], CROWD_THREADS, || {
                (0..share).map(|_| connect(&self.config, PATIENCE).unwrap()).collect::<Vec<_>>()
            });
            let came = start.elapsed();
            let start = Instant::now();
            thread::scope(|scope| {
                for part in &mut crowd {
                    scope.spawn(move || get_at_once(part));
                }
            });
            [came, start.elapsed()]
        });
        for (at, what) in ["come, and stay: s", "get a value at once: s"].into_iter().enumerate() {
            let what = format!("{} clients {what}", share * CROWD_THREADS);
            let [ours, theirs] = took.map(|steps| steps[at].as_secs_f64());
            println!("{what:<44} {ours:>16.3} {theirs:>16.3} {:>7.2}", theirs / ours);
        }
    }

    /// Clients that stand still amid their handshakes, and a good one beside them.
    fn stalled(&self, count: usize) {
        let served = [0, 1].map(|which| {
            inside(&self.servers[which].host, || {
                let _standing: Vec<_> = (0..count).map(|_| stall([127, 0, 0, 1])).collect();
                let start = Instant::now();
                let good = connect(&self.config, Duration::from_secs(5)).map(|mut client: TlsClient| {
                    client.prepare_get(uuid(0));
                    client.call();
                    start.elapsed()
                });
                good.map_or_else(
                    |_| "not in 5 s".to_owned(),
                    |took| format!("{:.1} ms", took.as_secs_f64() * 1e3),
                )
            })
        });
        let what = format!("a good one's get beside {count} stalled");
        println!("{what:<44} {:>16} {:>16}", served[0], served[1]);
        assert!(served[0].ends_with("ms"), "strongroomd serves nobody beside stalled clients");
    }
}

/// Each of them has asked before one reads its answer.
fn get_at_once(clients: &mut [TlsClient]) {
    for client in &mut *clients {
        client.prepare_get(uuid(0));
        client.send();
    }
    for client in clients {
        client.receive();
    }
}

/// A daemon with two values.
fn started(pki: &Pki, kind: Kind) -> Server {
    let setup =
        Setup { settings: "listen_tcp = 0", mechanisms: "gssapi", kerberos: false, ssh: false, secrets: 0 };
    let server = Server::start(kind, pki, &setup);
    server.host.sh(&format!("/usr/bin/python3 -c '{FILL}'"));
    server
}

/// The same on several threads of a server's network. What each gave.
fn side_by_side<T: Send>(server: &Server, threads: usize, act: impl Fn() -> T + Sync) -> Vec<T> {
    let act = &act;
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(move || inside(&server.host, act))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn uuid(secret: u8) -> [u8; 16] {
    let mut uuid = [0x5C; 16];
    uuid[15] = secret;
    uuid
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
}

const FILL: &str = "import libvirt
connection = libvirt.open(\"secret:///system\")
for number, size in ((0, 32), (1, 65536)):
    uuid = \"5c\" * 15 + \"%02x\" % number
    secret = connection.secretDefineXML(f\"<secret><uuid>{uuid}</uuid></secret>\")
    secret.setValue(bytes(size))";

const PATIENCE: Duration = Duration::from_secs(30);

/// Those that speak for a crowd.
const CROWD_THREADS: usize = 20;
