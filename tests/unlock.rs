//! A daemon whose keystore is locked: what its clients get meanwhile, and how it is opened and closed without a restart.
//!
//! Started with `--root` as anybody can; its clients are stock virsh and `strongroom`. Leans on systemd's notification to
//! know when it is ready, and ready again. Refuses to wait for anything by the clock.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use strongroom::{Connection, Embedded, NewStore, OpenOptions, SecretBytes};
use support::Place;

const UUID: &str = "3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234";
const PASSING: &str = "8b3e9d52-4c61-4f7a-a0d8-27c5e1b94f03";
const PASSPHRASE: &str = "correct horse battery staple";

#[test]
fn a_locked_keystore_is_opened_and_closed_while_it_is_served() {
    let host = Host::new();
    fs::rename(host.place.key_file(), host.aside()).unwrap();
    let daemon = host.start();

    // Locked, but serving.
    assert_eq!(host.virsh(&["secret-list"]), format!("{UUID}   ceph client.admin secret"));
    let refused = "error: Requested operation is not valid: the keystore is locked: no key file";
    assert!(host.virsh(&["secret-get-value", UUID]).starts_with(refused));
    let sheet = host.strongroom(&["status"], "").0;
    assert!(sheet.contains("\nState:      locked: no key file"), "{sheet}");
    assert!(sheet.contains("\nSecrets:    1 with an .xml copy, 0 ephemeral\n"), "{sheet}");
    host.define_passing();
    let passing = || host.virsh(&["secret-get-value", PASSING]);
    assert_eq!(passing(), "aGVsbG8=");

    // Keys that don't open it.
    let (told, error) = host.strongroom(&["unlock"], "");
    assert!(told.is_empty() && error.starts_with(refused), "{error}");
    assert!(
        error.contains("hint: open it with any of these: the host key") && error.contains("--passphrase")
    );
    assert_eq!(
        host.strongroom(&["unlock", "--passphrase-fd", "0"], "wrong horse battery staple\n").1.lines().next(),
        Some("error: Requested operation is not valid: the keystore is locked: wrong passphrase")
    );
    let other = host.place.0.join("other.key");
    write_key(&other, 9);
    let (_, error) = host.strongroom(&["unlock", "--key-file", other.to_str().unwrap()], "");
    assert!(
        error.contains("the keystore is locked: the host key that was given is not this keystore's"),
        "{error}"
    );
    fs::write(&other, [9; 31]).unwrap();
    let (_, error) = host.strongroom(&["unlock", "--key-file", other.to_str().unwrap()], "");
    assert!(error.contains("holds 31 bytes; a host key is exactly 32"), "{error}");

    // The passphrase does.
    let typed = format!("{PASSPHRASE}\n");
    assert_eq!(host.unlock(&["--passphrase-fd", "0"], &typed), "Keystore unlocked\n");
    assert_eq!(host.value(), "dG9wIHNlY3JldA==");
    assert_eq!(passing(), "aGVsbG8=");
    let status: serde_json::Value =
        serde_json::from_str(&host.strongroom(&["status", "--json"], "").0).unwrap();
    assert_eq!((&status["locked"], &status["secrets"]), (&serde_json::Value::Null, &1.into()));
    assert_eq!(host.unlock(&[], ""), "The keystore is open already; no key was tried\n");

    // Locked on purpose: not even the key in its place opens it, until somebody says so.
    assert_eq!(host.strongroom(&["lock"], "").0, "Keystore locked\n");
    let on_purpose = host.virsh(&["secret-get-value", UUID]);
    assert!(on_purpose.contains("locked on purpose; to open it, run: strongroom unlock"), "{on_purpose}");
    assert_eq!(passing(), "aGVsbG8=");
    fs::rename(host.aside(), host.place.key_file()).unwrap();
    daemon.reload();
    assert_eq!(host.virsh(&["secret-get-value", UUID]), on_purpose);
    assert_eq!(host.unlock(&[], ""), "Keystore unlocked\n");
    assert_eq!(host.value(), "dG9wIHNlY3JldA==");

    let log = daemon.end();
    assert!(
        log.contains("a try to unlock the keystore failed: the keystore is locked: wrong passphrase"),
        "{log}"
    );
    assert!(!log.contains("horse"), "{log}");
}

#[test]
fn a_host_key_that_came_back_is_found_on_reload_or_given_from_elsewhere() {
    let host = Host::new();
    fs::rename(host.place.key_file(), host.aside()).unwrap();
    let daemon = host.start();
    assert_eq!(host.unlock(&["--key-file", host.aside().to_str().unwrap()], ""), "Keystore unlocked\n");
    assert_eq!(host.value(), "dG9wIHNlY3JldA==");
    daemon.end();

    let daemon = host.start();
    assert!(host.virsh(&["secret-get-value", UUID]).contains("the keystore is locked"));
    fs::rename(host.aside(), host.place.key_file()).unwrap();
    daemon.reload();
    assert_eq!(host.value(), "dG9wIHNlY3JldA==");
    daemon.end();
}

