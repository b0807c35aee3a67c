//! The same commands through stock virsh, and through virsh or strongroom on ours: what they print, how they end, what
//! they leave on disk.
//!
//! The stock sides are virsh against libvirtd and virsh against libvirt's embedded driver; ours are listed in [`WAYS`].
//! Each case of [`cases`] runs once on every side that it is for. Where two sides may differ stands in [`differences`];
//! a line there that is no longer needed fails the test like a difference that isn't listed. `CASE=name` in the
//! environment runs a part of it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod cases;
#[path = "../support/daemons.rs"]
mod daemons;
mod differences;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::thread;

use cases::{Case, Only, Seen, Side};
use daemons::{Daemon, Kind, on_path};
use differences::{Cause, KNOWN, Known, WORDS, Whose};

/// A program on a keystore of ours, and what stands beside it.
#[derive(Debug, Clone, Copy)]
struct Way {
    name: &'static str,
    program: Program,
    keystore: Keystore,
    stock: Stock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Strongroom,
    Virsh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keystore {
    Embedded,
    Strongroomd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stock {
    Libvirtd,
    Embedded,
}

/// All the ways there are to a keystore of ours.
const WAYS: &[Way] = &[
    Way {
        name: "strongroom, embedded; libvirtd",
        program: Program::Strongroom,
        keystore: Keystore::Embedded,
        stock: Stock::Libvirtd,
    },
    Way {
        name: "strongroom, embedded; virsh, embedded",
        program: Program::Strongroom,
        keystore: Keystore::Embedded,
        stock: Stock::Embedded,
    },
    Way {
        name: "virsh on strongroomd; libvirtd",
        program: Program::Virsh,
        keystore: Keystore::Strongroomd,
        stock: Stock::Libvirtd,
    },
    Way {
        name: "strongroom on strongroomd; libvirtd",
        program: Program::Strongroom,
        keystore: Keystore::Strongroomd,
        stock: Stock::Libvirtd,
    },
];

#[test]
fn strongroom_answers_as_virsh_does() {
    assert!(on_path("virsh"), "virsh is missing: apt-get install libvirt-clients");
    let only = std::env::var("CASE").unwrap_or_default();
    let cases = cases::cases(&only);
    let queue = Mutex::new(cases.iter());
    let judge = Mutex::new(Judge::default());
    // Much of a case is waiting: for programs to start, and for events that don't come.
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let bench = Bench::new();
                loop {
                    let next = queue.lock().unwrap().next();
                    let Some(case) = next else { break };
                    let seen = bench.run(case);
                    judge.lock().unwrap().compare(case, &seen);
                }
            });
        }
    });
    let mut judge = judge.into_inner().unwrap();
    if only.is_empty() {
        judge.miss_what_did_not_occur();
    }
    assert!(judge.report.is_empty(), "\n{}", judge.report);
}

/// The daemons that cases run against, one after the other.
struct Bench {
    stock: Daemon,
    ours: Daemon,
}

/// What the sides showed.
#[derive(Default)]
struct Shown {
    libvirtd: Option<Seen>,
    embedded: Option<Seen>,
    ours: Vec<(&'static Way, Seen)>,
}

impl Bench {
    fn new() -> Self {
        Self { stock: Daemon::start(Kind::Libvirtd, ""), ours: Daemon::start(Kind::Strongroomd, "") }
    }

