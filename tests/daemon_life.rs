//! The daemon's life as whoever starts it sees it: systemd by sockets and notifications, a shell by `-d`, stock virsh by
//! starting it itself; what ends it, and what keeps it from starting.
//!
//! Leans on stock virsh as the client. Every daemon has a directory of its own and dies with its test. Refuses to use
//! the host's own directories, and to take a passing of time for an event where there is one.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/pki.rs"]
mod pki;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pki::Certificates;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const DAEMON: &str = env!("CARGO_BIN_EXE_strongroomd");

const EPHEMERAL: &str = "<secret ephemeral='yes'><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid></secret>";

#[test]
fn sockets_from_systemd_are_served_by_their_names_and_left_in_place() {
    let place = Place::new();
    let names = ["main", "ro", "admin"].map(|name| place.path().join(name));
    let sockets = names.each_ref().map(|path| OwnedFd::from(UnixListener::bind(path).unwrap()));
    let mut command =
        place.activated(sockets, "virtsecretd.socket:strongroomd-ro.socket:virtsecretd-admin.socket");
    let ear = place.listen(&mut command);
    let mut daemon = Daemon(command.spawn().unwrap());
    assert_eq!(heard(&ear), "READY=1");
    drop(command); // its descriptors, too

    let listed = place.virsh(&names[0], &["secret-list"]);
    assert!(listed.status.success(), "{listed:?}");
    fs::write(place.path().join("s.xml"), EPHEMERAL).unwrap();
    let file = place.path().join("s.xml");
    let refused = place.virsh(&names[1], &["-r", "secret-define", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("read only access") || said.contains("read-only"), "{said}");
    assert!(!place.root().join("run/virtsecretd-sock").exists(), "it made sockets of its own");

    daemon.signal(Signal::TERM);
    assert!(daemon.0.wait().unwrap().success());
    assert!(names.iter().all(|path| path.exists()), "they are systemd's to remove");
}

#[test]
fn sockets_from_systemd_for_the_network_speak_what_their_names_say() {
    let place = Place::new();
    let certificates = Certificates::new(&place.path().join("pki"));
    let settings = certificates.settings() + "auth_tcp = \"none\"\nallow_cleartext_tcp = 1\n";
    fs::write(place.root().join("etc/virtsecretd.conf"), settings + &place.own_key()).unwrap();
    let main = UnixListener::bind(place.path().join("main")).unwrap();
    let [tls, tcp] = [0, 0].map(|any| TcpListener::bind(("127.0.0.1", any)).unwrap());
    let [tls_port, tcp_port] = [&tls, &tcp].map(|socket| socket.local_addr().unwrap().port());
    // The roles go by the names, whatever the order; and no --listen is needed for sockets that are there.
    let sockets = [OwnedFd::from(tcp), OwnedFd::from(main), OwnedFd::from(tls)];
    let mut command =
        place.activated(sockets, "strongroomd-tcp.socket:virtsecretd.socket:virtsecretd-tls.socket");
    let ear = place.listen(&mut command);
    let mut daemon = Daemon(command.spawn().unwrap());
    drop(command);
    assert_eq!(heard(&ear), "READY=1");
    let by_tls = format!("secret://localhost:{tls_port}/system?pkipath={}", certificates.directory.display());
    let by_tcp = format!("secret+tcp://127.0.0.1:{tcp_port}/system");
    fs::write(place.path().join("s.xml"), EPHEMERAL).unwrap();
    let file = place.path().join("s.xml");
    assert!(virsh(&by_tls, &["secret-define", file.to_str().unwrap()]).status.success());
    let listed = virsh(&by_tcp, &["secret-list"]);
    assert!(
        String::from_utf8_lossy(&listed.stdout).contains("3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234"),
        "{listed:?}"
    );

    // Not the one for the other.
    let in_the_clear = virsh(&format!("secret+tcp://127.0.0.1:{tls_port}/system"), &["secret-list"]);
    assert!(!in_the_clear.status.success(), "{in_the_clear:?}");
    daemon.signal(Signal::TERM);
    assert!(daemon.0.wait().unwrap().success());
    let log = fs::read_to_string(place.path().join("log")).unwrap();
    assert!(log.contains("refused 127.0.0.1:") && log.contains("what came is no TLS record"), "{log}");
}

#[test]
fn sockets_from_systemd_for_the_network_are_not_served_without_what_protects_them() {
    let place = Place::new();
    let network = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let mut number = 0;
    let mut unix = || {
        number += 1;
        OwnedFd::from(UnixListener::bind(place.path().join(number.to_string())).unwrap())
    };
    for (socket, name, settings, status, expected) in [
        (
            network(),
            "virtsecretd-tls.socket",
            "ca_file = \"/no/such/ca.pem\"\n",
            1,
            "No server certificate path set",
        ),
        (
            network(),
            "virtsecretd-tcp.socket",
            "auth_tcp = \"none\"\n",
            1,
            "auth_tcp is \"none\": on TCP every secret",
        ),
        (network(), "virtsecretd.socket", "", 6, "it is no Unix stream socket that listens"),
        (unix(), "virtsecretd-tls.socket", "", 6, "it is no TCP socket that listens"),
        (unix(), "strongroomd-tcp.socket", "", 6, "it is no TCP socket that listens"),
    ] {
        fs::write(place.root().join("etc/virtsecretd.conf"), format!("{settings}{}", place.own_key()))
            .unwrap();
        let sockets = [socket, unix(), unix()];
        let mut command =
            place.activated(sockets, &format!("{name}:virtsecretd-ro.socket:virtsecretd-admin.socket"));
        let ended = command.status().unwrap();
        let said = fs::read_to_string(place.path().join("log")).unwrap();
        assert_eq!(ended.code(), Some(status), "{name}: {said}");
        assert!(said.contains(expected) && said.contains("hint: "), "{name}: {said}");
    }
}

#[test]
fn systemd_is_told_of_the_start_of_reloads_and_of_the_end() {
    let place = Place::new();
    let mut command = place.command();
    let ear = place.listen(&mut command);
    let mut daemon = Daemon(command.spawn().unwrap());
    assert_eq!(heard(&ear), "READY=1");
    daemon.signal(Signal::HUP);
    let reloading = heard(&ear);
    let moment = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let moment: i64 = moment.parse().unwrap();
    assert!(moment / 1_000_000 <= now.tv_sec && now.tv_sec - moment / 1_000_000 < 60, "{moment}");
    assert_eq!(heard(&ear), "READY=1");
    daemon.signal(Signal::TERM);
    assert_eq!((heard(&ear), heard(&ear)), ("STOPPING=1".into(), "EXTEND_TIMEOUT_USEC=30000000".into()));
    assert!(daemon.0.wait().unwrap().success());
    assert!(!place.socket().exists() && !place.pid_file().exists());
}

#[test]
fn in_the_background_it_is_there_when_the_command_returns_and_only_once() {
    let place = Place::new();
    let started = place.command().arg("-d").output().unwrap();
    assert!(started.status.success() && started.stderr.is_empty(), "{started:?}");
    let _daemon = Background(place.pid_file());
    UnixStream::connect(place.socket()).unwrap();
    assert!(place.virsh(&place.socket(), &["secret-list"]).status.success());

    let pid = fs::read_to_string(place.pid_file()).unwrap();
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name.trim_end(), "strongroomd");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let is_lock = |line: &str| line.contains("POSIX") && line.split_whitespace().nth(4) == Some(&pid);
    assert!(locks.lines().any(is_lock), "{pid} holds no lock:\n{locks}");

    for again in [&["-d"][..], &[]] {
        let refused = place.command().args(again).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        let line = format!("error: Failed to acquire pid file '{}'", place.pid_file().display());
        assert!(said.starts_with(&line) && said.contains(&pid), "{said}");
    }
}

