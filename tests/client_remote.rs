//! A keystore of another host, by every transport that needs no certificates: tcp, ssh in its three forms, a program, libssh.
//!
//! The other host is made of namespaces, which only root can do; Debian's libvirtd and sshd run there. Leans on both. Refuses to
//! touch root's own `known_hosts`, or any file of this host.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/host.rs"]
mod host;

use std::fs;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use host::Host;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use strongroom::{Connection, EventKind, ExposeSecret, OpenOptions};

#[test]
fn every_transport_carries_every_call() {
    let host = Far::start();
    let bare = Connection::open(&format!("secret+tcp://127.0.0.1:{TCP}/system")).unwrap_err();
    assert!(bare.to_string().contains("nothing would encrypt what goes to 127.0.0.1"), "{bare}");
    assert!(bare.advice().unwrap().contains("cleartext=1"), "{bare:?}");
    let mut transports = vec![
        format!("secret+tcp://127.0.0.1:{TCP}/system?cleartext=1"),
        format!("secret+tcp://localhost:{TCP}/system?cleartext=1"),
        host.ssh("proxy=auto"),
        host.ssh("proxy=native"),
        host.ssh("proxy=netcat"),
        host.ssh("socket=/run/libvirt/libvirt-sock"),
        format!("secret+ext://h/system?command=nc&argv=127.0.0.1&argv={TCP}"),
    ];
    if cfg!(feature = "libssh") {
        transports.extend(["libssh", "libssh2"].map(|name| host.libssh(name, "auto", "")));
        transports.push(host.libssh("libssh", "normal", "")); // it is known by now
        transports.push(host.libssh("libssh", "normal", "&proxy=netcat"));
        // Whose far command never stops complaining.
        let loud = "#!/bin/sh\ncase $* in *-U*) yes complaint >&2 & esac\nexec nc \"$@\"\n";
        host.0.write("/run/bin/loud", loud);
        host.0.sh("chmod 755 /run/bin/loud");
        transports.push(host.libssh("libssh", "normal", "&netcat=/run/bin/loud"));
    }
    for uri in transports {
        works(&uri);
    }
}

fn works(uri: &str) {
    let connection = Connection::open(uri).unwrap_or_else(|error| panic!("{uri}: {error:?}"));
    assert_eq!(connection.uri(), uri);
    let mut events = connection.events(EventKind::Lifecycle, None).unwrap();
    let secret = connection.define_xml("<secret><description>d</description></secret>", 0).unwrap();
    assert_eq!(events.next().unwrap().secret().uuid, secret.uuid(), "{uri}");
    let largest: Vec<u8> = (0..65_536_u32).map(|at| (at * 7 % 256) as u8).collect();
    for value in [&largest[..], b"x"] {
        secret.set_value(value).unwrap();
        assert!(secret.value().unwrap().expose_secret() == value, "{uri}");
    }
    assert_eq!(connection.list_all(0).unwrap().len(), 1);
    let error = connection.elevated().unwrap_err();
    assert!(error.to_string().contains("private values are not to be had over"), "{error}");
    secret.undefine().unwrap();
    assert_eq!(connection.num_of_secrets().unwrap(), 0);

    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let read_only = Connection::open_with(uri, options).unwrap_or_else(|error| panic!("{uri}: {error:?}"));
    assert!(read_only.define_xml("<secret/>", 0).unwrap_err().to_string().contains("read only"));
    assert_eq!(read_only.num_of_secrets().unwrap(), 0);
}