#[test]
fn a_reload_tells_the_log_of_a_host_key_that_is_gone() {
    let host = Host::new();
    let daemon = host.start();
    daemon.reload();
    fs::rename(host.place.key_file(), host.aside()).unwrap();
    daemon.reload();
    assert_eq!(host.value(), "dG9wIHNlY3JldA==");
    let log = daemon.end();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("reloaded: ")).collect();
    let [warning] = told[..] else { panic!("not the second alone: {log}") };
    let missing =
        format!("a new start would find it locked: no key file '{}'", host.place.key_file().display());
    assert!(warning.contains(" warning : ") && warning.contains(&missing), "{warning}");
    assert!(warning.contains("put the key back") && warning.contains("(--passphrase)"), "{warning}");
}

/// A keystore with a value in it, which a host key opens and a passphrase.
struct Host {
    place: Place,
    _directory: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = Place(directory.path().canonicalize().unwrap());
        let options = || OpenOptions { key_file: Some(place.key_file()), ..OpenOptions::default() };
        let passphrase = SecretBytes::copy_of(PASSPHRASE.as_bytes()).unwrap();
        let new = NewStore { passphrase: Some(passphrase), ..NewStore::default() };
        Embedded::init(&place.uri(), options(), &new).unwrap();
        let connection = Connection::open_with(&place.uri(), options()).unwrap();
        let usage = "<usage type='ceph'><name>client.admin secret</name></usage>";
        let xml = format!("<secret><uuid>{UUID}</uuid>{usage}</secret>");
        connection.define_xml(&xml, 0).unwrap().set_value(b"top secret").unwrap();
        let setting = format!("host_key_file = \"{}\"\n", place.key_file().display());
        fs::write(place.root().join("etc/virtsecretd.conf"), setting).unwrap();
        Self { place, _directory: directory }
    }

    /// Where the host key is while it isn't in its place.
    fn aside(&self) -> PathBuf {
        self.place.0.join("aside.key")
    }

    fn start(&self) -> Daemon {
        let (notify, log) = (self.place.0.join("notify"), self.place.0.join("log"));
        _ = fs::remove_file(&notify);
        let notified = UnixDatagram::bind(&notify).unwrap();
        notified.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_strongroomd"))
            .arg("--root")
            .arg(self.place.root())
            .env("NOTIFY_SOCKET", &notify)
            .env("LIBVIRT_LOG_OUTPUTS", format!("1:file:{}", log.display()))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let daemon = Daemon { process, notified, log };
        daemon.ready();
        daemon
    }

    fn uri(&self) -> String {
        format!("secret:///system?socket={}/run/virtsecretd-sock", self.place.root().display())
    }

    /// What virsh says, on whichever output.
    fn virsh(&self, words: &[&str]) -> String {
        let done = Command::new("virsh").args(["-q", "-c", &self.uri()]).args(words).output().unwrap();
        let (told, error) = texts(&done);
        (told + &error).trim().to_owned()
    }

    fn value(&self) -> String {
        self.virsh(&["secret-get-value", UUID])
    }

    /// Makes a secret in memory only.
    fn define_passing(&self) {
        let (xml, value) = (self.place.0.join("passing.xml"), self.place.0.join("value"));
        fs::write(&xml, format!("<secret ephemeral='yes'><uuid>{PASSING}</uuid></secret>")).unwrap();
        fs::write(&value, "aGVsbG8=").unwrap();
        assert_eq!(self.virsh(&["secret-define", xml.to_str().unwrap()]), "");
        assert_eq!(self.virsh(&["secret-set-value", PASSING, "--file", value.to_str().unwrap()]), "");
    }

    /// What `strongroom` says on its two outputs.
    fn strongroom(&self, words: &[&str], typed: &str) -> (String, String) {
        let mut process = Command::new(env!("CARGO_BIN_EXE_strongroom"))
            .args(["-c", &self.uri()])
            .args(words)
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        _ = process.stdin.take().unwrap().write_all(typed.as_bytes());
        texts(&process.wait_with_output().unwrap())
    }

    fn unlock(&self, with: &[&str], typed: &str) -> String {
        let (told, error) = self.strongroom(&[&["unlock"], with].concat(), typed);
        assert_eq!(error, "");
        told
    }
}

/// A daemon that runs. Killed when this is dropped.
struct Daemon {
    process: Child,
    notified: UnixDatagram,
    log: PathBuf,
}

impl Daemon {
    /// Waits until it says that it is ready.
    fn ready(&self) {
        let mut said = [0; 4096];
        loop {
            let len = self.notified.recv(&mut said).unwrap();
            if String::from_utf8_lossy(&said[..len]).lines().any(|line| line == "READY=1") {
                return;
            }
        }
    }

    fn reload(&self) {
        self.signal(Signal::HUP);
        self.ready();
    }

    /// Ends it, and gives its log.
    fn end(mut self) -> String {
        self.signal(Signal::TERM);
        assert!(self.process.wait().unwrap().success());
        fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.process.id() as i32).unwrap(), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn texts(done: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&done.stdout), text(&done.stderr))
}

fn write_key(file: &Path, byte: u8) {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .unwrap()
        .write_all(&[byte; 32])
        .unwrap();
}
