//! A daemon on a host of its own, reachable in every way there is: Debian's libvirtd, or strongroomd.
//!
//! The host has a PKI in `/etc/pki`, a realm with its KDC and keytab, a password file for SCRAM, and an sshd; clients on it
//! find their own credentials in the usual places, and wrong ones beside them. Leans on [`Host`]. Refuses to call it a
//! success when strongroomd doesn't end well.

#![allow(dead_code, reason = "every test uses its own part of this")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::host::{Host, inner};
use crate::pki::{Authority, Pair};

/// Whose daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Debian's, with all programs in one.
    Libvirtd,
    /// Ours.
    Strongroomd,
}

/// What a server is to be like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    /// Lines for the daemon's configuration. They win over the usual ones.
    pub(crate) settings: &'a str,
    /// SASL's, one blank between two.
    pub(crate) mechanisms: &'a str,
    pub(crate) kerberos: bool,
    pub(crate) ssh: bool,
    /// Secrets that are there already.
    pub(crate) secrets: usize,
}

/// Certificates for everybody.
pub(crate) struct Pki {
    pub(crate) authority: Authority,
    pub(crate) server: Pair,
    pub(crate) client: Pair,
    /// Good, but of another authority.
    pub(crate) stranger: Pair,
}

/// A daemon that runs until it is dropped.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    daemon: Child,
    helpers: Vec<Child>,
    pub(crate) host: Host,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let authority = Authority::new("Strongroom's tests");
        Self {
            server: authority.server(&[NAME, "127.0.0.1", "::1"], |_| ()),
            client: authority.client("client1", |_| ()),
            stranger: Authority::new("Somebody else").client("client1", |_| ()),
            authority,
        }
    }

    /// Puts certificates where libvirt looks for them, and a stranger's into `/etc/stranger`.
    pub(crate) fn install(&self, host: &Host) {
        host.write("/etc/pki/CA/cacert.pem", self.authority.pem());
        for (name, pair) in [("server", &self.server), ("client", &self.client)] {
            host.write(&format!("/etc/pki/libvirt/{name}cert.pem"), &pair.certificate);
            host.write(&format!("/etc/pki/libvirt/private/{name}key.pem"), &pair.key);
        }
        self.client_in(host, "/etc/stranger", &self.stranger);
    }

    /// A directory for `?pkipath=`.
    pub(crate) fn client_in(&self, host: &Host, directory: &str, pair: &Pair) {
        host.write(&format!("{directory}/cacert.pem"), self.authority.pem());
        host.write(&format!("{directory}/clientcert.pem"), &pair.certificate);
        host.write(&format!("{directory}/clientkey.pem"), &pair.key);
    }
}

impl Server {
    pub(crate) fn start(kind: Kind, pki: &Pki, setup: &Setup<'_>) -> Self {
        Self::start_on(Host::new(NAME), kind, pki, setup)
    }

    /// The same on a host that has been prepared: what is in its `/etc` already stays.
    pub(crate) fn start_on(host: Host, kind: Kind, pki: &Pki, setup: &Setup<'_>) -> Self {
        if !host.path("/etc/pki").exists() {
            pki.install(&host);
        }
        let mut helpers = Vec::new();
        make_passwords(&host, setup.mechanisms);
        configure_clients(&host);
        if setup.kerberos {
            helpers.push(start_kdc(&host));
        }
        if setup.ssh {
            helpers.extend(start_sshds(&host, kind));
        }
        let daemon = start_daemon(&host, kind, setup.settings);
        let mut server = Self { kind, daemon, helpers, host };
        server.wait();
        server.fill(setup.secrets);
        server
    }

