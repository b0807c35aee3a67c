//! A host of a test's own: its name, its network, its processes, its `/etc` and its `/run`; the programs are this one's.
//!
//! Namespaces make it, root alone can. `/etc` begins as a copy of this host's without libvirt's and PKI's parts, so that a
//! test (or a page of the documentation) writes there what a person would. All ports of its loopback are free. Hosts can
//! be linked. Leans on util-linux and iproute2. Refuses to outlive the test: when the handle goes, or the test is killed,
//! the host's first process ends, and with it all others.

#![allow(dead_code, reason = "every test uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// A host that lives until it is dropped.
pub(crate) struct Host {
    /// Its first process, as it is called out here.
    id: String,
    unshare: Child,
    _told: BufReader<ChildStdout>,
    home: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new(name: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "hosts are made of namespaces: run this test as root");
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--kill-child", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork"]);
        command.args(["sh", "-euc", BOOT, name]).arg(home.path());
        let mut unshare = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut told = BufReader::new(unshare.stdout.take().unwrap());
        let mut id = String::new();
        told.read_line(&mut id).unwrap();
        assert!(id.ends_with('\n'), "the host '{name}' doesn't start");
        Self { id: id.trim().to_owned(), unshare, _told: told, home }
    }

    /// Where a file of its `/etc` or `/run` lies for us.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        assert!(path.starts_with("/etc/") || path.starts_with("/run/"), "{path} isn't the host's alone");
        self.home.path().join(&path[1..])
    }

    /// Writes a file of its `/etc` or `/run`, readable by root alone.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(path)).unwrap_or_default()).into_owned()
    }

    /// A program on this host, root's, with nothing of our environment.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.id, "--mount", "--net", "--uts", "--ipc", "--pid", "--"])
            .arg(program);
        command.stdin(Stdio::null()).env_clear().env("HOME", HOME).env("LANG", "C.UTF-8");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Runs a script on it, which must succeed. Gives what it printed.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.command("sh").args(["-euc", script]).output().unwrap();
        assert!(output.status.success(), "{script}\n{}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a program that runs as long as the host does; what it says goes to `/run/NAME.log`.
    pub(crate) fn spawn(&self, name: &str, command: &mut Command) -> Child {
        let log = fs::File::create(self.path(&format!("/run/{name}.log"))).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    /// Its network: a thread can go there.
    pub(crate) fn network(&self) -> fs::File {
        fs::File::open(format!("/proc/{}/ns/net", self.id)).unwrap()
    }

    /// A line between this host and another, with an address at each end.
    pub(crate) fn link(&self, address: &str, other: &Self, others: &str) {
        let line = format!("to-{}", other.id);
        let far = format!("to-{}", self.id);
        self.ip(&format!("link add {line} type veth peer name {far} netns {}", other.id));
        for (host, line, address) in [(self, &line, address), (other, &far, others)] {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            host.ip(&format!("address add {address} dev {line} {nodad}"));
            host.ip(&format!("link set {line} up"));
        }
    }

    /// `ip` in its network, by our process numbers.
    fn ip(&self, words: &str) {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.id, "--net", "ip"]).args(words.split_whitespace());
        let output = command.output().unwrap();
        assert!(output.status.success(), "ip {words}: {}", said(&output));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        _ = self.unshare.kill();
        _ = self.unshare.wait();
    }
}

/// What a program said and how it ended, for a report.
pub(crate) fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned());
    format!("{}\n{out}{err}", output.status)
}

/// The process behind `nsenter`, which isn't the program itself.
pub(crate) fn inner(nsenter: &Child) -> rustix::process::Pid {
    let id = nsenter.id();
    let children = Path::new("/proc").join(id.to_string()).join("task").join(id.to_string()).join("children");
    let inner = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    rustix::process::Pid::from_raw(inner).unwrap()
}

/// Root's home on such a host.
pub(crate) const HOME: &str = "/run/root";

/// The first process: makes the host, says its number out here, and waits until nobody holds its standard input.
const BOOT: &str = r#"
home=$1
read -r number rest < /proc/self/stat
mount -t proc proc /proc
hostname "$0"
mkdir -m 755 "$home/etc" "$home/run" "$home/kdc"
mkdir -m 755 "$home/run/root" "$home/run/sshd"
cp -a /etc/. "$home/etc"
rm -rf "$home/etc/libvirt" "$home/etc/pki" "$home/etc/sasl2" "$home/etc/strongroom" "$home/etc/ssh"
mkdir -m 755 "$home/etc/libvirt" "$home/etc/sasl2" "$home/etc/ssh"
printf '127.0.0.1 localhost\n::1 localhost\n127.0.0.1 %s\n::1 %s\n' "$0" "$0" > "$home/etc/hosts"
sed -i 's,^root:.*,root:x:0:0:root:/run/root:/bin/sh,' "$home/etc/passwd"
sed -i 's,^root:[^:]*:,root:*:,' "$home/etc/shadow"
mount --bind "$home/etc" /etc
mount --bind "$home/run" /run
mkdir -p /var/lib/krb5kdc
mount --bind "$home/kdc" /var/lib/krb5kdc
for folder in /var/log /usr/local/bin; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
ip link set lo up
echo "$number"
exec cat
"#;
