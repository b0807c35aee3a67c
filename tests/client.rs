//! A daemon's keystore through the library and through the command line, over its Unix socket.
//!
//! The daemon is Debian's stock libvirtd, private to the test; each body takes a [`Server`], so that any daemon that
//! speaks libvirt's protocol can stand there. What the command line prints is held against stock virsh with the same
//! daemon. Programs run as `nobody` where the tests run as root, for root has no session of its own.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ::uuid::Uuid;
use strongroom::{
    Connection, Error, Event, EventKind, ExposeSecret, Lifecycle, ListFlags, OpenOptions, UsageType,
};

const PLAIN: Uuid = ::uuid::uuid!("3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234");
const PRIVATE: Uuid = ::uuid::uuid!("4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234");

#[test]
fn the_library_works_over_a_socket() {
    let server = Server::start();
    let connection = Connection::open(&server.by_socket()).unwrap();
    assert_eq!(connection.uri(), server.by_socket());
    assert!(connection.locked().is_none());
    defines_sets_and_gets(&connection);
    hears_events(&connection);
    gets_the_servers_errors(&connection);
    serves_many_threads(&connection);
    changes_nothing_when_read_only(&server);
}

fn defines_sets_and_gets(connection: &Connection) {
    let usage = "<usage type='ceph'><name>client.x secret</name></usage>";
    let xml = format!("<secret><uuid>{PLAIN}</uuid><description>ä</description>{usage}</secret>");
    let secret = connection.define_xml(&xml, 0).unwrap();
    assert_eq!(
        (secret.uuid(), secret.usage_type(), secret.usage_id()),
        (PLAIN, UsageType::Ceph, "client.x secret")
    );
    let largest: Vec<u8> = (0..65_536_u32).map(|at| (at * 7 % 256) as u8).collect();
    for value in [&largest[..], b"x", &[0; 5]] {
        secret.set_value(value).unwrap();
        assert!(secret.value().unwrap().expose_secret() == value);
    }
    let private = connection.define_xml(format!("<secret private='yes'><uuid>{PRIVATE}</uuid></secret>"), 0);
    private.unwrap().set_value(b"for daemons only").unwrap();
    assert!(secret.xml_desc().unwrap().contains("<description>ä</description>"));
    let found = connection.lookup_by_usage(UsageType::Ceph, "client.x secret").unwrap();
    assert_eq!(found.uuid(), PLAIN);
    assert_eq!(connection.lookup_by_uuid_string(&PLAIN.simple().to_string()).unwrap().uuid(), PLAIN);
    let listed = |flags| -> Vec<Uuid> {
        let mut all: Vec<_> =
            connection.list_all(flags).unwrap().iter().map(strongroom::Secret::uuid).collect();
        all.sort();
        all
    };
    assert_eq!((listed(0), listed(ListFlags::PRIVATE)), (vec![PLAIN, PRIVATE], vec![PRIVATE]));
    assert_eq!(connection.num_of_secrets().unwrap(), 2);
    assert_eq!(connection.list_secrets(100).unwrap().len(), 2);
    assert_eq!(connection.list_secrets(1).unwrap().len(), 1);
}

fn hears_events(connection: &Connection) {
    let mut lifecycle = connection.events(EventKind::Lifecycle, None).unwrap();
    let mut values = connection.events(EventKind::ValueChanged, Some(PLAIN)).unwrap();
    assert_ne!(lifecycle.id(), values.id());
    let other = connection.define_xml("<secret ephemeral='yes'/>", 0).unwrap();
    other.set_value(b"not asked for").unwrap();
    connection.lookup_by_uuid(PLAIN).unwrap().set_value(b"new").unwrap();
    other.undefine().unwrap();
    assert_eq!(values.next().unwrap().secret().uuid, PLAIN);
    for expected in [Lifecycle::Defined, Lifecycle::Undefined] {
        match lifecycle.next() {
            Some(Event::Lifecycle(of, what)) => assert_eq!((of.uuid, what), (other.uuid(), expected)),
            other => panic!("{other:?}"),
        }
    }
    drop(values);
    // The same again: the first is gone from the server too.
    let again = connection.events(EventKind::ValueChanged, Some(PLAIN)).unwrap();
    assert!(again.next_within(Duration::ZERO).is_none() && !again.ended());
}