    /// Its main socket.
    pub(crate) fn socket(&self) -> &'static str {
        match self.kind {
            Kind::Libvirtd => "/run/libvirt/libvirt-sock",
            Kind::Strongroomd => "/run/libvirt/virtsecretd-sock",
        }
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        self.host.read("/run/daemon.log")
    }

    fn wait(&mut self) {
        let started = Instant::now();
        while UnixStream::connect(self.host.path(self.socket())).is_err() {
            let ended = self.daemon.try_wait().unwrap();
            let waiting = ended.is_none() && started.elapsed() < PATIENCE;
            assert!(waiting, "{:?} doesn't answer, {ended:?}:\n{}", self.kind, self.log());
            sleep(Duration::from_millis(10));
        }
    }

    fn fill(&self, secrets: usize) {
        if secrets > 0 {
            self.host.sh(&format!("/usr/bin/python3 -c '{FILL}' {secrets}"));
        }
    }

    /// Asks it to end, and sees that it does.
    fn stop(&mut self) {
        if self.daemon.try_wait().is_ok_and(|status| status.is_none()) {
            _ = rustix::process::kill_process(inner(&self.daemon), rustix::process::Signal::TERM);
        }
        let asked = Instant::now();
        while self.daemon.try_wait().is_ok_and(|status| status.is_none()) && asked.elapsed() < PATIENCE {
            sleep(Duration::from_millis(5));
        }
        _ = self.daemon.kill();
        let status = self.daemon.wait().unwrap();
        if self.kind == Kind::Strongroomd && !std::thread::panicking() {
            assert!(status.success() && !self.log().contains("panicked"), "{status}:\n{}", self.log());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        for helper in &mut self.helpers {
            _ = helper.kill();
            _ = helper.wait();
        }
    }
}

/// A host that only has clients, linked to a server's and knowing it by its name.
pub(crate) fn neighbour(server: &Server, pki: &Pki, [address, others]: [&str; 2]) -> Host {
    let host = Host::new("client.test");
    pki.install(&host);
    let bare = address.split('/').next().unwrap_or_default();
    host.write("/etc/hosts", format!("127.0.0.1 localhost\n::1 localhost\n{bare} {NAME}\n"));
    server.host.link(address, &host, others);
    configure_clients(&host);
    host.write("/etc/krb5.conf", KRB5_CONF);
    for file in ["id_ed25519", "known_hosts", "stranger"] {
        let path = format!("/run/root/.ssh/{file}");
        host.write(&path, server.host.read(&path));
    }
    if server.host.path("/etc/libvirt/krb5.tab").exists() {
        host.sh("echo alices-password | kinit alice > /run/kinit.log");
    }
    host
}

/// Where SASL's clients and servers look: mechanisms, and a user with a password.
fn make_passwords(host: &Host, mechanisms: &str) {
    let lines = format!(
        "mech_list: {mechanisms}\nkeytab: /etc/libvirt/krb5.tab\nsasldb_path: /etc/libvirt/passwd.db\n\
         pwcheck_method: auxprop\nauxprop_plugin: sasldb\n"
    );
    host.write("/etc/sasl2/libvirt.conf", lines);
    host.sh("for user in alice bob; do
        echo geheim | saslpasswd2 -p -c -a libvirt -f /etc/libvirt/passwd.db $user
    done");
}

fn configure_clients(host: &Host) {
    for (file, password) in [("auth.conf", "geheim"), ("wrong.conf", "falsch")] {
        let lines = format!(
            "[credentials-alice]\nauthname=alice\npassword={password}\n[auth-libvirt-{NAME}]\ncredentials=alice\n"
        );
        host.write(&format!("/etc/libvirt/{file}"), lines);
    }
    host.write("/etc/libvirt/nobody.conf", "");
    host.write("/run/value", vec![0xA5_u8; 65_536]);
    host.write("/run/root/.ssh/config", "BatchMode yes\n");
}

fn start_kdc(host: &Host) -> Child {
    host.write("/etc/krb5.conf", KRB5_CONF);
    host.write("/run/kdc.conf", "");
    let kdc = format!(
        "{{ kdb5_util create -s -P master -r STRONGROOM.TEST
        kadmin.local addprinc -randkey libvirt/{NAME}
        kadmin.local ktadd -k /etc/libvirt/krb5.tab libvirt/{NAME}
        kadmin.local addprinc -pw alices-password alice
        kadmin.local addprinc -pw bobs-password bob; }} > /run/realm.log 2>&1 || {{ cat /run/realm.log; exit 1; }}"
    );
    host.sh(&kdc);
    let running = host.spawn("kdc", host.command("krb5kdc").arg("-n"));
    host.sh("for try in $(seq 100); do
        if echo alices-password | kinit alice > /run/kinit.log 2>&1; then exit; fi
        sleep 0.05
    done
    cat /run/kinit.log /run/kdc.log; exit 1");
    running
}

