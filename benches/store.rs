//! What a secret costs, beside what it can't cost less than: figures and ratios measured in one run.
//!
//! `cargo bench --bench store`. Each figure stands beside its floor: an append and fdatasync of the same size in the same
//! directory, AES-256-GCM over the same bytes. Machines are noisy, so nothing here is asserted; the budgets that the
//! ratios are held against stand in the last column. `STRONGROOM_BENCH_DIR` names another directory to measure in.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use strongroom::memory::SecretBytes;
use strongroom::{Connection, UsageType};

const ONLY_OPEN: &str = "STRONGROOM_BENCH_ONLY_OPEN";

fn main() {
    if let Some(directory) = std::env::var_os(ONLY_OPEN) {
        return only_open(Path::new(&directory));
    }
    // `cargo test --benches` runs this too: then once through, on little.
    let quick = std::env::args().any(|argument| argument == "--test");
    let scale = |full: usize| if quick { full.div_ceil(100) } else { full };
    let base = std::env::var_os("STRONGROOM_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::tempdir_in(base).unwrap();
    println!("{:<44} {:>12} {:>12} {:>8}  budget", "", "measured", "floor", "ratio");
    get(directory.path(), scale(20_000));
    set(directory.path(), scale(500));
    set_together(directory.path(), scale(3_200));
    look_up(directory.path(), scale(200_000), &[scale(1_000), scale(100_000)]);
    open(directory.path(), scale(100_000), "0.6 s of CPU");
    if std::env::var_os("STRONGROOM_BENCH_MILLION").is_some() {
        open(directory.path(), scale(1_000_000), "works");
    }
}

/// One line of the table.
fn row(what: &str, measured: String, floor: String, ratio: f64, budget: &str) {
    println!("{what:<44} {measured:>12} {floor:>12} {ratio:>8.2}  {budget}");
}

fn micros(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

fn connect(directory: &Path, name: &str) -> Connection {
    let (root, key) = (directory.join(name), directory.join("host.key"));
    Connection::open(&format!("secret:///embed?root={}&key={}", root.display(), key.display())).unwrap()
}

fn document(number: usize) -> String {
    format!("<secret><usage type='volume'><volume>/var/lib/volumes/{number:08}.img</volume></usage></secret>")
}

/// Getting a value, beside AES-256-GCM over as many bytes.
fn get(directory: &Path, rounds: usize) {
    let connection = connect(directory, "get");
    for size in [32, 65_536] {
        let secret = connection.define_xml(document(size), 0).unwrap();
        secret.set_value(&vec![7; size]).unwrap();
        let start = Instant::now();
        for _ in 0..rounds {
            black_box(secret.value().unwrap());
        }
        let measured = micros(start.elapsed(), rounds);
        let floor = aes(size, rounds);
        let budget = "DESIGN.md budgets the socket";
        row(
            &format!("get a value of {size} bytes"),
            format!("{measured:.2} µs"),
            format!("{floor:.2} µs"),
            floor / measured,
            budget,
        );
    }
}

fn aes(size: usize, rounds: usize) -> f64 {
    use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[1; 32]).unwrap());
    let mut bytes = vec![0; size];
    let start = Instant::now();
    for _ in 0..rounds {
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        _ = black_box(key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut bytes).unwrap());
    }
    micros(start.elapsed(), rounds)
}

/// Setting a value, durably, beside an append and fdatasync of the bytes that a set writes.
fn set(directory: &Path, rounds: usize) {
    let connection = connect(directory, "set");
    for size in [32, 65_536] {
        let secret = connection.define_xml(document(size), 0).unwrap();
        // Interleaved, because the disk's speed drifts.
        let mut file = File::create(directory.join("floor")).unwrap();
        let bytes = vec![7; size + 400];
        let value = vec![7; size];
        let (mut measured, mut floor) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..rounds {
            let start = Instant::now();
            secret.set_value(&value).unwrap();
            measured += start.elapsed();
            let start = Instant::now();
            file.write_all(&bytes).unwrap();
            file.sync_data().unwrap();
            floor += start.elapsed();
        }
        let (measured, floor) = (micros(measured, rounds), micros(floor, rounds));
        row(
            &format!("set a value of {size} bytes, durable"),
            format!("{measured:.0} µs"),
            format!("{floor:.0} µs"),
            floor / measured,
            "≥ 0.6",
        );
    }
}