fn gets_the_servers_errors(connection: &Connection) {
    let gone = Uuid::from_u128(1);
    let plain = connection.lookup_by_uuid(PLAIN).unwrap();
    let taken = "<secret><usage type='ceph'><name>client.x secret</name></usage></secret>";
    let cases: [(Error, i32, i32, String); 8] = [
        (
            connection.lookup_by_uuid(gone).unwrap_err(),
            66,
            30,
            format!("Secret not found: no secret with matching uuid '{gone}'"),
        ),
        (
            connection.lookup_by_usage(UsageType::Tls, "ü").unwrap_err(),
            66,
            30,
            "Secret not found: no secret with matching usage 'ü'".into(),
        ),
        (
            connection.lookup_by_uuid(PRIVATE).unwrap().value().unwrap_err(),
            65,
            30,
            "Invalid secret: secret is private".into(),
        ),
        (plain.set_value(b"").unwrap_err(), 8, 30, "value in virSecretSetValue must not be NULL".into()),
        (
            connection.define_xml("<secret/>", 2).unwrap_err(),
            8,
            30,
            "unsupported flags (0x2) in function secretDefineXML".into(),
        ),
        (
            connection.list_all(0x10).unwrap_err(),
            8,
            30,
            "unsupported flags (0x10) in function secretConnectListAllSecrets".into(),
        ),
        (
            connection.define_xml(taken, 0).unwrap_err(),
            1,
            30,
            format!(
                "internal error: a secret with UUID {PLAIN} already defined for use with client.x secret"
            ),
        ),
        (
            connection.define_xml("<pool/>", 0).unwrap_err(),
            27,
            5,
            "XML error: expecting root element of 'secret', not 'pool'".into(),
        ),
    ];
    for (error, code, domain, message) in cases {
        // 9.0 reports a document of another kind in another domain.
        let domains = [domain, if code == 27 { 30 } else { domain }];
        assert_eq!((error.code().number(), error.to_string()), (code, message));
        assert!(domains.contains(&error.domain().number()), "{error:?}");
    }
}

fn serves_many_threads(connection: &Connection) {
    thread::scope(|scope| {
        for thread in 0..8_u8 {
            scope.spawn(move || {
                let value = vec![thread; 1 + 3000 * usize::from(thread)];
                let secret = connection.define_xml("<secret ephemeral='yes'/>", 0).unwrap();
                for _ in 0..30 {
                    secret.set_value(&value).unwrap();
                    assert!(secret.value().unwrap().expose_secret() == value);
                    assert!(connection.num_of_secrets().unwrap() >= 3);
                }
                secret.undefine().unwrap();
            });
        }
    });
}

fn changes_nothing_when_read_only(server: &Server) {
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let connection = Connection::open_with(&server.by_socket(), options).unwrap();
    let secret = connection.lookup_by_uuid(PLAIN).unwrap();
    assert!(secret.xml_desc().is_ok());
    for (error, call) in [
        (connection.define_xml("<secret/>", 0).unwrap_err(), "virSecretDefineXML"),
        (secret.set_value(b"x").unwrap_err(), "virSecretSetValue"),
        (secret.value().unwrap_err(), "virSecretGetValue"),
        (secret.undefine().unwrap_err(), "virSecretUndefine"),
    ] {
        assert_eq!(error.to_string(), format!("operation forbidden: read only access prevents {call}"));
    }
}

#[test]
fn the_loss_of_the_server_is_told() {
    let mut server = Server::start();
    let connection = Connection::open(&server.by_socket()).unwrap();
    let mut events = connection.events(EventKind::Lifecycle, None).unwrap();
    let words =
        ["-c", &server.by_socket(), "secret-event", "--event", "lifecycle", "--loop", "--timeout", "20"];
    let mut watching =
        server.strongroom(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It listens once it has heard something.
    let mut heard = watching.stdout.take().unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        heard.read_exact(&mut [0]).unwrap();
        tell.send(()).unwrap();
        io::copy(&mut heard, &mut io::sink()).unwrap();
    });
    while told.try_recv().is_err() {
        connection.define_xml("<secret ephemeral='yes'/>", 0).unwrap().undefine().unwrap();
    }
    server.stop();
    assert!(events.by_ref().count() >= 2, "they end");
    assert!(events.ended());
    let error = connection.num_of_secrets().unwrap_err();
    assert_eq!(error.to_string(), "End of file while reading data: Input/output error");
    assert_eq!((error.code().number(), error.domain().number()), (38, 7));
    let told = watching.wait_with_output().unwrap();
    assert_eq!(told.status.code(), Some(1));
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(told.contains("error: End of file while reading data: Input/output error\n"), "{told}");
    let error = Connection::open(&server.by_socket()).unwrap_err();
    assert!(error.to_string().starts_with("Failed to connect socket to '"), "{error}");
}