#[test]
fn whoever_starts_it_into_the_background_hears_its_warnings_and_the_log_keeps_why_it_failed() {
    let place = Place::new();
    let (log, config) = (place.path().join("log"), place.root().join("etc/virtsecretd.conf"));
    let lines = format!("{}log_outputs = \"3:file:{}\"\nlisten_tls = 0\n", place.own_key(), log.display());
    fs::write(&config, lines + "no_such_key = 1\n").unwrap();
    let started = place.command().args(["-d", "--listen"]).output().unwrap();
    let said = String::from_utf8(started.stderr).unwrap();
    assert!(started.status.success(), "{said}");
    let _daemon = Background(place.pid_file());
    let warnings = ["unknown key 'no_such_key'", "--listen listens nowhere on the network"];
    let written = fs::read_to_string(&log).unwrap();
    for words in warnings {
        assert!(said.lines().any(|line| line.starts_with("warning: ") && line.contains(words)), "{said}");
        assert!(written.contains(words), "{written}");
    }

    let refused = place.command().arg("-d").output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("Failed to acquire pid file").count(), 1, "{said}");
    let written = fs::read_to_string(&log).unwrap();
    let failure =
        written.lines().find(|line| line.contains("Failed to acquire pid file")).unwrap_or_default();
    assert!(failure.contains(": error : ") && failure.contains("stop that one first"), "{written}");

    // In the foreground standard error has it once, and the file all the same.
    let other = place.path().join("other-log");
    let outputs = format!("3:stderr 1:file:{}", other.display());
    let refused = place.command().env("LIBVIRT_LOG_OUTPUTS", outputs).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(said.matches("Failed to acquire pid file").count(), 1, "{said}");
    assert!(
        fs::read_to_string(&other).unwrap().contains("Failed to acquire pid file"),
        "it isn't in the file"
    );

    // Where the log is to be can't be read: then it is the usual one.
    fs::write(&config, "log_level =\n").unwrap();
    assert_eq!(place.command().arg("-d").output().unwrap().status.code(), Some(1));
    if !Path::new("/run/systemd/journal/socket").exists() {
        let written = fs::read_to_string(place.root().join("run/libvirt/virtsecretd.log")).unwrap();
        assert!(written.contains("virtsecretd.conf:1: expecting a value"), "{written}");
    }
}