#[test]
fn what_goes_wrong_on_the_way_is_told() {
    let host = Far::start();
    let mut cases = vec![
        // First: the others leave the key among the known ones.
        (host.ssh("proxy=native").replace("no_verify=1", "no_verify=0"), "Host key verification failed"),
        (host.ssh("proxy=netcat&mode=legacy&netcat=/nonexistent/nc"), "/nonexistent/nc"),
        (host.ssh("socket=/nonexistent/sock"), "/nonexistent/sock"),
        (host.ssh("proxy=native").replace("root@", "nosuchuser@"), "Permission denied"),
        (host.ssh("proxy=native").replace(&format!(":{SSH}/"), &format!(":{NOBODY}/")), "Connection refused"),
        ("secret+ext://h/system?command=/bin/false".to_owned(), "/bin/false ended (exit status: 1)"),
    ];
    if cfg!(feature = "libssh") {
        cases.extend([
            (host.libssh("libssh", "normal", ""), "Can't verify the session host key"),
            (
                host.libssh("libssh", "ignore", "").replace("root@", "nosuchuser@"),
                "All provided authentication methods with credentials were rejected by the server",
            ),
            (host.libssh("libssh", "ignore", "&socket=/nonexistent/sock"), "/nonexistent/sock"),
            (
                host.libssh("libssh", "ignore", "&sshauth=password"),
                "None of the requested authentication methods are supported by the server",
            ),
        ]);
    } else {
        cases.push((host.libssh("libssh", "ignore", ""), "this build has none"));
    }
    for (uri, told) in cases {
        let error = Connection::open(&uri).unwrap_err();
        assert!(error.to_string().contains(told), "{uri}\n{error:?}");
        assert!(error.advice().is_some(), "{uri}\n{error:?}");
    }
    if cfg!(feature = "libssh") {
        let error =
            Connection::open(&host.libssh("libssh", "ignore", "&netcat=/nonexistent/nc")).unwrap_err();
        let by_hand = format!("ssh -i {} root@127.0.0.1' gets there by itself", host.path("client"));
        assert!(error.to_string().contains("/nonexistent/nc"), "{error}");
        assert!(error.advice().unwrap().contains(&by_hand), "{error:?}");
        let known = host.path("known_by_libssh");
        let error = Connection::open(&host.libssh("libssh", "normal", "")).unwrap_err();
        let shown = Command::new("ssh-keygen").args(["-l", "-f", &host.path("host.pub")]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let fingerprint = shown.split(' ').nth(1).unwrap();
        assert!(fingerprint.starts_with("SHA256:"), "{shown}");
        let advice = error.advice().unwrap();
        assert!(advice.contains(fingerprint) && advice.contains(&known), "{shown}: {advice}");
        Connection::open(&host.libssh("libssh", "auto", "")).unwrap();
        let other = fs::read_to_string(host.path("client.pub")).unwrap();
        let key = other.split(' ').nth(1).unwrap();
        fs::write(&known, format!("127.0.0.1 ssh-ed25519 {key}\n")).unwrap();
        let error = Connection::open(&host.libssh("libssh", "auto", "")).unwrap_err();
        assert!(error.to_string().contains("!!! SSH HOST KEY VERIFICATION FAILED !!!"), "{error}");
        assert!(error.to_string().contains(fingerprint), "{error}");
    }
}

#[test]
fn the_loss_of_the_way_is_told() {
    let host = Far::start();
    let uris = [host.ssh("proxy=native"), format!("secret+tcp://127.0.0.1:{TCP}/system?cleartext=1")];
    let open = uris.map(|uri| Connection::open(&uri).unwrap());
    let events: Vec<_> = open.iter().map(|it| it.events(EventKind::Lifecycle, None).unwrap()).collect();
    drop(host);
    for events in events {
        assert_eq!(events.count(), 0, "they end");
    }
    for connection in open {
        let error = connection.num_of_secrets().unwrap_err();
        assert_eq!((error.code().number(), error.domain().number()), (38, 7), "{error}");
    }
}

/// Of libssh alone: ssh itself asks whom it likes.
#[cfg(feature = "libssh")]
#[test]
fn a_name_and_a_password_that_lie_ready_are_shown() {
    let host = Far::with("PasswordAuthentication yes\n");
    host.0.sh("usermod -p \"$(openssl passwd -6 'pass word')\" root");
    let file = host.path("auth.conf");
    let ready = |service: &str, password: &str| {
        let credentials = format!("[credentials-x]\nusername=root\npassword={password}\n");
        fs::write(&file, format!("[auth-{service}-127.0.0.1]\ncredentials=x\n{credentials}")).unwrap();
    };
    let by_name = host.libssh("libssh", "ignore", &format!("&sshauth=password&authfile={file}"));
    let nameless = by_name.replace("root@", "");
    for (service, password, uri, does) in [
        ("ssh", "pass word", &by_name, true),
        ("ssh", "pass word", &nameless, true),
        ("ssh", "wrong", &by_name, false),
        ("libvirt", "pass word", &by_name, false),
        ("ssh", "pass word", &nameless.replace("//", "//nosuchuser@"), false),
    ] {
        ready(service, password);
        match Connection::open(uri) {
            Ok(connection) => {
                assert!(does && connection.num_of_secrets().unwrap() == 0, "{service} {password} {uri}");
            }
            Err(error) => {
                assert!(!does && error.to_string().contains("rejected by the server"), "{uri}\n{error:?}");
            }
        }
    }
}

/// `libvirt.conf` is a pipe that is written once: whoever reads it twice waits for ever.
#[test]
fn an_alias_is_looked_up_once_and_stands_for_no_other() {
    let host = Host::new("here");
    host.sh("mkfifo -m 600 /etc/libvirt/libvirt.conf");
    let aliases = "uri_aliases = [ \"two=one\", \"one=secret:///system?socket=/run/none\" ]";
    for program in ["virsh", env!("CARGO_BIN_EXE_strongroom")] {
        for (word, told) in [
            ("one", "Failed to connect socket to '/run/none': No such file or directory"),
            ("two", "does not include a driver name"),
        ] {
            let script = format!(
                "echo '{aliases}' > /etc/libvirt/libvirt.conf 2> /run/writer &\n\
                 timeout 10 {program} -c {word} secret-list"
            );
            let output = host.command("sh").args(["-euc", &script]).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{program} {word}: {}", host::said(&output));
            assert!(host::said(&output).contains(told), "{program} {word}: {}", host::said(&output));
        }
    }
}

/// The far side's helper, held against libvirt's own of the same host.
#[test]
fn the_helper_ends_as_libvirts_does() {
    let theirs = |words: &[&str]| helper("virt-ssh-helper", words);
    let ours = |words: &[&str]| {
        let (status, told) = helper(env!("CARGO_BIN_EXE_strongroom"), &[&["ssh-helper"], words].concat());
        (status, told.replace("strongroom ssh-helper: ", "virt-ssh-helper: "))
    };
    for words in [
        &["secret+ssh://h/system"][..],
        &["secret://h/system"],
        &["secret+tls:///system"],
        &["-r", "secret+tcp:///system"],
    ] {
        assert_eq!(ours(words), theirs(words), "{words:?}");
    }
    assert_eq!(ours(&[]).0, theirs(&[]).0);
    assert_eq!(ours(&["secret:///system", "more"]).0, theirs(&["secret:///system", "more"]).0);
    let (status, told) = ours(&["secret:///system?socket=/nonexistent/sock"]);
    let expected = "virt-ssh-helper: cannot connect to '/nonexistent/sock': Failed to connect socket to \
                    '/nonexistent/sock': No such file or directory\n";
    assert_eq!((status, told.as_str()), (Some(1), expected));

    // What it carries, and how it ends: by its input, or by the socket.
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sock");
    let listener = UnixListener::bind(&socket).unwrap();
    for (by_input, why) in [
        (true, "internal error: EOF on stdin"),
        (false, "End of file while reading data: Input/output error"),
    ] {
        let mut helper = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        helper.args(["ssh-helper", &format!("secret:///system?socket={}", socket.display())]);
        helper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut helper = helper.spawn().unwrap();
        let (mut daemon, _) = listener.accept().unwrap();
        let mut input = helper.stdin.take().unwrap();
        let mut heard = [0; 5];
        io(&mut input, &mut daemon, &mut heard);
        assert_eq!(&heard, b"hello");
        std::io::Write::write_all(&mut daemon, b"world").unwrap();
        std::io::Read::read_exact(helper.stdout.as_mut().unwrap(), &mut heard).unwrap();
        assert_eq!(&heard, b"world");
        if by_input {
            drop(input);
        } else {
            drop(daemon);
        }
        let output = helper.wait_with_output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(told, format!("strongroom ssh-helper: could not proxy traffic: {why}\n"));
        assert_eq!(output.status.code(), Some(1));
    }
}

/// Under libvirt's name it has to serve whoever comes: the daemon is found as libvirt's helper finds it.
#[test]
fn the_helper_finds_every_drivers_daemon() {
    let host = Host::new("here");
    host.sh("mkdir /run/libvirt");
    let sockets = ["virtstoraged-sock", "virtstoraged-sock-ro", "virtsecretd-sock", "libvirt-sock"];
    let listeners = sockets.map(|name| {
        let listener = UnixListener::bind(host.path(&format!("/run/libvirt/{name}"))).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    });
    for (words, socket) in [
        (&["storage:///system"][..], "virtstoraged-sock"),
        (&["-r", "storage:///system"], "virtstoraged-sock-ro"),
        (&["secret:///system"], "virtsecretd-sock"),
        (&["qemu:///system"], "libvirt-sock"),
        (&["test:///default"], "libvirt-sock"),
    ] {
        for helper in [&["virt-ssh-helper"][..], &[env!("CARGO_BIN_EXE_strongroom"), "ssh-helper"]] {
            let output = host.command(helper[0]).args(&helper[1..]).args(words).output().unwrap();
            let called: Vec<_> = sockets
                .iter()
                .zip(&listeners)
                .filter(|(_, it)| it.accept().is_ok())
                .map(|(name, _)| *name)
                .collect();
            assert_eq!(called, [socket], "{helper:?} {words:?}: {}", host::said(&output));
        }
    }
}

fn io(from: &mut impl std::io::Write, to: &mut impl std::io::Read, heard: &mut [u8]) {
    from.write_all(b"hello").unwrap();
    to.read_exact(heard).unwrap();
}

/// What it answers when nobody says anything.
fn helper(program: &str, words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Another host, and a way for the thread that made it to get there: it calls from that host's loopback, where all ports are free.
struct Far(Host);

impl Far {
    fn start() -> Self {
        Self::with(KEYS_ONLY)
    }

    /// `proofs`: what its sshd takes besides keys.
    fn with(proofs: &str) -> Self {
        let far = Self(Host::new("far"));
        far.0.write("/etc/ssh/sshd_config", format!("{SSHD}{proofs}"));
        far.0.write("/etc/libvirt/libvirtd.conf", LIBVIRTD);
        let strongroom = env!("CARGO_BIN_EXE_strongroom");
        far.0.sh(&format!("{PREPARE}ln -s {strongroom} /run/bin/virt-ssh-helper"));
        let ssh = format!("#!/bin/sh\nexec ssh -F none -o UserKnownHostsFile={} \"$@\"\n", far.path("known"));
        fs::write(far.path("ssh"), ssh).unwrap();
        fs::set_permissions(far.path("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        far.0.sh(LISTEN);
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(far.0.network().as_fd(), network).unwrap();
        let started = Instant::now();
        while [TCP, SSH].iter().any(|&port| TcpStream::connect(("127.0.0.1", port)).is_err()) {
            let said = ["/run/libvirtd.log", "/run/sshd.log"].map(|log| far.0.read(log)).concat();
            assert!(started.elapsed() < Duration::from_secs(30), "the host doesn't answer:\n{said}");
            sleep(Duration::from_millis(20));
        }
        far
    }

    /// Where a file of the tests' own lies, for both sides.
    fn path(&self, name: &str) -> String {
        self.0.path(&format!("/run/{name}")).display().to_string()
    }

    /// A URI by the system's ssh.
    fn ssh(&self, how: &str) -> String {
        let (command, key) = (self.path("ssh"), self.path("client"));
        format!(
            "secret+ssh://root@127.0.0.1:{SSH}/system?command={command}&keyfile={key}&no_verify=1&no_tty=1&{how}"
        )
    }

    /// A URI by the library.
    fn libssh(&self, name: &str, check: &str, more: &str) -> String {
        let (known, key) = (self.path("known_by_libssh"), self.path("client"));
        format!(
            "secret+{name}://root@127.0.0.1:{SSH}/system?keyfile={key}&known_hosts={known}&known_hosts_verify={check}{more}"
        )
    }
}

/// The host's ports. Nobody listens at the last.
const TCP: u16 = 16509;
const SSH: u16 = 22;
const NOBODY: u16 = 23;

const PREPARE: &str = "mkdir -m 755 /run/drivers /run/bin
ln -s /usr/lib/*/libvirt/connection-driver/libvirt_driver_secret.so /run/drivers/
for key in host client; do ssh-keygen -q -t ed25519 -N '' -f /run/$key; done
";

const LISTEN: &str = "LIBVIRT_DRIVER_DIR=/run/drivers libvirtd --listen > /run/libvirtd.log 2>&1 &
/usr/sbin/sshd -E /run/sshd.log";

const LIBVIRTD: &str = "listen_tls = 0
listen_tcp = 1
listen_addr = \"127.0.0.1\"
auth_tcp = \"none\"
auth_unix_rw = \"none\"
auth_unix_ro = \"none\"
";

const SSHD: &str = "ListenAddress 127.0.0.1
HostKey /run/host
AuthorizedKeysFile /run/client.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
KbdInteractiveAuthentication no
SetEnv PATH=/run/bin:/usr/bin:/bin
";

const KEYS_ONLY: &str = "PasswordAuthentication no\n";
