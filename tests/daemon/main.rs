//! strongroomd beside Debian's libvirtd: real clients say the same to both, and hear the same.
//!
//! The clients are `tests/clients`: libvirt's own Python binding, a client in Go that shares no code with libvirt,
//! one that says what no library would, and a QEMU guest with an encrypted disk. Each prints a transcript.
//! [`differences`] lists where the transcripts may differ, each line with its reason. virsh has a test of its own,
//! `tests/virsh`. With `TRANSCRIPTS=DIR` in the environment the transcripts are kept there.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/daemons.rs"]
mod daemons;
mod differences;
mod transcript;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use daemons::{Daemon, Kind, at, is_root, on_path, uri};
use differences::Known;

#[test]
fn a_raw_client_hears_the_same_to_every_byte() {
    let hear = |daemon: &Daemon| {
        let mut command = python("raw.py");
        command.arg(daemon.socket()).arg(uri()).arg("--token").arg(daemon.token());
        command.args(
            daemon
                .read_only_socket()
                .iter()
                .flat_map(|socket| [OsStr::new("--read-only"), socket.as_os_str()]),
        );
        command
    };
    hold("raw.py", "", hear, differences::RAW);
}

#[test]
fn silent_clients_are_pinged_and_given_up_alike() {
    let hear = |daemon: &Daemon| {
        let mut command = python("raw.py");
        command.args(["--keepalive", "1"]).arg(daemon.socket());
        command
    };
    hold("raw.py --keepalive", "keepalive_interval = 1\nkeepalive_count = 2", hear, &[]);
}

/// There is no bus in the daemons' view of the host, and so no polkit: nobody but root gets in.
#[test]
fn a_client_that_has_to_prove_itself_first_gets_nowhere_alike() {
    assert!(is_root(), "a user's daemon lets in nobody else, so nobody is asked: run this test as root");
    let clients = tempfile::tempdir().unwrap();
    assert!(Command::new("cp").arg("-r").arg(client("")).arg(clients.path()).status().unwrap().success());
    assert!(Command::new("chmod").args(["-R", "a+rX"]).arg(clients.path()).status().unwrap().success());
    let hear = |daemon: &Daemon| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/python3"]);
        command.arg(clients.path().join("clients/raw.py")).arg("--unauthenticated").arg(daemon.socket());
        command
    };
    let settings = "auth_unix_rw = \"polkit\"\nauth_unix_ro = \"polkit\"";
    hold("raw.py --unauthenticated", settings, hear, differences::UNAUTHENTICATED);
}

#[test]
fn the_python_binding_hears_the_same() {
    let hear = |daemon: &Daemon| {
        let read_only = daemon.read_only_socket().unwrap_or_else(|| daemon.socket());
        let mut command = python("libvirt_python.py");
        command.arg(daemon.connection()).args(["--read-only", &at(&read_only)]);
        command.arg("--token").arg(daemon.token());
        command
    };
    hold("libvirt_python.py", "", hear, differences::PYTHON);
}

#[test]
fn a_client_without_libvirts_code_hears_the_same() {
    assert!(on_path("go"), "go is missing: apt-get install golang-go");
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("client");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).args(["main.go", "tap.go"]).current_dir(client("go"));
    build.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode").env("GOFLAGS", "");
    build.env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go"));
    let built = build.output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "apt-get install golang-github-digitalocean-go-libvirt-dev\n{said}");
    let hear = |daemon: &Daemon| {
        let mut command = Command::new(&program);
        command.arg(daemon.socket()).arg(uri());
        command
    };
    hold("go", "", hear, differences::GO);
}

/// A user's libvirtd has no admin socket where these daemons have theirs.
#[test]
fn administrators_see_and_change_the_same() {
    assert!(is_root(), "a user's libvirtd has its admin socket elsewhere: run this test as root");
    let hear = |daemon: &Daemon| {
        let mut command = python("raw.py");
        command.arg("--admin").arg(daemon.admin_socket());
        command
    };
    hold("raw.py --admin", "", hear, differences::RAW_ADMIN);
    let hear = |daemon: &Daemon| {
        let admin = format!("{}:///system?socket={}", daemon.name(), daemon.admin_socket().display());
        let mut command = python("virt_admin.py");
        command.arg(admin).arg(daemon.name()).arg(daemon.connection());
        command
    };
    hold("virt_admin.py", "", hear, differences::VIRT_ADMIN);
}

/// What libvirtd 9.0 and 11.3 make of the same guests.
#[test]
fn a_guests_disk_opens_by_its_private_secret_alone() {
    assert!(on_path("qemu-system-x86_64"), "QEMU is missing: apt-get install qemu-system-x86");
    assert!(on_path("qemu-img"), "qemu-img is missing: apt-get install qemu-utils");
    let daemon = Daemon::start(Kind::Strongroomd, "");
    let folder = tempfile::tempdir().unwrap();
    let mut command = python("guest.py");
    command.arg(folder.path()).arg(daemon.socket()).arg(daemon.token());
    assert_eq!(output(command).trim(), GUESTS.trim());
}

/// Runs a client against both daemons and compares what it printed.
#[track_caller]
fn hold(name: &str, settings: &str, hear: impl Fn(&Daemon) -> Command + Sync, known: &[Known]) {
    let run = |kind| {
        let daemon = Daemon::start(kind, settings);
        output(hear(&daemon))
    };
    let (stock, ours) = thread::scope(|scope| {
        let stock = scope.spawn(|| run(Kind::Libvirtd));
        let ours = run(Kind::Strongroomd);
        (stock.join().unwrap(), ours)
    });
    if let Some(folder) = std::env::var_os("TRANSCRIPTS") {
        let file = |side: &str| Path::new(&folder).join(format!("{name}-{side}.txt"));
        fs::write(file("stock"), &stock).unwrap();
        fs::write(file("ours"), &ours).unwrap();
    }
    // libvirt's library makes errors of its own on both sides.
    let ours = if name == "libvirt_python.py" { transcript::modern(&ours) } else { ours };
    let report = transcript::compare(name, &transcript::modern(&stock), &ours, known);
    assert!(report.is_empty(), "\n{report}");
}

fn output(mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// One of the scripts, by Debian's Python: it has Debian's bindings.
fn python(script: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["120", "/usr/bin/python3", "-B"]).arg(client(script));
    command
}

fn client(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

const GUESTS: &str = "
== the secret is not there
no guest: code=66 domain=30
Secret not found: no secret with matching uuid '6c756b73-0000-4000-8000-000000000001'

== it has no value
no guest: code=66 domain=30
Secret not found: secret '6c756b73-0000-4000-8000-000000000001' does not have a value

== its value is wrong
no guest: code=1 domain=10
QEMU ended: Invalid password, cannot unlock any keyslot
serial port: 

== its value is right
the guest is on
the guest is off
serial port: The disk is open

== asked for by its usage
the guest is on
the guest is off
serial port: The disk is open

== asked for by an unknown usage
no guest: code=66 domain=30
Secret not found: no secret with matching usage '/unknown'

== with another token
no guest: code=65 domain=30
Invalid secret: secret is private

== with another token, a secret that is not private
the guest is on
the guest is off
serial port: The disk is open
";
