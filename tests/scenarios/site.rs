//! A host with strongroomd in virtsecretd's place, and one disk, on which all lies that daemon and guests write.
//!
//! The disk is a file here: what was ever on it is found there, be it in a file that was removed long ago. What is written
//! goes there at once, but for the guests' disks, which are large. Beside the stock programs the host has `virsh create` for guests of libvirt's
//! QEMU driver (tests/clients/machine.py) and a key store, `vault`, whose passphrases are on another disk. Leans on
//! `Host`; root alone has such a site.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::host::{Host, inner, said};
use crate::support::markers::Needles;
use crate::support::{Dice, files_below};

pub(crate) struct Site {
    pub(crate) host: Host,
    daemon: Child,
    home: tempfile::TempDir,
}

impl Site {
    /// One with these files beside the guests' disks, and `system.img`.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let (host, home) = (Host::new("host.example.org"), tempfile::tempdir().unwrap());
        let disk = home.path().join("disk").display().to_string();
        fs::File::create(&disk).unwrap().set_len(DISK).unwrap();
        host.sh(&format!("mkfs.ext4 -q -F '{disk}'; mount -o loop '{disk}' /srv\n{FURNISH}"));
        let machine = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/machine.py");
        let machine = machine.display().to_string();
        for (name, script) in [("virsh", VIRSH), ("vault", VAULT), ("ceph", CEPH)] {
            host.write("/run/script", script.replace("MACHINE", &machine));
            host.sh(&format!("install -m 755 /run/script /usr/local/bin/{name}"));
        }
        for (name, content) in files {
            host.write("/run/file", content);
            host.sh(&format!("cp /run/file /srv/vm/{name}"));
        }
        host.sh(&format!("python3 -B '{machine}' system /srv/vm/system.img '{FIRST}' '{SECOND}'"));
        let daemon = serve(&host);
        Self { host, daemon, home }
    }

    /// Runs a script as an operator types it, which must succeed. Gives what it showed.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> String {
        let output = self.operator(&["sh", "-euc", script]).output().unwrap();
        assert!(output.status.success(), "{script}\n{}\n{}", said(&output), self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs one that must fail. Gives what it said of that.
    #[track_caller]
    pub(crate) fn fails(&self, script: &str) -> String {
        let Output { status, stderr, stdout } = self.operator(&["sh", "-euc", script]).output().unwrap();
        assert!(!status.success(), "{script}\n{}", String::from_utf8_lossy(&stdout));
        String::from_utf8(stderr).unwrap()
    }

    /// A command as an operator types it.
    pub(crate) fn operator(&self, words: &[&str]) -> Command {
        let programs = Path::new(env!("CARGO_BIN_EXE_strongroom")).parent().unwrap();
        let mut command = self.host.command("timeout");
        command.args(["--foreground", "120"]).args(words);
        command.env("PATH", format!("{}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", programs.display()));
        command.env("TMPDIR", "/srv/host/tmp");
        command
    }

    /// What the key store has.
    pub(crate) fn kept(&self, name: &str) -> Vec<u8> {
        fs::read(self.host.path("/run/vault").join(name)).unwrap()
    }

    /// Puts something there.
    pub(crate) fn keep(&self, name: &str, value: &[u8]) {
        self.host.write(&format!("/run/vault/{name}"), value);
    }

    /// The next line from the guest `db`.
    #[track_caller]
    pub(crate) fn guest_says(&self) -> String {
        self.run("read -r line < /run/qemu/db.out; echo \"$line\"").trim_end().to_owned()
    }

    /// What it says when a key is pressed at its console. It may be off before that is read.
    #[track_caller]
    pub(crate) fn press(&self) -> String {
        let line = self
            .run("exec 3<> /run/qemu/db.out; printf . > /run/qemu/db.in; read -r line <&3; echo \"$line\"");
        line.trim_end().to_owned()
    }

    /// Waits until the guest is off; by itself, or it is a failure.
    #[track_caller]
    pub(crate) fn guest_ends(&self) {
        let how = self.run("flock /run/qemu/db.log cat /run/qemu/db.log");
        assert_eq!(how.lines().last(), Some("the guest is off"), "{how}");
    }

    /// A passphrase opens the volume, by qemu's own tools.
    pub(crate) fn opens(&self, passphrase: &[u8]) -> bool {
        self.host.write("/run/passphrase", passphrase);
        let image = "driver=qcow2,encrypt.key-secret=key,file.filename=/srv/vm/db.qcow2";
        let secret = "secret,id=key,file=/run/passphrase";
        let words = ["qemu-io", "--object", secret, "--image-opts", image, "-c", "read 0 512"];
        let output = self.operator(&words).output().unwrap();
        fs::remove_file(self.host.path("/run/passphrase")).unwrap();
        let refused = String::from_utf8_lossy(&output.stderr).contains("Invalid password");
        assert!(output.status.success() || refused, "{}", said(&output));
        output.status.success()
    }

    /// How many secrets there are.
    pub(crate) fn secrets(&self) -> usize {
        self.run("virsh -q -c secret:///system secret-list").lines().filter(|line| !line.is_empty()).count()
    }

    /// The daemon, as its process is called out here.
    pub(crate) fn pid(&self) -> u32 {
        inner(&self.daemon).as_raw_nonzero().get().unsigned_abs()
    }

    pub(crate) fn restart(&mut self) {
        kill_process(inner(&self.daemon), Signal::TERM).unwrap();
        assert!(self.daemon.wait().unwrap().success());
        self.daemon = serve(&self.host);
    }

    /// Where these are found: on the disk, in any file that is or ever was there; in this host's own files; and in the
    /// daemon's memory. Each look has its control.
    #[track_caller]
    pub(crate) fn traces(&self, needles: &Needles) -> Vec<String> {
        let control = format!("control {:032x}", Dice::seed());
        self.host.write("/run/control", &control);
        self.host.sh("cp /run/control /srv/host/tmp; rm /srv/host/tmp/control; sync -f /srv");
        let mut known = Needles::new();
        known.add("the control", control.as_bytes());
        known.add("the daemon's words", CONFIGURATION.as_bytes());
        let disk = self.home.path().join("disk");
        assert!(!known.in_file(&disk).is_empty(), "what was removed from the disk isn't found");
        assert!(!known.in_process(self.pid()).found.is_empty(), "the daemon's words aren't in its memory");
        let mut found = needles.in_file(&disk);
        found.extend(needles.in_process(self.pid()).found);
        let (etc, run) = (self.host.path("/etc/"), self.host.path("/run/"));
        let vault = self.host.path("/run/vault");
        let files = [etc, run].iter().flat_map(|folder| files_below(folder)).collect::<Vec<PathBuf>>();
        let files = files.iter().filter(|file| file.is_file() && !file.starts_with(&vault));
        found.extend(files.flat_map(|file| needles.in_file(file)));
        found
    }

    /// What the daemon logged and what became of guests.
    fn log(&self) -> String {
        self.host
            .sh("tail -n 50 /var/log/libvirt/*.log /run/qemu/*.log /run/qemu/*/log/qemu/*.log 2>&1 || true")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        _ = self.daemon.kill();
        _ = self.daemon.wait();
    }
}

