//! What callers notice of a rotation: how long a get, and a durable set, takes at worst while every secret is sealed anew.
//!
//! `cargo bench --bench rotate`: 100,000 secrets in a temporary root. First the gets alone, then beside a rotation, then gets
//! and sets beside another one. Machines are noisy, so nothing is asserted but that every value is right.
//! `STRONGROOM_BENCH_DIR` names another directory to measure in.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use strongroom::driver::{Caller, Driver, Keys, Root};
use strongroom::{Connection, Secret};

fn main() {
    // `cargo test --benches` runs this too: then once through, on little.
    let quick = std::env::args().any(|argument| argument == "--test");
    let count = if quick { 1_000 } else { 100_000 };
    let base = std::env::var_os("STRONGROOM_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::tempdir_in(base).unwrap();
    let driver = filled(directory.path(), count);
    let connection = Connection::over(Arc::new(driver.session(Caller::OWNER)));
    let secrets = connection.list_all(0).unwrap();

    println!("{:<42} {:>9} {:>11} {:>11} {:>11} {:>11}", "", "calls", "median", "p99", "p99.9", "worst");
    let alone = Duration::from_millis(if quick { 50 } else { 3_000 });
    row("get, nothing else", &beside(|| thread::sleep(alone), |done| gets(&secrets, done)).1);

    let (took, times) = beside(|| rotate(&driver), |done| gets(&secrets, done));
    row("get, beside a rotation", &times);
    println!("{:<42} {:>9.2} s", format!("  the rotation of {count}"), took.as_secs_f64());

    let (took, (written, read)) = beside(
        || rotate(&driver),
        |done| {
            thread::scope(|scope| {
                let read = scope.spawn(|| gets(&secrets, done));
                (sets(&secrets[..64], done), read.join().unwrap())
            })
        },
    );
    row("get, beside a rotation and a writer", &read);
    row("set, beside a rotation and a reader", &written);
    println!("{:<42} {:>9.2} s", format!("  the rotation of {count}"), took.as_secs_f64());
    assert_eq!(driver.status().epochs, [3]);
}

/// Does `work` on a thread of its own, and `measured` until it is done. Gives how long it took, and what was measured.
fn beside<R>(work: impl FnOnce() + Send, measured: impl FnOnce(&AtomicBool) -> R) -> (Duration, R) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let start = Instant::now();
            work();
            done.store(true, Ordering::Relaxed);
            start.elapsed()
        });
        let result = measured(&done);
        (worker.join().unwrap(), result)
    })
}

fn rotate(driver: &Driver) {
    let mut sealing = Duration::ZERO;
    let start = Instant::now();
    let watch = &mut |_| {
        sealing = start.elapsed();
        ControlFlow::Continue(())
    };
    driver.rotate(watch).unwrap();
    let end = start.elapsed().saturating_sub(sealing);
    println!("{:<42} {:>9.2} s, its end {:.2} s", "  sealing anew", sealing.as_secs_f64(), end.as_secs_f64());
}

/// Gets one value after the other, all over the keystore, and times each.
fn gets(secrets: &[Secret], done: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let secret = &secrets[times.len() * 7_919 % secrets.len()];
        let start = Instant::now();
        let value = secret.value().unwrap();
        times.push(start.elapsed());
        assert_eq!(value.expose_secret(), passphrase(secret).as_bytes());
    }
    times
}

/// Sets values to what they are, durably, and times each.
fn sets(secrets: &[Secret], done: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let secret = &secrets[times.len() % secrets.len()];
        let start = Instant::now();
        secret.set_value(passphrase(secret).as_bytes()).unwrap();
        times.push(start.elapsed());
    }
    times
}

fn passphrase(secret: &Secret) -> String {
    format!("passphrase of {}", secret.usage_id())
}

fn row(what: &str, times: &[Duration]) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |share: f64| {
        let place = (sorted.len() as f64 * share) as usize;
        format!("{:.1} µs", sorted[place.min(sorted.len() - 1)].as_secs_f64() * 1e6)
    };
    let (median, p99, p999, worst) = (at(0.5), at(0.99), at(0.999), at(1.0));
    println!("{what:<42} {:>9} {median:>11} {p99:>11} {p999:>11} {worst:>11}", sorted.len());
}

/// A keystore of so many secrets with values.
fn filled(directory: &Path, count: usize) -> Arc<Driver> {
    let root = Root::embed(&directory.join("root")).unwrap();
    let keys = Keys { host_key: Some(directory.join("host.key")), ..Keys::default() };
    let driver = Driver::open(root, "secret:///embed".into(), &keys).unwrap();
    thread::scope(|scope| {
        for part in 0..16 {
            let connection = Connection::over(Arc::new(driver.session(Caller::OWNER)));
            scope.spawn(move || {
                for number in (0..count).filter(|number| number % 16 == part) {
                    let usage = format!("/var/lib/volumes/{number:08}.img");
                    let document =
                        format!("<secret><usage type='volume'><volume>{usage}</volume></usage></secret>");
                    let secret = connection.define_xml(document, 0).unwrap();
                    secret.set_value(passphrase(&secret).as_bytes()).unwrap();
                }
            });
        }
    });
    driver
}
