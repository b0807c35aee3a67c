//! What a call costs over the socket, beside stock libvirtd and beside what it can't cost less than.
//!
//! `cargo bench --bench socket`: one run, one table. It starts the `strongroomd` of this build, Debian's `libvirtd` (left out
//! if there is none) and the bare floors on one file system, and lets one lean client call them in turns: all
//! in one round after the other, because machines drift. A figure is the median of the rounds; a ratio is the median of
//! the rounds' ratios, its quartiles behind it. Nothing is asserted: missed budgets are named at the end.
//! On a busy machine the figures mean little, and it says so. `STRONGROOM_BENCH_DIR` names another directory to measure in.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod client;
mod daemons;

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use client::{Client, LIST_ALL};
use daemons::{Append, Daemon, open_to_all, ping_pong, uuid};

const SECRETS: usize = 10_000;

/// Of these, none does anything while the daemon's memory is measured.
const IDLE_CLIENTS: usize = 2_000;

fn main() {
    // `cargo test --benches` runs this too: then once through, on little.
    let quick = std::env::args().any(|argument| argument == "--test");
    let base = std::env::var_os("STRONGROOM_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::tempdir_in(base).unwrap();
    open_to_all(directory.path());
    raise_descriptor_limit();
    let load = load();
    let secrets = if quick { 100 } else { SECRETS };
    let ours = Daemon::strongroom(directory.path(), secrets);
    let stock = Daemon::libvirt(directory.path(), secrets);
    println!("{EXPLANATION}\n{load}\n");
    println!(
        "{:<30} {:>12} {:<12} {:>12} {:>6}  {:<14} budget",
        "", "strongroom", "beside", "", "ratio", "quartiles"
    );
    let mut bench = Bench { ours, stock, rounds: if quick { 1 } else { 15 }, quick, missed: Vec::new() };
    bench.get(32, 0);
    bench.get(65_536, 1);
    bench.get_together(8);
    bench.set(directory.path());
    bench.set_together(16);
    bench.list(secrets);
    bench.idle(if quick { 20 } else { IDLE_CLIENTS });
    match bench.missed.as_slice() {
        [] => println!("\nEvery budget is met."),
        missed => println!("\nMissed: {}.", missed.join("; ")),
    }
}

struct Bench {
    ours: Daemon,
    stock: Option<Daemon>,
    rounds: usize,
    quick: bool,
    missed: Vec<String>,
}

/// One contender's share of a round: calls a second.
type Turn<'a> = Box<dyn FnMut() -> f64 + 'a>;

impl Bench {
    /// Getting a value by one connection, beside a bare ping-pong and libvirt.
    fn get(&mut self, size: usize, secret: usize) {
        let mut clients: Vec<Client> = self.daemons().map(Daemon::client).collect();
        let mut reply = 0;
        for client in &mut clients {
            client.prepare_set(uuid(secret), &vec![7; size]);
            client.call();
            client.prepare_get(uuid(secret));
            reply = client.call().len();
        }
        let mut bare = ping_pong(clients[0].call_len(), reply);
        bare.prepare_get(uuid(secret));
        clients.insert(1, bare);
        let turn = self.time(100);
        let turns = clients.iter_mut().map(|client| -> Turn<'_> { Box::new(move || rate(client, turn)) });
        let rates = self.race(turns.collect());
        let what = format!("get, {size} bytes");
        self.row(&what, &rates[0], "ping-pong", &rates[1], micros, Some(0.5));
        if let Some(stock) = rates.get(2) {
            self.row(&what, &rates[0], "libvirtd", stock, micros, Some(2.5));
        }
    }

    /// Getting values by several connections, a secret each.
    fn get_together(&mut self, count: usize) {
        let mut crowds: Vec<Vec<Client>> = self.daemons().map(|daemon| crowd(daemon, count)).collect();
        for (secret, client) in crowds.iter_mut().flat_map(|crowd| crowd.iter_mut().enumerate()) {
            client.prepare_set(uuid(secret), &[7; 32]);
            client.call();
            client.prepare_get(uuid(secret));
        }
        let turn = self.time(200);
        let turns = crowds.iter_mut().map(|crowd| -> Turn<'_> { Box::new(move || rate_of(crowd, turn)) });
        let rates = self.race(turns.collect());
        if let Some(stock) = rates.get(1) {
            let what = format!("get, {count} connections");
            self.row(&what, &rates[0], "libvirtd", stock, per_second, Some(4.0));
        }
    }

    /// Setting a value by one connection, beside an append and fdatasync of the bytes that a set appends.
    fn set(&mut self, directory: &Path) {
        let mut clients: Vec<Client> = self.daemons().map(Daemon::client).collect();
        clients.iter_mut().for_each(|client| client.prepare_set(uuid(0), &[7; 32]));
        let log = directory.join("strongroom/etc/secrets/secrets.log");
        let length = || std::fs::metadata(&log).unwrap().len();
        let before = length();
        clients[0].call();
        let appended = usize::try_from(length() - before).unwrap();
        let mut bare = Append::new(directory, appended);
        let turn = self.time(300);
        let mut turns: Vec<Turn<'_>> =
            clients.iter_mut().map(|client| -> Turn<'_> { Box::new(move || rate(client, turn)) }).collect();
        turns.insert(1, Box::new(move || rate_by(|| bare.append(), turn)));
        let rates = self.race(turns);
        let what = "set, durable, 1 connection";
        self.row(what, &rates[0], &format!("append {appended}"), &rates[1], micros, Some(0.6));
        if let Some(stock) = rates.get(2) {
            self.row(what, &rates[0], "libvirtd", stock, micros, None);
        }
    }

    /// Setting values by several connections, a secret each, beside libvirt and beside one connection.
    fn set_together(&mut self, count: usize) {
        let mut crowds: Vec<Vec<Client>> = vec![crowd(&self.ours, count), crowd(&self.ours, 1)];
        crowds.extend(self.stock.as_ref().map(|stock| crowd(stock, count)));
        for (secret, client) in crowds.iter_mut().flat_map(|crowd| crowd.iter_mut().enumerate()) {
            client.prepare_set(uuid(secret), &[7; 32]);
        }
        let turn = self.time(400);
        let turns = crowds.iter_mut().map(|crowd| -> Turn<'_> { Box::new(move || rate_of(crowd, turn)) });
        let rates = self.race(turns.collect());
        let what = format!("set, durable, {count} connections");
        self.row(&what, &rates[0], "1 connection", &rates[1], per_second, Some(3.0));
        if let Some(stock) = rates.get(2) {
            self.row(&what, &rates[0], "libvirtd", stock, per_second, Some(4.0));
        }
    }

    /// Listing all secrets with their UUIDs: the round trip of one call.
    fn list(&mut self, secrets: usize) {
        let mut clients: Vec<Client> = self.daemons().map(Daemon::client).collect();
        for client in &mut clients {
            client.prepare(LIST_ALL, &[&1_u32.to_be_bytes(), &[0; 4]]);
            let reply = client.call();
            let listed = u32::from_be_bytes(reply[reply.len() - 4..].try_into().unwrap());
            assert_eq!(listed as usize, secrets);
        }
        let turn = self.time(200);
        let turns = clients.iter_mut().map(|client| -> Turn<'_> { Box::new(move || rate(client, turn)) });
        let rates = self.race(turns.collect());
        if let Some(stock) = rates.get(1) {
            self.row(&format!("list {secrets}"), &rates[0], "libvirtd", stock, micros, Some(20.0));
        }
    }

    /// What a connection costs the daemon that does nothing, once its keystore is open.
    fn idle(&mut self, count: usize) {
        let cost = |daemon: &Daemon| {
            let before = daemon.memory();
            let clients = crowd(daemon, count);
            let after = daemon.memory();
            drop(clients);
            after.saturating_sub(before) / count
        };
        let costs: Vec<usize> = self.daemons().map(cost).collect();
        let stock = costs.get(1).map_or(String::new(), |stock| format!("libvirtd {stock:>14} bytes"));
        println!("{:<30} {:>6} bytes {stock}", "memory, idle connection", costs[0]);
    }

    fn daemons(&self) -> impl Iterator<Item = &Daemon> {
        std::iter::once(&self.ours).chain(&self.stock)
    }

    fn time(&self, millis: u64) -> Duration {
        Duration::from_millis(if self.quick { 5 } else { millis })
    }

    /// Every contender in every round; the first one's round is thrown away. Rates by contender.
    fn race(&self, mut turns: Vec<Turn<'_>>) -> Vec<Vec<f64>> {
        let mut rates = vec![Vec::new(); turns.len()];
        for round in 0..=self.rounds {
            for (turn, rates) in turns.iter_mut().zip(&mut rates) {
                let rate = turn();
                if round > 0 {
                    rates.push(rate);
                }
            }
        }
        rates
    }

    fn row(
        &mut self,
        what: &str,
        ours: &[f64],
        beside: &str,
        theirs: &[f64],
        unit: fn(f64) -> String,
        budget: Option<f64>,
    ) {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        let [low, ratio, high] = quartiles(&ratios);
        let [ours, theirs] = [ours, theirs].map(|rates| unit(quartiles(rates)[1]));
        let verdict = match budget {
            Some(budget) if ratio < budget => {
                self.missed.push(format!("{what}, beside {beside}: {ratio:.2}, not {budget}"));
                format!("≥ {budget}  SHORT")
            }
            Some(budget) => format!("≥ {budget}  ok"),
            None => String::new(),
        };
        let spread = format!("{low:.2} … {high:.2}");
        println!("{what:<30} {ours:>12} {beside:<12} {theirs:>12} {ratio:>6.2}  {spread:<14} {verdict}");
    }
}

fn crowd(daemon: &Daemon, count: usize) -> Vec<Client> {
    (0..count).map(|_| daemon.client()).collect()
}

fn rate(client: &mut Client, time: Duration) -> f64 {
    rate_by(|| _ = client.call(), time)
}

/// How often something can be done in a second.
fn rate_by(mut act: impl FnMut(), time: Duration) -> f64 {
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        act();
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

/// The same for clients that call side by side, a thread each.
fn rate_of(crowd: &mut [Client], time: Duration) -> f64 {
    let barrier = Barrier::new(crowd.len());
    std::thread::scope(|scope| {
        let run = |client| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                rate(client, time)
            })
        };
        let running: Vec<_> = crowd.iter_mut().map(run).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// The quartiles, the median in the middle.
fn quartiles(figures: &[f64]) -> [f64; 3] {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| sorted[(sorted.len() - 1) * quarter / 4])
}

fn micros(rate: f64) -> String {
    format!("{:.1} µs", 1e6 / rate)
}

fn per_second(rate: f64) -> String {
    format!("{rate:.0}/s")
}

/// What else the machine does: beside it, wake-ups take what they take, and no ratio means much.
fn load() -> String {
    let loads = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = loads.split(' ').next().unwrap().parse().unwrap();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let verdict = if load > processors as f64 { ": TOO BUSY to judge by this run" } else { "" };
    format!("Load in the last minute: {load} on {processors} processors{verdict}.")
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
}

const EXPLANATION: &str = "\
All on one file system, called in turns by one client over Unix sockets. Both daemons hold 10,000 secrets
without usages, because libvirtd compares each usage with every other when it starts.
A set is durable when it is answered: strongroomd appends to its log and calls fdatasync; libvirtd writes the value, base64
and unencrypted, to a new file, calls fsync and renames it. The bare append writes as many bytes as strongroomd's set.
Each get decrypts: of 65,536 bytes that is work that neither a ping-pong nor libvirtd, which holds values in the clear, has.
A ratio is strongroom's rate by the other's, so above 1 is in strongroom's favour.";