#[test]
fn the_command_line_says_what_virsh_says() {
    let server = Server::start();
    server.write("plain.xml", &format!("<secret><uuid>{PLAIN}</uuid></secret>"));
    server.write("private.xml", &format!("<secret private='yes'><uuid>{PRIVATE}</uuid></secret>"));
    server.write("other.xml", "<pool/>");
    server.write("value", "a value");
    for uri in
        ["secret:///session".to_owned(), server.by_socket(), "secret+unix:///session?mode=legacy".into()]
    {
        let [theirs, ours] = ["virsh", "strongroom"].map(|program| {
            STEPS.map(|step| {
                let step = step.replace("PLAIN", &PLAIN.to_string()).replace("PRIVATE", &PRIVATE.to_string());
                let words = [&["-c", &uri][..], &step.split(' ').collect::<Vec<_>>()].concat();
                let output = match program {
                    "virsh" => server.command("virsh").args(words).output(),
                    _ => server.strongroom(&words).output(),
                };
                said(&step, &output.unwrap())
            })
        });
        for (theirs, ours) in theirs.iter().zip(&ours) {
            assert_eq!(theirs, ours, "{uri}");
        }
    }
}

/// They leave nothing behind.
const STEPS: [&str; 17] = [
    "secret-define plain.xml",
    "secret-define private.xml",
    "secret-define other.xml",
    "secret-list",
    "secret-list --private",
    "secret-dumpxml PLAIN",
    "secret-get-value PLAIN",
    "secret-set-value PLAIN --file value --plain",
    "secret-set-value PRIVATE --file value --plain",
    "secret-get-value PLAIN",
    "-q secret-get-value PLAIN --plain",
    "secret-get-value PRIVATE",
    "-r secret-get-value PLAIN",
    "--readonly secret-undefine PLAIN",
    "secret-undefine PLAIN",
    "secret-undefine PLAIN",
    "secret-undefine PRIVATE",
];

/// What a command said, without the advice that virsh doesn't give.
fn said(step: &str, output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    let stderr: String = stderr.split_inclusive('\n').filter(|line| !line.starts_with("hint: ")).collect();
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    format!("$ {step}\n{stdout}{stderr}? {:?}", output.status.code())
}

