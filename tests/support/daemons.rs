//! Daemons to hold beside each other: Debian's libvirtd and strongroomd, each with a keystore and sockets of its own.
//!
//! Run by root they are the system's daemons, in a view of the host in which `/run` and `/etc/libvirt` are theirs alone;
//! run by anybody else, that user's. Either way their sockets, token and log lie where the tests can reach them.
//! libvirtd gets its secret driver and no other, as virtsecretd has it. Leans on the programs alone. Refuses to leave one
//! running, and to call it a success when strongroomd doesn't end well.

#![allow(dead_code, reason = "every test uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Whose daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Debian's, with all programs in one.
    Libvirtd,
    /// Ours.
    Strongroomd,
}

/// A daemon that runs until it is dropped.
pub(crate) struct Daemon {
    kind: Kind,
    process: Child,
    home: tempfile::TempDir,
}

impl Daemon {
    /// Starts one that has no secrets. `settings`: lines for its configuration, besides those for sockets and keys.
    pub(crate) fn start(kind: Kind, settings: &str) -> Self {
        if kind == Kind::Libvirtd {
            assert!(on_path("libvirtd"), "libvirtd is missing: apt-get install libvirt-daemon");
        }
        let home = tempfile::tempdir().unwrap();
        // For the user nobody, who is let in by some tests.
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let process = command(kind, home.path(), settings).spawn().unwrap();
        let mut daemon = Self { kind, process, home };
        let started = Instant::now();
        while UnixStream::connect(daemon.socket()).is_err() {
            let ended = daemon.process.try_wait().unwrap();
            let waiting = ended.is_none() && started.elapsed() < PATIENCE;
            assert!(waiting, "{kind:?} doesn't answer, {ended:?}:\n{}", daemon.log());
            sleep(Duration::from_millis(5));
        }
        daemon
    }

    /// Its main socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.home.path().join("run").join(match self.kind {
            Kind::Libvirtd => "libvirt-sock",
            Kind::Strongroomd => "virtsecretd-sock",
        })
    }

    /// Its socket for those who only read. A user's daemon has none.
    pub(crate) fn read_only_socket(&self) -> Option<PathBuf> {
        is_root().then(|| PathBuf::from(format!("{}-ro", self.socket().display())))
    }

    /// Its socket for administration: root's daemons have it beside the others.
    #[allow(dead_code, reason = "not every test administers")]
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.home.path().join("run").join(match self.kind {
            Kind::Libvirtd => "libvirt-admin-sock",
            Kind::Strongroomd => "virtsecretd-admin-sock",
        })
    }

    /// Its name, as administrators call it.
    #[allow(dead_code, reason = "not every test administers")]
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Libvirtd => "libvirtd",
            Kind::Strongroomd => "virtsecretd",
        }
    }

    /// What makes a caller one of the host's daemons.
    pub(crate) fn token(&self) -> PathBuf {
        self.own(Path::new("run/libvirt"), Path::new("runtime/libvirt")).join("common/system.token")
    }

    /// Where its definitions lie.
    pub(crate) fn secrets(&self) -> PathBuf {
        self.own(Path::new("etc/libvirt"), Path::new("config/libvirt")).join("secrets")
    }

    fn own(&self, by_root: &Path, by_user: &Path) -> PathBuf {
        match is_root() {
            true => Path::new("/proc").join(self.process.id().to_string()).join("root").join(by_root),
            false => self.home.path().join(by_user),
        }
    }

    /// Where a client finds it.
    pub(crate) fn connection(&self) -> String {
        at(&self.socket())
    }

    /// Undefines all that it has, and sweeps up behind it.
    pub(crate) fn forget_all(&self) {
        let virsh = format!("virsh -c '{}'", self.connection());
        let script = format!(
            "for u in $({virsh} -q secret-list | cut -c2-37); do {virsh} -q secret-undefine $u; done"
        );
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        if self.kind == Kind::Libvirtd {
            for path in fs::read_dir(self.secrets()).unwrap() {
                fs::remove_file(path.unwrap().path()).unwrap();
            }
        }
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.process);
        _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let asked = Instant::now();
        while self.process.try_wait().is_ok_and(|status| status.is_none()) && asked.elapsed() < PATIENCE {
            sleep(Duration::from_millis(5));
        }
        _ = self.process.kill();
        let status = self.process.wait().unwrap();
        if self.kind == Kind::Strongroomd && !std::thread::panicking() {
            assert!(status.success() && !self.log().contains("panicked"), "{status}:\n{}", self.log());
        }
    }
}

fn command(kind: Kind, home: &Path, settings: &str) -> Command {
    let path = |name: &str| home.join(name).display().to_string();
    for folder in ["run", "runtime", "config", "cache", "drivers"] {
        fs::create_dir(home.join(folder)).unwrap();
    }
    let mut lines = format!("unix_sock_dir = \"{}\"\n{settings}\n", path("run"));
    if kind == Kind::Strongroomd {
        fs::write(path("host.key"), [0x5A; 32]).unwrap();
        fs::set_permissions(path("host.key"), fs::Permissions::from_mode(0o600)).unwrap();
        lines += &format!("host_key_file = \"{}\"\n", path("host.key"));
    }
    if !settings.contains("auth_unix_rw") {
        lines += "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\nunix_sock_rw_perms = \"0700\"\n";
    }
    fs::write(path("conf"), lines).unwrap();
    let program = match kind {
        Kind::Libvirtd => "libvirtd",
        Kind::Strongroomd => env!("CARGO_BIN_EXE_strongroomd"),
    };
    let mut command = match is_root() {
        true => {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", OWN_VIEW, "sh", program]);
            command
        }
        false => Command::new(program),
    };
    let log = fs::File::create(path("log")).unwrap();
    command.args(["-f", &path("conf")]).current_dir("/");
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", home);
    command.env("XDG_RUNTIME_DIR", path("runtime")).env("XDG_CONFIG_HOME", path("config"));
    command.env("XDG_CACHE_HOME", path("cache"));
    if let Some(driver) = secret_driver() {
        symlink(&driver, home.join("drivers").join(driver.file_name().unwrap())).unwrap();
        command.env("LIBVIRT_DRIVER_DIR", path("drivers"));
    }
    command
}

/// The URI that a daemon of ours goes by.
pub(crate) fn uri() -> &'static str {
    if is_root() { "secret:///system" } else { "secret:///session" }
}

/// Where a client finds the daemon behind a socket.
pub(crate) fn at(socket: &Path) -> String {
    format!("{}?socket={}", uri(), socket.display())
}

/// Whether root runs the tests.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether there is such a program.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/usr/bin"]).any(|folder| Path::new(folder).join(program).exists())
}

/// libvirt keeps its drivers in a folder that is named after the processor.
fn secret_driver() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let driver = "libvirt/connection-driver/libvirt_driver_secret.so";
    folders.map(|folder| folder.join(driver)).find(|path| path.exists())
}

/// The host as the daemon shall see it, and then the daemon in this process.
const OWN_VIEW: &str = "set -e
mkdir -p /etc/libvirt
for folder in /run /etc/libvirt; do mount -t tmpfs -o mode=755 tmpfs \"$folder\"; done
exec \"$@\"";

const PATIENCE: Duration = Duration::from_secs(30);