/// Two: on port 22 virt-ssh-helper is the daemon's own kind's, on 2222 it is the other's.
fn start_sshds(host: &Host, kind: Kind) -> Vec<Child> {
    host.sh("umask 077; mkdir -p -m 755 /run/bin /run/native /run/other; cd /run/root/.ssh
        ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/host_key
        ssh-keygen -q -t ed25519 -N '' -f id_ed25519
        ssh-keygen -q -t ed25519 -N '' -f stranger
        cp id_ed25519.pub /etc/ssh/authorized_keys");
    let key = host.read("/etc/ssh/host_key.pub");
    host.write("/run/root/.ssh/known_hosts", format!("{NAME} {key}[{NAME}]:2222 {key}"));
    let (socket, ours) = match kind {
        Kind::Libvirtd => ("libvirt-sock", "/run/other"),
        Kind::Strongroomd => ("virtsecretd-sock", "/run/native"),
    };
    symlink(env!("CARGO_BIN_EXE_strongroom"), host.path(ours).join("virt-ssh-helper")).unwrap();
    for (name, does) in [
        ("relay", format!("exec nc.openbsd -U /run/libvirt/{socket}")),
        ("relay-that-refuses", "head -c 28 > /dev/null; echo 'nobody is let in' >&2; exit 1".to_owned()),
    ] {
        let path = format!("/run/bin/{name}");
        // Not written by this process: a program can't be run while a child of another test's has it open.
        host.sh(&format!("printf '#!/bin/sh\\n%s\\n' \"{does}\" > {path}; chmod 755 {path}"));
    }
    [("22", "/run/native"), ("2222", "/run/other")].map(|(port, path)| start_sshd(host, port, path)).into()
}

/// `path`: what a log-in there finds before this host's programs.
fn start_sshd(host: &Host, port: &str, path: &str) -> Child {
    let config = format!("/etc/ssh/sshd_config.{port}");
    host.write(&config, format!("{SSHD_CONFIG}Port {port}\nSetEnv PATH={path}:/usr/bin:/bin\n"));
    let mut sshd = host.command("/usr/sbin/sshd");
    sshd.args(["-D", "-e", "-f", &config]).stderr(std::process::Stdio::piped());
    let mut running = sshd.spawn().unwrap();
    let mut told = BufReader::new(running.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening on ::") {
        line.clear();
        assert!(told.read_line(&mut line).unwrap() > 0, "sshd doesn't start");
    }
    std::thread::spawn(move || std::io::copy(&mut told, &mut std::io::sink()));
    running
}

fn start_daemon(host: &Host, kind: Kind, settings: &str) -> Child {
    let (program, config) = match kind {
        Kind::Libvirtd => ("libvirtd", "/etc/libvirt/libvirtd.conf"),
        Kind::Strongroomd => (env!("CARGO_BIN_EXE_strongroomd"), "/etc/libvirt/virtsecretd.conf"),
    };
    host.write(config, format!("{settings}\n{USUAL}"));
    let mut command = host.command(program);
    command.arg("--listen");
    if let Some(driver) = secret_driver() {
        let drivers = host.path("/run/drivers");
        fs::create_dir_all(&drivers).unwrap();
        symlink(&driver, drivers.join(driver.file_name().unwrap_or_default())).unwrap();
        fs::set_permissions(&drivers, fs::Permissions::from_mode(0o755)).unwrap();
        command.env("LIBVIRT_DRIVER_DIR", "/run/drivers");
    }
    host.spawn("daemon", &mut command)
}

/// libvirt keeps its drivers in a folder that is named after the processor.
fn secret_driver() -> Option<std::path::PathBuf> {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let driver = "libvirt/connection-driver/libvirt_driver_secret.so";
    folders.map(|folder| folder.join(driver)).find(|path| Path::exists(path))
}

/// The name by which all know a server.
pub(crate) const NAME: &str = "server.test";

/// Of two lines with one name, the first counts.
const USUAL: &str = "listen_tls = 1
listen_tcp = 1
auth_unix_rw = \"none\"
auth_unix_ro = \"none\"
unix_sock_rw_perms = \"0700\"
";

const KRB5_CONF: &str = "[libdefaults]
default_realm = STRONGROOM.TEST
default_ccache_name = FILE:/run/krb5cc
dns_lookup_kdc = false
dns_canonicalize_hostname = false
rdns = false
[realms]
STRONGROOM.TEST = {
    kdc = server.test
}
[domain_realm]
server.test = STRONGROOM.TEST
";

const SSHD_CONFIG: &str = "HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
UsePAM no
UseDNS no
PermitRootLogin yes
PasswordAuthentication no
MaxStartups 100
PidFile none
";

const FILL: &str = "import libvirt, sys
connection = libvirt.open(\"secret:///system\")
for _ in range(int(sys.argv[1])): connection.secretDefineXML(\"<secret ephemeral=\\\"yes\\\"/>\")";

const PATIENCE: Duration = Duration::from_secs(30);