    /// Runs a case on all sides that it is for.
    fn run(&self, case: &Case) -> Shown {
        let mut shown = Shown { libvirtd: Some(on_daemon(case, "virsh", &self.stock)), ..Shown::default() };
        if case.only == Only::All {
            shown.embedded = Some(embedded(case, "virsh"));
        }
        let mut strongroom = None;
        for way in WAYS {
            let seen = match (way.program, way.keystore) {
                (Program::Strongroom, _) if case.only == Only::Virsh => continue,
                (_, Keystore::Embedded) if matches!(case.only, Only::OurDaemon | Only::Virsh) => continue,
                (Program::Strongroom, Keystore::Embedded) => {
                    strongroom.get_or_insert_with(|| embedded(case, OURS)).clone()
                }
                (Program::Strongroom, Keystore::Strongroomd) => on_daemon(case, OURS, &self.ours),
                (Program::Virsh, Keystore::Strongroomd) => on_daemon(case, "virsh", &self.ours),
                (Program::Virsh, Keystore::Embedded) => unreachable!("virsh has only its own driver in it"),
            };
            shown.ours.push((way, seen));
        }
        shown
    }
}

fn embedded(case: &Case, program: &str) -> Seen {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let side = Side {
        program: format!("{program} -c 'secret:///embed?root={}'", root.display()),
        secrets: root.join("etc/secrets"),
        socket: None,
    };
    cases::run(case, root, &side)
}

fn on_daemon(case: &Case, program: &str, daemon: &Daemon) -> Seen {
    let directory = tempfile::tempdir().unwrap();
    daemon.forget_all();
    let side = Side {
        program: format!("{program} -c '{}'", daemon.connection()),
        secrets: daemon.secrets(),
        socket: Some(daemon.socket()),
    };
    cases::run(case, directory.path(), &side)
}

#[derive(Default)]
struct Judge {
    report: String,
    words_used: BTreeSet<usize>,
    known_met: BTreeSet<(usize, &'static str)>,
    tried: BTreeSet<(String, &'static str)>,
}

impl Judge {
    fn compare(&mut self, case: &Case, shown: &Shown) {
        for (way, ours) in &shown.ours {
            let theirs = match way.stock {
                Stock::Libvirtd => &shown.libvirtd,
                Stock::Embedded => &shown.embedded,
            };
            if let Some(theirs) = theirs {
                self.judge(case, way, theirs.clone(), ours.clone());
            }
        }
    }

    fn judge(&mut self, case: &Case, way: &'static Way, theirs: Seen, ours: Seen) {
        self.tried.insert((case.name.clone(), way.name));
        let ours = if way.program == Program::Strongroom { cases::without_hints(ours) } else { ours };
        let theirs = cases::without_parser_details(self.modern(theirs, way));
        let (theirs, ours) = cases::without_random(theirs, cases::without_parser_details(ours));
        for (index, step) in case.steps.iter().enumerate() {
            if theirs.0[index] == ours.0[index] || self.expected(&case.name, step, way) {
                continue;
            }
            let [out, err, status] = &theirs.0[index];
            let [our_out, our_err, our_status] = &ours.0[index];
            writeln!(
                self.report,
                "{} ({}): {step}\n--- stock: status {status}\n{out}{err}--- ours: status {our_status}\n\
                 {our_out}{our_err}---\n",
                case.name, way.name
            )
            .unwrap();
        }
        if theirs.1 != ours.1 && !self.expected(&case.name, "files", way) {
            let (theirs, ours) = (theirs.1, ours.1);
            writeln!(
                self.report,
                "{} ({}): files\n--- stock\n{theirs:#?}\n--- ours\n{ours:#?}\n",
                case.name, way.name
            )
            .unwrap();
        }
    }

    /// Notes that a listed difference occurred; false if it isn't listed.
    fn expected(&mut self, case: &str, step: &str, way: &'static Way) -> bool {
        let found = KNOWN.iter().position(|known| {
            known.case == case && (known.step == step || known.step == "*") && concerns(known.cause, way)
        });
        self.known_met.extend(found.map(|index| (index, way.name)));
        found.is_some()
    }

    /// The stock side as a newer libvirt would have worded it. virsh on our daemon is the same old virsh.
    fn modern(&mut self, mut seen: Seen, way: &Way) -> Seen {
        for [_, stderr, _] in &mut seen.0 {
            for (index, words) in WORDS.iter().enumerate() {
                let same = words.whose == Whose::Virsh && way.program == Program::Virsh;
                if same || !stderr.contains(words.old) {
                    continue;
                }
                self.words_used.insert(index);
                *stderr = stderr.replace(words.old, words.new);
                if words.new.ends_with("'usage': ") {
                    *stderr = quoted(stderr, words.new);
                }
            }
        }
        seen
    }

    /// A table's line that isn't needed any more is as bad as one that is missing.
    fn miss_what_did_not_occur(&mut self) {
        for (index, words) in WORDS.iter().enumerate() {
            if !self.words_used.contains(&index) {
                writeln!(self.report, "no longer needed in WORDS: {:?} ({})", words.old, words.reason)
                    .unwrap();
            }
        }
        for (index, known) in KNOWN.iter().enumerate() {
            let tried = |way: &&Way| {
                self.tried.contains(&(known.case.to_owned(), way.name)) && concerns(known.cause, way)
            };
            for way in WAYS.iter().filter(tried) {
                if !self.known_met.contains(&(index, way.name)) {
                    let Known { case, step, reason, .. } = known;
                    let name = way.name;
                    writeln!(self.report, "no longer needed in KNOWN: {case} ({name}): {step} ({reason})")
                        .unwrap();
                }
            }
        }
    }
}

/// Whether a cause is to be found in a way.
fn concerns(cause: Cause, way: &Way) -> bool {
    match cause {
        Cause::Program => way.program == Program::Strongroom,
        Cause::Embedded => way.keystore == Keystore::Embedded,
        Cause::Driver => true,
        Cause::Daemon => way.keystore == Keystore::Strongroomd,
        Cause::StockEmbedded => way.stock == Stock::Embedded,
    }
}

fn quoted(stderr: &str, before: &str) -> String {
    let (head, tail) = stderr.split_once(before).unwrap();
    let (kind, rest) = tail.split_once('\n').unwrap_or((tail, ""));
    format!("{head}{before}'{kind}'.\n{rest}")
}

const OURS: &str = env!("CARGO_BIN_EXE_strongroom");

/// More than there are processors.
const WORKERS: usize = 4;