/// Sixteen writers, beside one.
fn set_together(directory: &Path, rounds: usize) {
    let connection = connect(directory, "together");
    let secrets: Vec<_> = (0..16).map(|number| connection.define_xml(document(number), 0).unwrap()).collect();
    let run = |writers: usize| {
        let each = rounds / 16;
        let start = Instant::now();
        std::thread::scope(|scope| {
            for secret in &secrets[..writers] {
                scope.spawn(move || (0..each).for_each(|_| secret.set_value(&[7; 32]).unwrap()));
            }
        });
        (writers * each) as f64 / start.elapsed().as_secs_f64()
    };
    let (one, sixteen) = (run(1), run(16));
    row(
        "set by 16 writers, beside 1",
        format!("{sixteen:.0}/s"),
        format!("{one:.0}/s"),
        sixteen / one,
        "≥ 3",
    );
}

/// Looking up by usage among many, beside among few.
fn look_up(directory: &Path, rounds: usize, sizes: &[usize]) {
    let mut times = Vec::new();
    for &size in sizes {
        let connection = filled(directory, size);
        let ids: Vec<String> =
            (0..1_000).map(|at| format!("/var/lib/volumes/{:08}.img", at * 7_919 % size)).collect();
        let start = Instant::now();
        for round in 0..rounds {
            black_box(connection.lookup_by_usage(UsageType::Volume, &ids[round % ids.len()]).unwrap());
        }
        times.push(micros(start.elapsed(), rounds) * 1e3);
        let start = Instant::now();
        let listed = connection.list_all(0).unwrap().len();
        println!("{:<44} {:>9.1} ms", format!("list {listed}"), start.elapsed().as_secs_f64() * 1e3);
    }
    let (few, many) = (times[0], times[times.len() - 1]);
    row(
        &format!("look up by usage among {}", sizes[sizes.len() - 1]),
        format!("{many:.0} ns"),
        format!("{few:.0} ns"),
        many / few,
        "≤ 1.5",
    );
}

/// Opening a store: CPU time and memory, of a process that does nothing else.
fn open(directory: &Path, size: usize, budget: &str) {
    drop(filled(directory, size));
    let mut other = Command::new(std::env::current_exe().unwrap());
    let output = other.env(ONLY_OPEN, directory).arg(size.to_string()).output().unwrap();
    let figures = String::from_utf8(output.stdout).unwrap();
    let (cpu, memory) = figures.trim().split_once(' ').expect("the other process prints two figures");
    let log = directory.join(format!("filled-{size}/etc/secrets/secrets.log"));
    let start = Instant::now();
    read_through(&log);
    let read = start.elapsed().as_secs_f64();
    let cpu: f64 = cpu.parse().unwrap();
    row(
        &format!("open a store of {size}, CPU"),
        format!("{cpu:.3} s"),
        format!("{read:.3} s"),
        read / cpu,
        budget,
    );
    let memory = memory.parse::<usize>().unwrap() / size;
    println!("{:<44} {:>12} {:>31}", "  memory a secret", format!("{memory} bytes"), "≤ 400 bytes");
}

/// The other process: opens, counts, and says what that took.
fn only_open(directory: &Path) {
    let size = std::env::args().nth(1).unwrap();
    let (cpu, memory) = (cpu_time(), resident());
    let connection = connect(directory, &format!("filled-{size}"));
    let (cpu, memory) = (cpu_time() - cpu, resident().saturating_sub(memory));
    assert_eq!(connection.num_of_secrets().unwrap().to_string(), size);
    println!("{cpu} {memory}");
}

/// A store of so many secrets with values, made once and kept for the run.
fn filled(directory: &Path, size: usize) -> Connection {
    let name = format!("filled-{size}");
    let connection = connect(directory, &name);
    let present = connection.num_of_secrets().unwrap();
    std::thread::scope(|scope| {
        for part in 0..16 {
            let connection = &connection;
            scope.spawn(move || {
                for number in (present..size).filter(|number| number % 16 == part) {
                    let secret = connection.define_xml(document(number), 0).unwrap();
                    let value = SecretBytes::copy_of(format!("passphrase {number}").as_bytes()).unwrap();
                    assert!(!value.expose_secret().is_empty());
                    secret.set_secret_value(value).unwrap();
                }
            });
        }
    });
    connection
}

fn read_through(path: &Path) {
    let file = OpenOptions::new().read(true).open(path).unwrap();
    let mut window = vec![0; 1 << 20];
    let mut at = 0;
    while let Ok(read) = file.read_at(&mut window, at)
        && read > 0
    {
        black_box(&window);
        at += read as u64;
    }
}

/// CPU seconds of this process so far.
fn cpu_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}