#[test]
fn the_command_line_carries_the_largest_values_events_and_the_token() {
    let server = Server::start();
    let session = |words: &[&str]| server.strongroom(&[&["-c", "secret:///session"], words].concat());
    let done = |words: &[&str]| {
        let output = session(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        output.stdout
    };
    let largest = "0123456789abcdef".repeat(4096);
    server.write("private.xml", &format!("<secret private='yes'><uuid>{PRIVATE}</uuid></secret>"));
    server.write("largest", &largest);
    done(&["secret-define", "private.xml"]);
    done(&["secret-set-value", &PRIVATE.to_string(), "--file", "largest", "--plain"]);
    let got = done(&["-q", "secret-get-value", &PRIVATE.to_string(), "--plain", "--elevated"]);
    assert!(got == largest.as_bytes());

    let event = ["secret-event", "--event", "lifecycle", "--timeout", "20"];
    let mut watching = session(&event).stdout(Stdio::piped()).spawn().unwrap();
    while watching.try_wait().unwrap().is_none() {
        done(&["secret-define", "private.xml"]);
    }
    let told = String::from_utf8(watching.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(told, format!("event 'lifecycle' for secret {PRIVATE}: Defined\nevents received: 1\n\n"));
    // Whoever has no token is told so.
    let elsewhere = server.home.path().join("cache");
    let socket = elsewhere.join("sock"); // there is a token beside the other one
    std::os::unix::fs::symlink(server.socket(), &socket).unwrap();
    let uri = format!("secret:///session?socket={}", socket.display());
    let words = ["-c", &uri, "secret-get-value", &PRIVATE.to_string(), "--elevated"];
    let output = server.strongroom(&words).env("XDG_RUNTIME_DIR", &elsewhere).output().unwrap();
    let token = elsewhere.join("libvirt/common/system.token");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains(&format!("there is no system token in '{}'", token.display())), "{told}");
}

#[test]
fn a_users_daemon_is_started_once_and_under_its_name() {
    let server = Server::unstarted();
    let script = "#!/bin/sh\necho \"$$ $*\" >> \"$HOME/started\"\n\
                  ln -s libvirt-sock \"$XDG_RUNTIME_DIR/libvirt/virtsecretd-sock\"\nexec libvirtd \"$@\"\n";
    server.write_program("virtsecretd", script);
    let here = server.home.path();
    let list = |name: &str, value: &Path| {
        let mut command = server.strongroom(&["-c", "secret:///session", "secret-list"]);
        command.env(name, value);
        command
    };
    let output = list("LIBVIRT_AUTOSTART", Path::new("0")).output().unwrap();
    let told = said("", &output);
    let socket = here.join("run/libvirt/virtsecretd-sock");
    let refused = format!("Failed to connect socket to '{}': No such file or directory", socket.display());
    assert!(told.contains(&refused), "{told}");

    let together: Vec<Child> = (0..4)
        .map(|_| {
            let mut command = list("VIRTD_PATH", here);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let outputs: Vec<Output> =
        together.into_iter().map(|client| client.wait_with_output().unwrap()).collect();
    let started = fs::read_to_string(here.join("started")).unwrap_or_default();
    let (pid, words) = started.split_once(' ').unwrap_or_default();
    // Before anything can fail: it was started on our behalf.
    let killed = Command::new("kill").arg(pid).status().unwrap();
    for output in outputs {
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(words, "--timeout=120\n");
    assert!(killed.success());
    assert!(!here.join("run/libvirt/virtsecretd.lock").exists());
    let mode = fs::metadata(here.join("run/libvirt")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_daemon_that_does_not_start_is_told_from_one_that_is_missing() {
    let server = Server::unstarted();
    server.write_program("virtsecretd", "#!/bin/sh\nexit 3\n");
    let told = |directory: &Path| {
        let mut command = server.strongroom(&["-c", "secret:///session", "secret-list"]);
        String::from_utf8(command.env("VIRTD_PATH", directory).output().unwrap().stderr).unwrap()
    };
    let ends = told(server.home.path());
    assert!(ends.contains("was started, but ended at once (exit status: 3)"), "{ends}");
    let missing = told(Path::new("/nonexistent"));
    assert!(missing.contains("there is no '/nonexistent/virtsecretd' to start"), "{missing}");
}

/// A daemon with a home of its own, and programs that run as its user.
struct Server {
    home: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Server {
    /// Stock libvirtd as a session daemon.
    fn start() -> Self {
        let mut server = Self::unstarted();
        server.write("libvirtd.conf", "auth_unix_rw = \"none\"\n");
        let log = fs::File::create(server.home.path().join("log")).unwrap();
        let mut command = server.command("libvirtd");
        command.arg("-f").arg(server.home.path().join("libvirtd.conf"));
        command.stdout(log.try_clone().unwrap()).stderr(log);
        server.daemon = Some(command.spawn().unwrap_or_else(|error| {
            panic!("cannot start libvirtd ({error}): apt-get install libvirt-daemon libvirt-clients")
        }));
        for _ in 0..200 {
            if std::os::unix::net::UnixStream::connect(server.socket()).is_ok() {
                return server;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("libvirtd doesn't answer: {}", fs::read_to_string(server.home.path().join("log")).unwrap());
    }

    fn unstarted() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755)).unwrap();
        for folder in ["run", "config", "cache"] {
            fs::create_dir(home.path().join(folder)).unwrap();
        }
        // Where it lies now, its user might not get to it. Not copied by this process: a program can't be run while a
        // child of another test's still has it open for writing.
        let program = home.path().join("strongroom");
        assert!(
            Command::new("cp").arg(env!("CARGO_BIN_EXE_strongroom")).arg(program).status().unwrap().success()
        );
        if rustix::process::geteuid().is_root() {
            for folder in ["", "run", "config", "cache"] {
                chown(home.path().join(folder), Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        Self { home, daemon: None }
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("run/libvirt/libvirt-sock")
    }

    fn by_socket(&self) -> String {
        format!("secret:///session?socket={}", self.socket().display())
    }

    /// A file in its home.
    fn write(&self, name: &str, content: &str) {
        fs::write(self.home.path().join(name), content).unwrap();
    }

    /// A program in its home; not written by this process, as above.
    fn write_program(&self, name: &str, content: &str) {
        let write = "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"";
        let path = self.home.path().join(name);
        assert!(
            Command::new("sh").args(["-c", write, "sh"]).arg(path).arg(content).status().unwrap().success()
        );
    }

    fn strongroom(&self, words: &[&str]) -> Command {
        let mut command = self.command(self.home.path().join("strongroom").to_str().unwrap());
        command.args(words);
        command
    }

    /// A program of its user's.
    fn command(&self, program: &str) -> Command {
        let home = self.home.path();
        let mut command = Command::new(program);
        command.current_dir(home).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", home);
        command.env("LANG", "C.UTF-8").env("XDG_RUNTIME_DIR", home.join("run"));
        command.env("XDG_CONFIG_HOME", home.join("config")).env("XDG_CACHE_HOME", home.join("cache"));
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            _ = daemon.kill();
            _ = daemon.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

const NOBODY: u32 = 65_534;
