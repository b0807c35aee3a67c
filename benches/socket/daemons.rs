//! What is measured, each in a private place of the same file system: strongroomd, Debian's libvirtd, and the floor of
//! either kind of work: two threads that pass messages of the same sizes, and an append and fdatasync.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{Client, DEFINE, text};

/// A daemon with some thousand secrets, and values where they are wanted.
pub(crate) struct Daemon {
    child: Child,
    socket: PathBuf,
    uri: &'static str,
}

impl Daemon {
    /// The strongroomd of this build. Its secrets are defined over its socket.
    pub(crate) fn strongroom(base: &Path, secrets: usize) -> Self {
        let root = base.join("strongroom");
        fs::create_dir_all(root.join("etc")).unwrap();
        let key = base.join("host.key");
        let key = format!("host_key_file = \"{}\"\n", key.display());
        let lines = ["auth_unix_rw = \"none\"\n", "unix_sock_rw_perms = \"0700\"\n", &key].concat();
        fs::write(root.join("etc/virtsecretd.conf"), lines).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroomd"));
        command.arg("--root").arg(&root);
        let daemon = Self::start(&mut command, base, root.join("run/virtsecretd-sock"), "secret:///system");
        std::thread::scope(|scope| {
            for part in 0..16 {
                let mut client = daemon.client();
                scope.spawn(move || {
                    for number in (part..secrets).step_by(16) {
                        client.prepare(DEFINE, &[&text(document(number).as_bytes()), &[0; 4]]);
                        client.call();
                    }
                });
            }
        });
        daemon
    }

    /// A session libvirtd; not run by root, whose drivers want the whole system. It finds its secrets when it starts.
    /// `None` where there is no libvirtd.
    pub(crate) fn libvirt(base: &Path, secrets: usize) -> Option<Self> {
        Command::new("libvirtd").arg("--version").output().ok()?;
        let home = base.join("libvirt");
        let places = ["run", "config", "cache"].map(|name| home.join(name));
        let etc = places[1].join("libvirt/secrets");
        places.iter().chain([&etc]).for_each(|place| fs::create_dir_all(place).unwrap());
        for number in 0..secrets {
            fs::write(etc.join(format!("{}.xml", uuid_text(number))), document(number)).unwrap();
        }
        let configuration = home.join("libvirtd.conf");
        let lines = format!("unix_sock_dir = \"{}\"\nauth_unix_rw = \"none\"\n", places[0].display());
        fs::write(&configuration, lines).unwrap();
        let mut command = Command::new("libvirtd");
        command.arg("-f").arg(configuration).env("HOME", &home);
        for (name, place) in ["XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"].iter().zip(&places) {
            command.env(name, place);
        }
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
            let own = Command::new("chown").arg("-R").arg(format!("{NOBODY}:{NOBODY}")).arg(&home).status();
            assert!(own.unwrap().success());
        }
        command.stderr(Stdio::null()); // it logs every client that leaves
        let socket = places[0].join("libvirt-sock");
        Some(Self::start(&mut command, base, socket, "secret:///session"))
    }

    fn start(command: &mut Command, base: &Path, socket: PathBuf, uri: &'static str) -> Self {
        command.current_dir(base).stdin(Stdio::null()).stdout(Stdio::null());
        let mut daemon = Self { child: command.spawn().unwrap(), socket, uri };
        let start = Instant::now();
        while UnixStream::connect(&daemon.socket).is_err() {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none() && start.elapsed() < PATIENCE, "{command:?} doesn't serve: {ended:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    pub(crate) fn client(&self) -> Client {
        Client::open(&self.socket, self.uri)
    }

    /// Bytes of memory that it has for itself.
    pub(crate) fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The bare ping-pong: a thread that answers calls of this length by replies of that one, and nothing else.
pub(crate) fn ping_pong(call: usize, reply: usize) -> Client {
    let (mut here, there) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let mut asked = vec![0; call];
        let words = [u32::try_from(reply).unwrap(), 0, 0, 0, 1, 7, 0];
        let mut answer: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        answer.resize(reply, 0);
        while here.read_exact(&mut asked).is_ok() && here.write_all(&answer).is_ok() {}
    });
    Client::over(there)
}

/// The bare append: a file that takes so many bytes more, durably.
pub(crate) struct Append {
    file: File,
    bytes: Vec<u8>,
}

impl Append {
    pub(crate) fn new(base: &Path, length: usize) -> Self {
        Self { file: File::create(base.join(format!("append-{length}"))).unwrap(), bytes: vec![7; length] }
    }

    pub(crate) fn append(&mut self) {
        self.file.write_all(&self.bytes).unwrap();
        self.file.sync_data().unwrap();
    }
}

/// Readable by the user that libvirtd runs as.
pub(crate) fn open_to_all(directory: &Path) {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Without a usage: libvirtd compares each usage with every other when it starts.
fn document(number: usize) -> String {
    format!("<secret ephemeral='no' private='no'><uuid>{}</uuid></secret>\n", uuid_text(number))
}

pub(crate) fn uuid(number: usize) -> [u8; 16] {
    let mut uuid = [0x5A; 16];
    uuid[8..].copy_from_slice(&(number as u64).to_be_bytes());
    uuid
}

fn uuid_text(number: usize) -> String {
    let hex: String = uuid(number).iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

const NOBODY: u32 = 65_534;

const PATIENCE: Duration = Duration::from_secs(120);
