//! What the tests of the whole share: fresh keystores, and a test binary that runs itself again as another process.
//!
//! [`again`] starts the running test anew with [`role`] set; the test looks for its role first, and if it has one, is
//! that process instead of the test. What the two say to each other goes through the child's standard input and standard
//! error, both without buffers: standard output belongs to the test harness. Leans on the library's public face only.

#![allow(dead_code, reason = "every test uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

pub(crate) mod daemon;
pub(crate) mod markers;
pub(crate) mod second_reader;
pub(crate) mod wire;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use strongroom::{Embedded, Error, OpenOptions};

const ROLE: &str = "STRONGROOM_TEST_ROLE";

/// A keystore's place: a directory with the root and, outside it, the host key.
#[derive(Debug, Clone)]
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    pub(crate) fn etc(&self) -> PathBuf {
        self.root().join("etc/secrets")
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.0.join("key/host.key")
    }

    pub(crate) fn uri(&self) -> String {
        format!("secret:///embed?root={}", self.root().display())
    }

    /// Opens it with its host key, and makes it if it is new.
    pub(crate) fn open(&self) -> Embedded {
        self.try_open().unwrap()
    }

    pub(crate) fn try_open(&self) -> Result<Embedded, Error> {
        let options = OpenOptions { key_file: Some(self.key_file()), ..OpenOptions::default() };
        Embedded::open(&self.uri(), options)
    }

    /// The keys, as the second reader reads them.
    pub(crate) fn read_keyring(&self) -> second_reader::Store {
        let host_key = std::fs::read(self.key_file()).unwrap();
        let keyring = std::fs::read(self.etc().join("keyring")).unwrap();
        second_reader::read_keyring(&host_key, &keyring).unwrap()
    }

    /// All that the second reader makes of the files. Nobody may write them meanwhile.
    pub(crate) fn read(&self) -> second_reader::Store {
        let mut store = self.read_keyring();
        store.read_log(&std::fs::read(self.etc().join("secrets.log")).unwrap()).unwrap();
        store
    }
}

/// What this process shall be, if it is not the test: the words given to [`again`].
pub(crate) fn role() -> Option<Vec<String>> {
    let role = std::env::var(ROLE).ok()?;
    Some(role.split('\n').map(str::to_owned).collect())
}

/// Another process of this test binary that runs the test `name` with a role.
pub(crate) fn again(name: &str, role: &[&str]) -> Other {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(ROLE, role.join("\n"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (send, lines) = mpsc::channel();
    let stderr = BufReader::new(process.stderr.take().unwrap());
    std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    let stdin = process.stdin.take().unwrap();
    Other { process, stdin, lines }
}

/// Says a line to the process that started this one, in one write: a kill leaves it whole or unsaid.
pub(crate) fn say(line: &str) {
    let line = format!("{line}\n");
    let written = std::io::stderr().write(line.as_bytes()).unwrap();
    assert_eq!(written, line.len());
}

/// The other process. Killed when this is dropped.
pub(crate) struct Other {
    pub(crate) process: Child,
    pub(crate) stdin: ChildStdin,
    pub(crate) lines: Receiver<String>,
}

impl Other {
    /// Waits for a line that is exactly this; anything else is a failure.
    pub(crate) fn expect(&mut self, line: &str) {
        let said = self.lines.recv().unwrap_or_else(|_| "nothing more".into());
        if said != line {
            let rest: Vec<String> = self.lines.iter().collect();
            panic!("expected '{line}', but the other process said: {said}\n{}", rest.join("\n"));
        }
    }

    /// Gives it these bytes.
    pub(crate) fn give(&mut self, bytes: &[u8]) {
        self.stdin.write_all(bytes).unwrap();
    }

    /// Kills it, and gives what it said and nobody has read.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.lines.iter().collect()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// Random numbers for what a test tries. Not for keys.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    pub(crate) fn seed() -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    }
}

/// Tells the one who runs the tests a figure, past the harness's capture.
pub(crate) fn note(figure: &str) {
    _ = writeln!(std::io::stderr(), "{figure}");
}

/// Every file below a directory.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}