#[test]
fn a_timeout_ends_it_when_nobody_needs_it_and_not_before() {
    let start = || {
        let place = Place::new();
        let mut command = place.command();
        let ear = place.listen(&mut command);
        let daemon = Daemon(command.arg("--timeout=1").spawn().unwrap());
        assert_eq!(heard(&ear), "READY=1");
        (place, daemon, ear)
    };
    let (connected, mut waits_for_client, _ear) = start();
    let client = UnixStream::connect(connected.socket()).unwrap();
    let (ephemeral, mut waits_for_secret, _ear) = start();
    let until_defined = UnixStream::connect(ephemeral.socket()).unwrap();
    let file = ephemeral.path().join("s.xml");
    fs::write(&file, EPHEMERAL).unwrap();
    let defined = ephemeral.virsh(&ephemeral.socket(), &["secret-define", file.to_str().unwrap()]);
    assert!(defined.status.success(), "{defined:?}");
    drop(until_defined);

    // Two that nobody needs, one after the other: by then the timeout of the others is over more than once.
    for _ in 0..2 {
        let (place, mut idle, _ear) = start();
        assert!(idle.0.wait().unwrap().success());
        assert!(!place.socket().exists());
    }
    assert_eq!(waits_for_client.0.try_wait().unwrap(), None);
    assert_eq!(waits_for_secret.0.try_wait().unwrap(), None);
    drop(client);
    let undefine = ["secret-undefine", "3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234"];
    assert!(ephemeral.virsh(&ephemeral.socket(), &undefine).status.success());
    assert!(waits_for_client.0.wait().unwrap().success());
    assert!(waits_for_secret.0.wait().unwrap().success());
}