/// Starts the daemon, and waits until it is ready.
fn serve(host: &Host) -> Child {
    let notify = host.path("/run/notify");
    _ = fs::remove_file(&notify);
    let ear = UnixDatagram::bind(&notify).unwrap();
    ear.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut command = host.command(env!("CARGO_BIN_EXE_strongroomd"));
    command.args(["-f", CONFIGURATION]).env("NOTIFY_SOCKET", "/run/notify");
    let mut daemon = host.spawn("strongroomd", &mut command);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut told = [0; 100];
    while !ear.recv(&mut told).is_ok_and(|length| told[..length].starts_with(b"READY=1")) {
        let ended = daemon.try_wait().unwrap();
        let said = || host.read("/run/strongroomd.log");
        assert!(ended.is_none() && Instant::now() < deadline, "it isn't ready: {ended:?}\n{}", said());
    }
    daemon
}

/// What the system on the disk says, and what it reads from the disk later.
pub(crate) const FIRST: &str = "The disk is open";
pub(crate) const SECOND: &str = "It still is";

const DISK: u64 = 48 << 20;

const CONFIGURATION: &str = "/etc/libvirt/virtsecretd.conf";

/// The host's folders, all on its disk; and a daemon that logs all it can.
const FURNISH: &str = r#"
umask 077
mkdir /srv/vm /srv/host
chattr +S /srv/host
mkdir /srv/host/tmp
for folder in /etc/libvirt /etc/strongroom /run/libvirt /run/qemu /var/log/libvirt; do
    mkdir -p "$folder" "/srv/host$folder"
    mount --bind "/srv/host$folder" "$folder"
done
cat > /etc/libvirt/virtsecretd.conf <<'CONF'
log_level = 1
log_outputs = "1:file:/var/log/libvirt/strongroomd.log"
CONF
mkdir /run/vault
# QEMU's driver looks its default user up before it reads that it is to take another.
echo 'libvirt-qemu:x:0:0::/:' >> /etc/passwd
echo 'libvirt-qemu:x:0:' >> /etc/group
"#;

/// virsh. What it would ask virtqemud for is done without.
const VIRSH: &str = r#"#!/bin/sh
case "$*" in
    "-c qemu:///system create "*) exec python3 -B 'MACHINE' create /run/qemu "$4" ;;
esac
exec /usr/bin/virsh "$@"
"#;

/// A key store's command.
const VAULT: &str = r#"#!/bin/sh
umask 077
case "$*" in
    "kv put secret/"*" "*=-) exec cat > "/run/vault/${3#secret/}" ;;
    "kv get -field="*" secret/"*) exec cat "/run/vault/${4#secret/}" ;;
esac
echo "Usage: vault kv put|get" >&2
exit 1
"#;

/// Ceph's command, for a key that the key store has.
const CEPH: &str = r#"#!/bin/sh
[ "$*" = "auth get-key client.libvirt" ] && base64 -w 0 /run/vault/ceph
"#;