#[test]
fn stock_virsh_starts_it_under_libvirts_name() {
    let place = Place::new();
    // libvirt starts a daemon for users only. Ours must be where this one can get at it.
    let user = rustix::process::geteuid().is_root().then_some(65_533);
    let (sbin, home) = (place.path().join("sbin"), place.path().join("home"));
    for directory in [&sbin, &home] {
        fs::create_dir(directory).unwrap();
        fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    fs::copy(DAEMON, sbin.join("strongroomd")).unwrap();
    symlink("strongroomd", sbin.join("virtsecretd")).unwrap();
    let version = Command::new(sbin.join("virtsecretd")).arg("--version").output().unwrap();
    assert!(version.stdout.starts_with(b"virtsecretd (strongroom) "), "{version:?}");

    let mut virsh = match user {
        None => Command::new("virsh"),
        Some(user) => {
            chown(&home, Some(user), Some(user)).unwrap();
            let mut setpriv = Command::new("setpriv");
            setpriv.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "virsh"]);
            setpriv
        }
    };
    virsh.env_clear().env("PATH", std::env::var("PATH").unwrap()).env("HOME", &home);
    virsh.env("XDG_RUNTIME_DIR", home.join("run")).env("VIRTD_PATH", &sbin).current_dir("/");
    let pid_file = home.join("run/libvirt/virtsecretd.pid");
    let _daemon = Background(pid_file.clone());
    let listed = virsh.args(["-q", "-c", "secret:///session?mode=direct", "secret-list"]).output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    assert_eq!(String::from_utf8_lossy(&listed.stdout).trim(), "");

    let pid = fs::read_to_string(pid_file).unwrap();
    let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(words.contains("virtsecretd\0--timeout=120"), "{words:?}");
    assert!(home.join(".config/libvirt/secrets/keyring").exists());
    assert_eq!(fs::metadata(home.join("run/libvirt")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn what_is_configured_wrong_stops_the_start_and_is_named() {
    let place = Place::new();
    let file = place.path().join("some.conf");
    let start = |text: &str| {
        fs::write(&file, format!("{text}{}", place.own_key())).unwrap();
        let done = place.command().arg("--config").arg(&file).output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let shown = file.display();
    let (status, said) = start("# a comment\nmax_clients = \"many\"\n");
    assert_eq!(status, Some(1));
    assert!(said.contains(&format!("{shown}: ")) && said.contains("'max_clients'"), "{said}");
    assert!(said.contains("line 2"), "{said}");

    let (status, said) = start("\n\nlog_level =\n#");
    assert_eq!(status, Some(1));
    assert!(said.contains(&format!("{shown}:3: expecting a value")), "{said}");

    let (status, said) = start("auth_unix_rw = \"none\"\nunix_sock_rw_perms = \"0777\"\n");
    assert_eq!(status, Some(1));
    assert!(said.contains("auth_unix_rw") && said.contains("every local user"), "{said}");

    let (status, said) = start("unix_sock_dir = \"/nowhere/at/all\"\n");
    assert_eq!(status, Some(6), "{said}");
    fs::remove_file(&file).unwrap();
    let missing = place.command().arg("--config").arg(&file).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    let said = String::from_utf8_lossy(&missing.stderr);
    assert!(said.contains(&shown.to_string()), "{said}");
    assert!(!place.socket().exists());
}

#[test]
fn an_open_socket_from_systemd_without_authentication_is_refused() {
    let place = Place::new();
    let path = place.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    fs::write(place.path().join("c"), "auth_unix_rw = \"none\"\n").unwrap();
    let script = "export LISTEN_PID=$$; exec 3<&0 </dev/null; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, DAEMON, "--root"]).arg(place.root());
    command.arg("--config").arg(place.path().join("c"));
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "virtsecretd.socket");
    let done = command.stdin(OwnedFd::from(listener)).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("mode 0666") && said.contains("SocketMode="), "{said}");
}

#[test]
fn calls_under_way_are_not_what_a_reload_waits_for() {
    let place = Place::new();
    let mut command = place.command();
    let ear = place.listen(&mut command);
    let daemon = Daemon(command.spawn().unwrap());
    assert_eq!(heard(&ear), "READY=1");
    // A client in the middle of its packet: it says that 28 bytes follow, and sends none of them.
    let mut client = UnixStream::connect(place.socket()).unwrap();
    client.write_all(&[0, 0, 0, 28]).unwrap();
    daemon.signal(Signal::HUP);
    assert!(heard(&ear).starts_with("RELOADING=1"));
    assert_eq!(heard(&ear), "READY=1");
    assert!(place.virsh(&place.socket(), &["secret-list"]).status.success());
    client.set_nonblocking(true).unwrap();
    let kept = client.read(&mut [0]).unwrap_err();
    assert_eq!(kept.kind(), std::io::ErrorKind::WouldBlock, "it was hung up on");
}

/// A directory for one daemon.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(place.root().join("etc")).unwrap();
        fs::write(place.root().join("etc/virtsecretd.conf"), place.own_key()).unwrap();
        place
    }

    /// The line of the configuration that leaves the key of the one who runs the tests alone.
    fn own_key(&self) -> String {
        format!("host_key_file = \"{}\"\n", self.path().join("key/host.key").display())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn root(&self) -> PathBuf {
        self.path().join("root")
    }

    fn socket(&self) -> PathBuf {
        self.root().join("run/virtsecretd-sock")
    }

    fn pid_file(&self) -> PathBuf {
        self.root().join("run/virtsecretd.pid")
    }

    /// The daemon on this root.
    fn command(&self) -> Command {
        let mut command = Command::new(DAEMON);
        command.arg("--root").arg(self.root()).stdin(Stdio::null());
        for variable in
            ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "CREDENTIALS_DIRECTORY"]
        {
            command.env_remove(variable);
        }
        command
    }

    /// The daemon as systemd starts it, with these sockets by these names. What it says goes to the file `log`.
    fn activated(&self, [first, second, third]: [OwnedFd; 3], names: &str) -> Command {
        // Standard input, output and error become the descriptors 3, 4 and 5.
        let script =
            "export LISTEN_PID=$$; exec 3<&0 4<&1 5<&2 </dev/null >\"$LOG\" 2>&1; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, DAEMON, "--root"]).arg(self.root());
        command.env("LISTEN_FDS", "3").env("LISTEN_FDNAMES", names).env("LOG", self.path().join("log"));
        command.stdin(first).stdout(second).stderr(third);
        command
    }

    /// What systemd would hear of the program.
    fn listen(&self, command: &mut Command) -> UnixDatagram {
        let path = self.path().join("notify");
        let ear = UnixDatagram::bind(&path).unwrap();
        ear.set_read_timeout(Some(PATIENCE)).unwrap();
        command.env("NOTIFY_SOCKET", path);
        ear
    }

    fn virsh(&self, socket: &Path, words: &[&str]) -> Output {
        virsh(&format!("secret+unix:///system?socket={}", socket.display()), words)
    }
}

fn virsh(uri: &str, words: &[&str]) -> Output {
    Command::new("virsh").args(["-c", uri]).args(words).output().unwrap()
}

/// The next notification.
fn heard(ear: &UnixDatagram) -> String {
    let mut bytes = [0; 200];
    let length = ear.recv(&mut bytes).expect("nothing more is said");
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

/// A child that ends with its test.
struct Daemon(Child);

impl Daemon {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A daemon that is nobody's child, by its pid file. It ends with its test.
struct Background(PathBuf);

impl Drop for Background {
    fn drop(&mut self) {
        let pid = fs::read_to_string(&self.0).ok().and_then(|text| Pid::from_raw(text.parse().ok()?));
        let Some(pid) = pid else { return };
        _ = kill_process(pid, Signal::TERM);
        let until = Instant::now() + PATIENCE;
        while self.0.exists() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5)); // not our child: nothing to wait for
        }
    }
}

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);
